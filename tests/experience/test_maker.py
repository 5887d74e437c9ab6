"""The experience maker: groups in, advantages and metrics out, whatever micro-batches cut."""

from __future__ import annotations

import math
import random
from dataclasses import fields
from types import SimpleNamespace

import pytest
import ray
import torch
from openrlhf.trainer.ppo_trainer import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.experience import Experience, make_experience_batch, split_experience_batch

from openrlhf_maxk.experience.behaviour import are_unknown, keep
from openrlhf_maxk.experience.group import (
    FILLER,
    GROUP,
    SEQUENCE_ADVANTAGE,
    Group,
    K,
    chosen_by_of,
    group_ids,
    groups_of,
    minimum_size,
    regroup,
)
from openrlhf_maxk.experience.maker import GroupExperience
from openrlhf_maxk.experience.metrics import Outcomes, mean_at_k, mean_worth, names_at_k, powers_of_two, rollout_metrics
from openrlhf_maxk.experience.sharding import filler
from openrlhf_maxk.objectives import NO_VOTE, Strategy, get_objective, vote_weights
from openrlhf_maxk.options.maxk import MaxKOptions

from ..rollouts import PAD, arguments, random_group, sample

# Groups


def test_groups_are_taken_as_they_are():
    groups = [random_group(i, size, random.Random(i)) for i, size in enumerate([3, 1])]
    assert groups_of(groups, 4) == groups
    assert groups_of([], 4) == []


def test_a_flat_list_becomes_groups_of_n():
    flat = [sample([prompt, 5], [i], float(i)) for prompt in (11, 12) for i in range(3)]
    groups = groups_of(flat, 3)
    assert [group.id for group in groups] == [0, 1]
    assert [group.rewards.tolist() for group in groups] == [[0, 1, 2], [0, 1, 2]]
    assert [int(member.info[GROUP]) for group in groups for member in group.members] == [0, 0, 0, 1, 1, 1]
    assert (groups[0].size, groups[0].tokens, groups[0].prompt) == (3, 9, "11 5")


def test_a_flat_list_with_a_sample_missing_is_refused():
    flat = [sample([11], [i], 0.0) for i in range(5)]
    with pytest.raises(
        ValueError, match=r"5 rollout samples are not whole groups of --rollout\.n_samples_per_prompt 3"
    ):
        groups_of(flat, 3)


def test_a_flat_list_that_is_shifted_is_refused():
    flat = [sample([prompt], [1], 0.0) for prompt in (11, 11, 12, 12, 12, 11)]
    with pytest.raises(ValueError, match="rollout samples 0 to 2 do not share one prompt"):
        groups_of(flat, 3)


def test_rewards_that_are_to_come_are_none():
    group = random_group(0, 3, random.Random(0))
    group.members[1].rewards = None
    assert group.rewards is None


def test_the_smallest_group_that_can_be_trained_on():
    assert [minimum_size(k) for k in (1, 2, 5)] == [2, 2, 5]


def test_regroup_keeps_order_and_leaves_fillers_out():
    a, b = random_group(4, 2, random.Random(0)), random_group(2, 2, random.Random(1))
    mixed = [a.members[0], b.members[0], filler(b.members[0]), a.members[1], b.members[1]]
    found = regroup(mixed)
    assert [[id(member) for member in group] for group in found] == [list(map(id, g.members)) for g in (a, b)]


def test_a_filler_leaves_its_original_alone():
    original = random_group(4, 1, random.Random(0)).members[0]
    copy = filler(original)
    assert not copy.action_mask.any()
    assert int(copy.info[GROUP]) == FILLER
    assert original.action_mask.any()
    assert int(original.info[GROUP]) == 4


def test_group_ids_are_read_as_tensor_and_as_list():
    expected = torch.tensor([3, -1, 3])
    for given in (expected, [torch.tensor(3), torch.tensor(-1), torch.tensor(3)]):
        assert torch.equal(group_ids({GROUP: given}), expected)


# The maker

SIZES, N = (4, 2, 3), 4


