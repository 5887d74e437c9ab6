"""From prompts to scored groups, with made-up engines and rewards: what is lost shrinks its own group and no other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openrlhf.trainer.ppo_trainer import SamplesGenerator

from openrlhf_maxk.experience.group import CHOSEN_BY, GROUP, Group
from openrlhf_maxk.objectives import NO_VOTE, worth_at_k
from openrlhf_maxk.options.maxk import MaxKOptions
from openrlhf_maxk.rewards.request import Reward, RewardRequest
from openrlhf_maxk.rewards.serving.pool import RewardError
from openrlhf_maxk.rollout import sampler
from openrlhf_maxk.rollout.sampler import TooManyLost

from ..rollouts import PROMPTS, arguments


class Reference:
    """Stands for a Ray object reference."""

    def __init__(self, value: Any) -> None:
        self.value = value


class FakeRay:
    """``put``, ``get`` and ``wait``; references become ready in random order, and sometimes none does in time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    put = staticmethod(Reference)

    def get(self, refs: Any) -> Any:
        return [ref.value for ref in refs] if isinstance(refs, list) else refs.value

    def wait(self, refs: list, num_returns: int, timeout: float) -> tuple[list, list]:
        assert num_returns == 1
        ready = [] if self._random.random() < 0.2 else [self._random.choice(refs)]
        return ready, [ref for ref in refs if ref not in ready]


class Engine:
    """A rollout actor: completion ``i`` of prompt ``p`` is the token ``i + 1``, unless ``generated`` leaves it out."""

    def __init__(self, generated: dict[int, list[int]] | None = None, waiting: int = 0, reward: Any = None) -> None:
        self.generated, self.reward = generated, reward
        self.calls: list[dict[str, Any]] = []
        self.get_num_unfinished_requests = SimpleNamespace(remote=lambda: Reference(waiting))
        self.generate_responses = SimpleNamespace(remote=self._generate)

    def _generate(self, **call: Any) -> Reference:
        self.calls.append(call)
        number = int(call["label"])
        completions = range(call["num_samples"]) if self.generated is None else self.generated[number]
        return Reference([self._response(call["prompt"], call["label"], i) for i in completions])

    def _response(self, prompt: str, label: str, i: int) -> dict[str, Any]:
        prompt_ids = [PROMPTS + int(label), 50]
        return {
            "prompt": prompt,
            "label": label,
            "images": None,
            "mm_train_inputs": None,
            "observation_tokens": [*prompt_ids, i + 1, 99],
            "action_ranges": [(2, 4)],
            "rollout_log_probs": [0.0, 0.0, -0.5 - i, -0.25],
            "truncated": i % 2 == 1,
            "query": f"{prompt} {i}",
            "completion": str(i),
            "reward": self.reward,
            "scores": self.reward,
            "extra_logs": {},
        }


class Pool:
    """Rewards by (label, completion); None where there is no entry."""

    def __init__(self, rewards: Any, enabled: bool = True) -> None:
        self.rewards, self.enabled = rewards, enabled
        self.requests: list[RewardRequest] = []
        self.pending: list[Reference] = []

    def submit(self, request: RewardRequest) -> Reference:
        self.requests.append(request)
        self.pending.append(Reference([self.rewards(int(request.label), int(c)) for c in request.completions]))
        return self.pending[-1]

    def result(self, ref: Reference) -> list[Reward]:
        self.pending.remove(ref)
        return ref.value

    def check_progress(self, waiting: Any, progressed: bool) -> None:
        assert list(waiting) == self.pending


N = 4


def make_sampler(monkeypatch, engines: list[Engine], pool: Pool, seed: int = 0, **changes: Any) -> SamplesGenerator:
    """OpenRLHF's generator behind its seam; ``changes`` of ``--maxk`` options and, with dots, of others."""
    maxk = {field.name: getattr(MaxKOptions(), field.name) for field in fields(MaxKOptions)} | {"max_lost": 1.0}
    maxk |= {name: value for name, value in changes.items() if "__" not in name}
    options = {
        "rollout__n_samples_per_prompt": N,
        "rollout__batch_size": 3,
        "algo__dynamic_filtering_enable": False,
        "algo__dynamic_filtering_range": (0.0, 1.0),
        "algo__advantage__is_correction_level": "off",
        "vllm__enable_sleep": False,
        "reward__remote_url": None,
        "reward__clip_range": (-10, 10),
        "train__agent_func_path": None,
        "maxk": SimpleNamespace(**maxk),
        **{name: value for name, value in changes.items() if "__" in name},
    }
    strategy = SimpleNamespace(args=arguments(**options))
    monkeypatch.setattr(sampler, "RewardPool", lambda *_: pool)
    monkeypatch.setattr(sampler, "ray", FakeRay(seed))
    return SamplesGenerator(strategy, None, None, "tokenizer", engines)


def prompts(count: int) -> Iterator[tuple]:
    """What the data loader yields: a batch of one prompt at a time."""
    return (([None], [f"prompt {i}"], [str(i)], [None]) for i in range(count))


def generate(made: SamplesGenerator, count: int, available: int | None = None, filtering: bool = False, **kwargs: Any):
    data = prompts(count if available is None else available)
    return made._generate_vllm(data, count, filtering, max_len=64, **kwargs)


def number_of(group: Group) -> int:
    return int(group.members[0].labels[0])


def completions_of(group: Group) -> list[int]:
    """Which completions are in a group, by their tokens; all that belongs to them must be theirs."""
    for member in group.members:
        number, completion = int(member.labels[0]), int(member.sequences[0, 2]) - 1
        assert number == number_of(group)
        assert member.prompts == [f"prompt {number}"]
        assert member.sequences.tolist() == [[PROMPTS + number, 50, completion + 1, 99]]
        assert member.action_mask.tolist() == [[0, 1, 1]]
        assert member.rollout_log_probs.tolist() == [[0.0, -0.5 - completion, -0.25]]
        assert member.truncated.tolist() == [completion % 2 == 1]
        assert member.info[GROUP].tolist() == [group.id]
    return [int(member.sequences[0, 2]) - 1 for member in group.members]


def reward_of(number: int, completion: int) -> float:
    return (7 * number + 3 * completion) % 5 / 4


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.sampled_from(["good", "good", "not generated", "not scored"]), min_size=N, max_size=N)),
    st.integers(1, N),
    st.integers(0, 2**20),
)
@example([["not generated"] * N, ["good"] * N, ["not scored"] * N, ["good"] * N], 2, 0)
def test_a_lost_completion_shrinks_its_own_group_and_shifts_no_other(fates, k, seed):
    generated = {p: [i for i, fate in enumerate(fate_of) if fate != "not generated"] for p, fate_of in enumerate(fates)}

    def reward(number: int, completion: int) -> Reward:
        if fates[number][completion] == "not scored":
            return Reward(None)
        return Reward(reward_of(number, completion), None, {"seen": float(number)})

    pool = Pool(reward)
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = make_sampler(monkeypatch, [Engine(generated), Engine(generated)], pool, seed, k=str(k))
        groups, consumed, exhausted = generate(made, len(fates))
    good = {p: [i for i, fate in enumerate(fate_of) if fate == "good"] for p, fate_of in enumerate(fates)}
    kept = {p: completions for p, completions in good.items() if len(completions) >= max(k, 2)}
    assert {number_of(group): completions_of(group) for group in groups} == kept
    for group in groups:
        number = number_of(group)
        assert group.rewards.tolist() == [reward_of(number, i) for i in kept[number]]
        assert group.lost == N - len(kept[number])
    ids = [group.id for group in groups]
    assert ids == sorted(set(ids))
    assert consumed == len(fates)
    assert exhausted == (not fates)
    if not fates:
        return
    counts, lost = made.counts, sum(N - len(completions) for completions in good.values())
    assert (counts.asked, counts.lost) == (N * len(fates), lost)
    assert counts.dropped_groups == len(fates) - len(kept)
    assert counts.filtered_groups == 0
    metrics = counts.metrics()
    assert metrics["rollout/lost_completions"] == lost
    assert metrics["rollout/lost_share"] == lost / (N * len(fates))
    assert metrics["rollout/dropped_groups"] == len(fates) - len(kept)
    seen = [number for number, completions in good.items() for _ in completions]
    assert metrics.get("reward/seen") == (pytest.approx(sum(seen) / len(seen)) if seen else None)
    assert not pool.pending
    for request in pool.requests:
        number = int(request.label)
        assert request.prompt == f"prompt {number}"
        assert request.completions == tuple(map(str, generated[number]))
        assert request.queries == tuple(f"prompt {number} {i}" for i in generated[number])
    assert len(pool.requests) == sum(bool(completions) for completions in generated.values())