def make_maker(kl: float = 0.0, **changes: object) -> RemoteExperienceMaker:
    options = {
        "algo__advantage__estimator": "group_norm",
        "rollout__n_samples_per_prompt": N,
        "rollout__micro_batch_size": 4,
        "rollout__max_new_tokens": 6,
        "train__dynamic_batch_enable": False,
        "actor__num_nodes": 1,
        "actor__num_gpus_per_node": 1,
        "reward__clip_range": (-10, 10),
        "maxk": SimpleNamespace(**MAXK),
        **changes,
    }
    strategy = SimpleNamespace(args=arguments(**options))
    return RemoteExperienceMaker(
        None, None, None, None, SimpleNamespace(value=kl), strategy, SimpleNamespace(pad_token_id=PAD)
    )


MAXK = {option.name: getattr(MaxKOptions(), option.name) for option in fields(MaxKOptions)}
MAXK |= {"k": "2", "delta_clip": math.inf}


def made(maker: RemoteExperienceMaker) -> tuple[list[Group], list[Experience]]:
    """Ragged groups through the maker; the KL of a token is a random number."""
    source = random.Random(3)
    groups = [random_group(i, size, source) for i, size in enumerate(SIZES)]
    experiences = maker.split_rollout_samples(groups)
    assert len(experiences) == 3, "so that groups are cut"
    for i, experience in enumerate(experiences):
        generator = torch.Generator().manual_seed(i)
        experience.kl = torch.rand(experience.action_mask.shape, generator=generator) * experience.action_mask
        experience.test_kl = experience.kl.clone()
    return groups, maker.compute_advantages_and_returns(experiences)


def rows(experiences: list[Experience]) -> dict[int, list[dict]]:
    """The rows of each group, in order, by id."""
    found: dict[int, list[dict]] = {}
    for e in experiences:
        for i, number in enumerate(group_ids(e.info).tolist()):
            row = {
                "mask": e.action_mask[i].bool(),
                "advantages": e.advantages[i],
                "returns": e.returns[i],
                "kl": e.test_kl[i],
                "reward": e.rewards[i].item(),
                "value": torch.as_tensor(e.info[SEQUENCE_ADVANTAGE])[i].item(),
                "return": e.info["return"][i].item(),
                "log_ratio": ((e.action_log_probs[i] - e.rollout_log_probs[i]) * e.action_mask[i]).sum().item(),
            }
            found.setdefault(number, []).append(row)
    return found


def test_install_puts_the_mixin_in_front_of_upstreams_class():
    assert issubclass(RemoteExperienceMaker, GroupExperience)
    assert RemoteExperienceMaker.make_experience_batch.__module__ == "openrlhf.trainer.ppo_utils.experience_maker"


class ActorGroup:
    """Learner ranks that answer every micro-batch with log-probs of −1, and count."""

    def __init__(self) -> None:
        self.asked = 0

    def async_run_method_batch(self, method_name: str, action_mask: list[torch.Tensor], **_: object) -> list:
        self.asked += 1
        return [ray.put([-mask.float() for mask in action_mask])]


def made_by_models(
    learner_knows: bool, use_loss: bool, reference: bool, from_vllm: bool, micro: int = N, step: int = N
) -> tuple:
    """Experience by way of models' forward passes; how often the policy was asked."""
    kl = {"algo__kl__use_loss": use_loss, "algo__kl__estimator": "k1"}
    ray_like = {"train__colocate_all": False, "train__colocate_actor_ref": False}
    maker = make_maker(**kl, **ray_like, ds__ring_attn_size=1, ds__tensor_parallel_size=1, rollout__micro_batch_size=20)
    maker.learner_knows = learner_knows
    maker.args.rollout.batch_size, maker.args.train.batch_size, maker.args.train.micro_batch_size = 3, step, micro
    maker.actor_model_group = ActorGroup()
    maker.initial_model_group = ActorGroup() if reference else None
    source = random.Random(3)
    samples = maker.split_rollout_samples([random_group(i, size, source) for i, size in enumerate(SIZES)])
    for part in samples:
        part.rollout_log_probs = part.rollout_log_probs if from_vllm else None
    return maker.make_experience(samples), maker.actor_model_group.asked