@pytest.mark.parametrize(("max_lost", "raises"), [(0.25, False), (0.24, True), (0.0, True)])
def test_too_many_lost_completions_end_the_run(monkeypatch, max_lost, raises):
    pool = Pool(lambda number, completion: Reward(None if completion == number else 0.0))
    made = make_sampler(monkeypatch, [Engine()], pool, max_lost=max_lost)
    if not raises:
        groups, *_ = generate(made, 4)
        assert [group.size for group in groups] == [3] * 4
        return
    with pytest.raises(TooManyLost, match=rf"4 of 16 completions were lost .* --maxk\.max_lost {max_lost} allows"):
        generate(made, 4)


def test_without_losses_nothing_is_too_many(monkeypatch):
    made = make_sampler(monkeypatch, [Engine()], Pool(lambda *_: Reward(0.0)), max_lost=0.0)
    assert len(generate(made, 4)[0]) == 4


def test_an_error_of_the_reward_ends_the_run(monkeypatch):
    pool = Pool(lambda *_: Reward(0.0))

    def failed(ref: Reference) -> None:
        raise RewardError("mine")

    pool.result = failed
    with pytest.raises(RewardError, match="mine"):
        generate(make_sampler(monkeypatch, [Engine()], pool), 2)


def of_kind(kinds: dict[int, str]):
    """Rewards of prompts that are solved always, never, or half the time."""
    values = {"solved": lambda i: 1.0, "unsolved": lambda i: 0.0, "mixed": lambda i: float(i % 2)}
    return lambda number, completion: Reward(values[kinds[number]](completion), values[kinds[number]](completion))


@pytest.mark.parametrize("seed", range(5))
def test_dynamic_filtering_replaces_groups_until_there_are_enough(monkeypatch, seed):
    kinds = dict(enumerate(["solved", "mixed", "unsolved", "solved", "mixed", "mixed", "mixed", "mixed"]))
    made = make_sampler(monkeypatch, [Engine()], Pool(of_kind(kinds)), seed)
    groups, consumed, exhausted = generate(made, 3, available=8, filtering=True)
    assert sorted(number_of(group) for group in groups) == [1, 4, 5]
    assert all(completions_of(group) == list(range(N)) for group in groups)
    assert (consumed, exhausted) == (6, False)
    assert made.counts.filtered_groups == 3
    assert made.counts.dropped_groups == made.counts.lost == 0


def test_dynamic_filtering_stops_where_the_data_ends(monkeypatch):
    kinds = dict(enumerate(["solved", "mixed", "unsolved", "solved"]))
    made = make_sampler(monkeypatch, [Engine()], Pool(of_kind(kinds)))
    groups, consumed, exhausted = generate(made, 3, available=4, filtering=True)
    assert [number_of(group) for group in groups] == [1]
    assert (consumed, exhausted) == (4, True)


def test_dynamic_filtering_replaces_groups_that_were_dropped_too(monkeypatch):
    pool = Pool(lambda number, i: Reward(None if number == 0 and i > 0 else float(i % 2), float(i % 2)))
    made = make_sampler(monkeypatch, [Engine()], pool)
    groups, consumed, _ = generate(made, 2, available=5, filtering=True)
    assert sorted(number_of(group) for group in groups) == [1, 2]
    assert (consumed, made.counts.dropped_groups, made.counts.lost) == (3, 1, 3)


def test_dynamic_filtering_looks_at_scores_not_rewards(monkeypatch):
    scores = {0: 1.0, 1: 0.5, 2: None}
    pool = Pool(lambda number, i: Reward(float(i), scores[number]))
    made = make_sampler(monkeypatch, [Engine()], pool)
    groups, *_ = generate(made, 3, available=3, filtering=True)
    assert sorted(number_of(group) for group in groups) == [1, 2], "without scores there is nothing to filter by"


@pytest.mark.parametrize(("objective", "kept"), [("offpolicy_bon", [2]), ("bon_max_second", [2]), ("grpo_passk", [])])
def test_dynamic_filtering_replaces_groups_that_say_nothing_to_the_objective(monkeypatch, objective, kept):
    """All of them lie inside the range: equal fractional rewards, equal scores with equal rewards, and mixed ones."""
    rewards = {0: [0.5] * N, 1: [0.25] * N, 2: [0.0, 1.0, 1.0, 0.5]}
    pool = Pool(lambda number, i: Reward(rewards[number][i], rewards[number][i]))
    made = make_sampler(monkeypatch, [Engine()], pool, objective=objective)
    groups, *_ = generate(made, 3, available=3, filtering=True)
    assert [number_of(group) for group in groups] == kept
    assert made.counts.filtered_groups == 3 - len(kept)
    groups, *_ = generate(made, 3, available=3)
    assert sorted(number_of(group) for group in groups) == [0, 1, 2], "filtered only when asked for"


def test_a_length_penalty_is_a_signal_too(monkeypatch):
    """Rewards are looked at as they will be trained on, and left as they are."""
    pool = Pool(lambda number, i: Reward(0.5, 0.5))
    made = make_sampler(monkeypatch, [Engine()], pool, reward__stop_properly_penalty_coef=0.0)
    (group,), *_ = generate(made, 1, available=1, filtering=True)
    assert group.rewards.tolist() == [0.5] * N


def test_rewards_that_a_reward_model_gives_later_are_left_open(monkeypatch):
    pool = Pool(None, enabled=False)
    groups, *_ = generate(make_sampler(monkeypatch, [Engine()], pool), 3)
    assert [group.rewards for group in groups] == [None] * 3
    assert [completions_of(group) for group in groups] == [list(range(N))] * 3


def test_rewards_that_came_with_the_completions_are_kept(monkeypatch):
    pool = Pool(None)
    groups, *_ = generate(make_sampler(monkeypatch, [Engine(reward=0.75)], pool), 2)
    assert [group.rewards.tolist() for group in groups] == [[0.75] * N] * 2
    assert pool.requests == []


def test_for_an_evaluation_one_completion_is_a_group_and_training_is_as_before(monkeypatch):
    generated = {0: [0], 1: [], 2: [1, 2], 3: [3], 4: [0, 1, 2, 3]}
    made = make_sampler(monkeypatch, [Engine(generated)], Pool(lambda p, i: Reward(reward_of(p, i))), k="2")
    made.eval_dataloader = list(prompts(5))
    for _ in range(2):
        groups = made.generate_eval_samples(max_len=64)
        assert {number_of(group): completions_of(group) for group in groups} == {
            number: completions for number, completions in generated.items() if completions
        }
        assert len({group.id for group in groups}) == 4
    groups, *_ = generate(made, 5)
    assert sorted(number_of(group) for group in groups) == [2, 4]


def test_an_evaluation_that_fails_does_not_loosen_training(monkeypatch):
    made = make_sampler(monkeypatch, [Engine({0: [0]})], Pool(lambda *_: Reward(None)), max_lost=0.0)
    made.eval_dataloader = list(prompts(1))
    with pytest.raises(TooManyLost):
        made.generate_eval_samples(max_len=64)
    assert made._smallest() == 2