@pytest.fixture
def in_this_process(monkeypatch):
    """Ray's store, without starting Ray."""
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "no reference"])
@pytest.mark.parametrize("use_loss", [True, False], ids=["KL in the loss", "KL in the reward"])
@pytest.mark.parametrize("from_vllm", [True, False], ids=["vLLM's log-probs", "not vLLM's"])
@pytest.mark.parametrize("learner_knows", [True, False])
def test_log_probs_are_left_to_the_learner_where_nothing_before_it_needs_them(
    in_this_process, learner_knows, use_loss, reference, from_vllm
):
    (experience,), asked = made_by_models(learner_knows, use_loss, reference, from_vllm)
    left_out = learner_knows and not from_vllm and (use_loss or not reference)
    assert asked == (not left_out)
    assert are_unknown(experience) == left_out
    assert experience.action_log_probs.shape == experience.action_mask.shape
    assert (experience.base_action_log_probs is not None) == (reference and use_loss)
    assert not experience.kl.isnan().any()
    experience.info[SEQUENCE_ADVANTAGE] = torch.zeros(sum(SIZES))
    found = rollout_metrics([experience])
    assert ("rollout/policy_entropy" in found) == (not left_out)
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(("micro", "step", "left_out"), [(2 * N, 2 * N, True), (1, 2 * N, False), (1, 3 * N, True)])
def test_log_probs_are_not_left_out_where_training_computes_prompts_more_often(in_this_process, micro, step, left_out):
    (experience,), _ = made_by_models(True, True, True, False, micro, step)
    assert are_unknown(experience) == left_out


def test_one_number_that_is_none_is_not_taken_for_left_out(in_this_process):
    (experience,), _ = made_by_models(False, True, True, False)
    experience.action_log_probs[0, 0] = math.nan
    assert not are_unknown(experience)


def test_single_samples_get_what_was_computed_for_their_batch():
    members = [random_group(0, 1, random.Random(i)).members[0] for i in range(3)]
    single = [sample for member in members for sample in split_experience_batch(member)]
    batch = make_experience_batch(single)
    log_probs = torch.rand(batch.action_mask.shape, dtype=torch.float64).requires_grad_()
    single.append(filler(single[0]))
    keep(torch.cat([log_probs, log_probs[:1]]), torch.cat([batch.action_mask, batch.action_mask[:1] * 0]), single)
    again = make_experience_batch(single)
    assert again.action_log_probs.dtype == torch.float32
    torch.testing.assert_close(again.action_log_probs[:3], (log_probs * batch.action_mask).detach().float())
    assert not again.action_log_probs[3].any()


def test_gae_is_refused():
    with pytest.raises(ValueError, match="set it to group_norm instead of gae"):
        make_maker(algo__advantage__estimator="gae")


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_a_token_gets_the_advantage_of_its_completion_less_the_kl_from_it_on(kl):
    groups, experiences = made(make_maker(kl))
    found = rows(experiences)
    for group in groups:
        expected = get_objective("offpolicy_bon")(group.rewards.double(), 2).values
        for row, value in zip(found[group.id], expected.tolist(), strict=True):
            assert row["value"] == pytest.approx(value, abs=1e-6)
            penalty = 0.0
            for t in reversed(range(len(row["mask"]))):
                penalty += kl * row["kl"][t].item() * row["mask"][t].item()
                if row["mask"][t]:
                    assert row["advantages"][t].item() == pytest.approx(value - penalty, abs=1e-5)
            assert row["return"] == pytest.approx(value - penalty, abs=1e-5)
            assert torch.equal(row["returns"], row["advantages"])
    assert all(experience.kl is None for experience in experiences)
    assert any(row["value"] != 0 for group in found.values() for row in group)


def test_ratios_to_the_sampler_enter_where_it_is_mu():
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "behaviour": "rollout"}))
    groups, experiences = made(maker)
    moved = 0.0
    for group in groups:
        found = rows(experiences)[group.id]
        ratios = torch.tensor([math.exp(row["log_ratio"]) for row in found], dtype=torch.float64)
        expected = get_objective("offpolicy_bon")(group.rewards.double(), 2, ratios).values
        values = torch.tensor([row["value"] for row in found], dtype=torch.float64)
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
        moved += (values - get_objective("offpolicy_bon")(group.rewards.double(), 2).values).abs().sum().item()
    assert moved > 1e-3


def test_rewards_are_clipped_before_the_objective_sees_them():
    groups, experiences = made(make_maker(reward__clip_range=(-0.25, 0.5)))
    for group in groups:
        found = rows(experiences)[group.id]
        clipped = group.rewards.clamp(-0.25, 0.5)
        assert [row["reward"] for row in found] == clipped.tolist()
        expected = get_objective("offpolicy_bon")(clipped.double(), 2).values.tolist()
        assert [row["value"] for row in found] == pytest.approx(expected, abs=1e-6)