def test_a_batch_for_training_is_made_of_groups(monkeypatch):
    made = make_sampler(monkeypatch, [Engine()], Pool(lambda p, i: Reward(reward_of(p, i))))
    made.prompts_dataloader = list(prompts(7))
    batches = []
    while True:
        groups, _, consumed, exhausted = made.generate_samples(max_len=64)
        assert consumed == len(groups)
        batches.append([number_of(group) for group in groups])
        if exhausted:
            break
    assert [sorted(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_one_request_a_prompt_goes_to_the_engine_with_the_fewest_samples(monkeypatch):
    busy, idle = Engine(waiting=5), Engine(waiting=0)
    made = make_sampler(monkeypatch, [busy, idle], Pool(lambda *_: Reward(0.0)))
    generate(made, 4, n_samples_per_prompt=2, temperature=0.7, top_p=0.9, max_new_tokens=12)
    assert [call["label"] for call in idle.calls] == ["0", "1", "2"]  # 0, 2 and 4 samples wait there, then 6
    assert [call["label"] for call in busy.calls] == ["3"]
    call = busy.calls[0]
    assert call["num_samples"] == 2
    assert call["max_length"] == 64
    assert call["hf_tokenizer"].value == "tokenizer"
    params = call["sampling_params"]
    assert (params.temperature, params.top_p, params.max_tokens, params.logprobs) == (0.7, 0.9, 12, None)
    assert len({id(call["hf_tokenizer"]) for call in idle.calls + busy.calls}) == 1, "the tokenizer travels once"


@pytest.mark.parametrize(
    "changes", [{"behaviour": "rollout"}, {"algo__advantage__is_correction_level": "token"}], ids=["mu", "correction"]
)
def test_log_probs_are_asked_for_where_they_are_used(monkeypatch, changes):
    engine = Engine()
    generate(make_sampler(monkeypatch, [engine], Pool(lambda *_: Reward(0.0)), **changes), 1)
    assert engine.calls[0]["sampling_params"].logprobs == 1


def test_the_smallest_group_follows_the_schedule_of_k(monkeypatch):
    generated = {0: [0, 1, 2], 1: [0, 1, 2, 3]}
    made = make_sampler(monkeypatch, [Engine(generated)], Pool(lambda p, i: Reward(reward_of(p, i))), k="4:1")
    assert [number_of(group) for group in generate(made, 2)[0]] == [1]
    made.k = 3  # as the controller says
    assert sorted(number_of(group) for group in generate(made, 2)[0]) == [0, 1]


def test_the_wait_for_rewards_alone_is_measured(monkeypatch):
    now = SimpleNamespace(seconds=0.0)

    class SlowRay(FakeRay):
        """Generations are ready at once, one after another; then every reward takes ten seconds."""

        def wait(self, refs: list, num_returns: int, timeout: float) -> tuple[list, list]:
            scoring = refs[0] in pool.pending
            now.seconds += 10.0 if scoring else 1.0
            return refs[:1], refs[1:]

    pool = Pool(lambda *_: Reward(0.0))
    made = make_sampler(monkeypatch, [Engine()], pool)
    monkeypatch.setattr(sampler, "ray", SlowRay(0))
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    generate(made, 3)
    assert now.seconds == 33.0
    assert made.counts.metrics()["rollout/reward_wait_seconds"] == 30.0


def test_an_agents_missing_reward_is_a_lost_completion(monkeypatch):
    """An agent brings its rewards itself; None and NaN say that it could not."""
    given = [1.0, None, 0.0, float("nan")]

    class AgentEngine(Engine):
        def _response(self, prompt: str, label: str, i: int) -> dict[str, Any]:
            return super()._response(prompt, label, i) | {"reward": given[i], "scores": given[i]}

    pool = Pool(None, enabled=False)
    made = make_sampler(monkeypatch, [AgentEngine()], pool, k="1", train__agent_func_path="agent.py")
    groups, _, _ = generate(made, 2)
    assert [completions_of(group) for group in groups] == [[0, 2], [0, 2]]
    assert [group.rewards.tolist() for group in groups] == [[1.0, 0.0]] * 2
    assert made.counts.lost == 4


# What a strategy chooses by


def test_places_in_the_order_of_the_selector_come_with_their_completions(monkeypatch):
    """Of equal ones the first drawn is the better; what could not be scored takes no place."""
    selectors = {0: [0.5, 1.0, 0.5, 0.25], 1: [3.0, None, 3.0, -1.0]}

    def reward(number: int, i: int) -> Reward:
        return Reward(None if selectors[number][i] is None else reward_of(number, i), selector=selectors[number][i])

    made = make_sampler(monkeypatch, [Engine()], Pool(reward), strategy="selected", k="2")
    one, two = sorted(generate(made, 2)[0], key=number_of)
    assert str(one.strategy) == "selected"
    assert one.chosen_by.tolist() == [2, 3, 1, 0]
    assert (completions_of(two), two.chosen_by.tolist()) == ([0, 2, 3], [2, 1, 0])
    assert [member.info[CHOSEN_BY].tolist() for member in two.members] == [[2], [1], [0]]
    assert torch.equal(worth_at_k(one.rewards, 1, "selected", one.chosen_by), one.rewards.mean())
    best = one.rewards[1]
    assert worth_at_k(one.rewards, N, "selected", one.chosen_by) == best


def test_equal_answers_have_equal_numbers_and_no_answer_has_no_vote(monkeypatch):
    keys = {0: ["b", None, "a", "b"], 1: [None] * 4}
    pool = Pool(lambda number, i: Reward(reward_of(number, i), key=keys[number][i]))
    made = make_sampler(monkeypatch, [Engine()], pool, strategy="vote")
    one, two = sorted(generate(made, 2)[0], key=number_of)
    assert one.chosen_by.tolist() == [0, NO_VOTE, 1, 0]
    assert two.chosen_by.tolist() == [NO_VOTE] * 4
    assert one.chosen_by.dtype == two.chosen_by.dtype == torch.int64


def test_other_strategies_do_not_look_at_selectors_and_answers(monkeypatch):
    pool = Pool(lambda number, i: Reward(float(i), selector=-float(i), key="a"))
    (group,) = generate(make_sampler(monkeypatch, [Engine()], pool, strategy="min"), 1)[0]
    assert group.chosen_by is None
    assert all(CHOSEN_BY not in member.info for member in group.members)


@pytest.mark.parametrize("strategy", ["selected", "vote"])
def test_dynamic_filtering_knows_what_samples_are_chosen_by(monkeypatch, strategy):
    """Equal rewards say nothing, whoever is chosen; others do."""
    pool = Pool(lambda number, i: Reward(number * (i % 2) / 2, 0.5, selector=float(i), key=str(i // 2)))
    made = make_sampler(monkeypatch, [Engine()], pool, strategy=strategy, k="2")
    assert [number_of(group) for group in generate(made, 2, available=2, filtering=True)[0]] == [1]


@pytest.mark.parametrize("strategy", ["selected", "vote"])
def test_without_a_reward_function_there_is_nothing_to_choose_by(monkeypatch, strategy):
    with pytest.raises(
        ValueError, match=rf"--maxk\.strategy {strategy} goes by more than rewards: use --maxk\.problems"
    ):
        make_sampler(monkeypatch, [Engine()], Pool(None, enabled=False), strategy=strategy)


def test_with_the_nearest_k_a_smaller_group_is_trained_for_its_size(monkeypatch):
    generated = {0: [0, 1, 2], 1: [0, 1, 2, 3], 2: [3]}
    pool = Pool(lambda p, i: Reward(reward_of(p, i)))
    made = make_sampler(monkeypatch, [Engine(generated)], pool, k="64", k_beyond_n="nearest")
    assert made.k == N
    assert sorted(number_of(group) for group in generate(made, 3)[0]) == [0, 1]
    best = make_sampler(monkeypatch, [Engine(generated)], pool, k="64", k_beyond_n="nearest", strategy="mean_of_best:4")
    assert [number_of(group) for group in generate(best, 3)[0]] == [1]