def test_upstreams_length_penalty_counts_before_the_objective():
    penalty = {"reward__overlong_buffer_len": 4, "reward__overlong_penalty_factor": 1.0}
    groups, experiences = made(make_maker(**penalty))
    punished = 0
    for group in groups:
        lengths = torch.cat([member.response_length for member in group.members])
        over = (lengths - 2).clamp(0, 4) / 4
        punished += int((over > 0).sum())
        expected = get_objective("offpolicy_bon")((group.rewards - over).double(), 2).values.tolist()
        assert [row["value"] for row in rows(experiences)[group.id]] == pytest.approx(expected, abs=1e-6)
    assert punished


def test_k_follows_the_schedule():
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "k": "4:1"}))
    groups = [random_group(i, 4, random.Random(i)) for i in range(2)]
    for progress, k in ((0.0, 4), (1 / 3, 3), (1.0, 1)):
        maker.progress = progress
        (one, two) = maker.split_rollout_samples(groups)
        assert torch.cat([one.info[K], two.info[K]]).tolist() == [k] * 8


@pytest.mark.parametrize("strategy", ["selected", "vote"])
def test_what_a_group_is_chosen_by_stays_with_its_members(strategy):
    """Groups are ragged, dealt to ranks and cut; the advantages are those of each group by itself."""
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "strategy": strategy}))
    source = random.Random(3)
    groups = []
    for i, size in enumerate(SIZES):
        by = torch.tensor(source.sample(range(size), size) if strategy == "selected" else [NO_VOTE, 0, 0, 1][:size])
        members = random_group(i, size, source).members
        groups.append(Group(i, members, 0, Strategy.parse(strategy), by))
    experiences = maker.split_rollout_samples(groups)
    for experience in experiences:
        experience.kl = torch.zeros(experience.action_mask.shape)
        experience.test_kl = experience.kl
    assert chosen_by_of(experiences).dtype == torch.int64
    found = rows(maker.compute_advantages_and_returns(experiences))
    objective = get_objective("offpolicy_bon")
    for group in groups:
        rewards = group.rewards.double()
        expected = objective(rewards, 2, strategy=strategy, chosen_by=group.chosen_by).values
        assert [row["value"] for row in found[group.id]] == pytest.approx(expected.tolist(), abs=1e-6)
    if strategy == "vote":
        torch.testing.assert_close(expected, len(rewards) * vote_weights(rewards, groups[-1].chosen_by, 2))
    assert f"rollout/{strategy}@2" in maker.metrics


def test_without_anything_to_choose_by_nothing_is_made_up():
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "strategy": "vote"}))
    with pytest.raises(ValueError, match="strategy vote needs to know more of the samples than their rewards"):
        made(maker)


def test_a_smaller_group_is_trained_for_the_nearest_k():
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "k": "64", "k_beyond_n": "nearest"}))
    groups, experiences = made(maker)
    assert maker.k == N
    assert {g: {int(k) for k in ks} for g, ks in ks_of(experiences).items()} == {0: {4}, 1: {2}, 2: {3}}
    for group in groups:
        expected = get_objective("offpolicy_bon")(group.rewards.double(), group.size).values
        assert [row["value"] for row in rows(experiences)[group.id]] == pytest.approx(expected.tolist(), abs=1e-6)
    assert maker.metrics["rollout/k"] == 4
    bests = [group.rewards.max().item() for group in groups]
    assert maker.metrics["rollout/worth"] == pytest.approx(sum(bests) / len(bests))


def ks_of(experiences: list[Experience]) -> dict[int, list[int]]:
    """The k of the rows of each group."""
    found: dict[int, list[int]] = {}
    for e in experiences:
        for number, k in zip(group_ids(e.info).tolist(), torch.as_tensor(e.info[K]).tolist(), strict=True):
            found.setdefault(number, []).append(k)
    return found


# Metrics


def test_another_strategy_is_told_by_its_name_for_every_k_it_can_have():
    rewards, keys = torch.tensor([1.0, 0.0, 0.0, 0.5]), torch.tensor([7, NO_VOTE, NO_VOTE, 3])
    groups = [Outcomes(rewards, rewards, keys)] * 2
    found = mean_at_k(groups, "", Strategy.parse("vote"))
    assert list(found) == names_at_k(4, Strategy.parse("vote"))
    # Two silent ones share 0; of two answers each is a half.
    assert found["vote@2"] == pytest.approx((2 * 1.0 + 2 * 0.5 + 0.0 + 0.75) / 6)
    assert found["max@2"] == pytest.approx((3 * 1.0 + 2 * 0.5 + 0.0) / 6)
    places = [Outcomes(rewards, rewards, torch.tensor([0, 1, 2, 3]))]
    assert mean_at_k(places, "", Strategy.parse("selected"))["selected@4"] == 0.5
    assert mean_worth(groups, [2, 4], Strategy.parse("vote")) == pytest.approx((3.75 / 6 + 0.75) / 2)
    assert names_at_k(3, Strategy.parse("mean_of_best:2")) == [
        *("max@1", "pass@1", "max@2", "mean_of_best:2@2", "pass@2", "max@3", "mean_of_best:2@3", "pass@3"),
    ]


def test_powers_of_two():
    assert [powers_of_two(n) for n in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]


def test_max_at_k_over_ragged_groups_by_hand():
    groups = [Outcomes(group, group) for group in (torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 0.0]))]
    found = mean_at_k(groups, "x/")
    assert found == pytest.approx(
        {
            "x/max@1": (0.5 + 0.5) / 2,
            "x/pass@1": (1 / 3 + 1 / 2) / 2,
            "x/max@2": ((1 + 0.5 + 1) / 3 + 1) / 2,
            "x/pass@2": (2 / 3 + 1) / 2,
            "x/max@3": 1.0,  # the smaller group does not count
            "x/pass@3": 1.0,
        }
    )


def test_a_completion_passes_by_its_score_whatever_terms_its_reward_has():
    """All right, with a price for their length: pass@k is 1, max@k that of the rewards."""
    members = [sample([11], [7, i], 0.99 - 0.01 * i, seed=i) for i in range(2)]
    for member in members:
        member.scores = torch.ones(1)
    maker = make_maker()
    (experience,) = maker.split_rollout_samples([Group(0, members)])
    experience.info[SEQUENCE_ADVANTAGE] = torch.zeros(2)
    found = rollout_metrics([experience])
    assert (found["rollout/pass@1"], found["rollout/pass@2"]) == (1.0, 1.0)
    assert found["rollout/max@2"] == pytest.approx(0.99)
    members[0].scores, members[1].scores = torch.zeros(1), torch.zeros(1)
    (experience,) = maker.split_rollout_samples([Group(0, members)])
    experience.info[SEQUENCE_ADVANTAGE] = torch.zeros(2)
    assert rollout_metrics([experience])["rollout/pass@2"] == 0.0


def test_rollout_metrics_by_hand():
    same, other = sample([11, 5], [7, 8], 1.0, seed=1), sample([11, 5], [7, 8], 0.0, seed=2)
    flat = [sample([12], [9], 0.5, seed=3), sample([12], [10], 0.5, seed=4)]
    groups = [Group(0, [same, other]), Group(1, flat)]
    maker = make_maker(rollout__micro_batch_size=3)
    experiences = maker.split_rollout_samples(groups)
    trailing = Experience.concat_experiences([filler(same)], PAD)
    experiences.append(trailing)
    values = iter([[1.0, 0.0], [0.0, 0.0], [9.0]])
    expected_surprise = expected_mismatch = 0.0
    for experience in experiences:
        experience.info[SEQUENCE_ADVANTAGE] = torch.tensor(next(values))
    for member in (same, other, *flat):
        for t in range(member.action_mask.shape[1]):
            if member.action_mask[0, t]:
                expected_surprise -= member.action_log_probs[0, t].item()
                expected_mismatch += abs((member.action_log_probs - member.rollout_log_probs)[0, t].item())
    found = rollout_metrics(experiences)
    assert found == pytest.approx(
        {
            "rollout/max@1": 0.5,
            "rollout/pass@1": 0.25,
            "rollout/max@2": 0.75,
            "rollout/pass@2": 0.5,
            "rollout/worth": 0.75,
            "rollout/k": 2.0,
            "rollout/groups": 2.0,
            "rollout/no_signal": 0.5,
            "rollout/distinct": (1 / 2 + 1) / 2,
            "rollout/policy_entropy": expected_surprise / 6,
            "rollout/sampler_mismatch": expected_mismatch / 6,
        },
        rel=1e-5,
    )
    for experience in experiences:
        experience.rollout_log_probs = None
    assert "rollout/sampler_mismatch" not in rollout_metrics(experiences)
