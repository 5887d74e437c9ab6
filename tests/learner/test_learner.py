"""The learner's loop around upstream's real training step: its gradients are those of the objective, step by step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from openrlhf_maxk.experience.group import FILLER, Group
from openrlhf_maxk.learner import status as status_module
from openrlhf_maxk.learner.status import StatusMean
from openrlhf_maxk.learner.trainer import _has_dropout
from openrlhf_maxk.objectives import Strategy

from ..rollouts import random_group
from .learning import experiences_of, make_arguments, make_trainer, on_a_rank, true_gradient

N = 4


def groups_of_sizes(*sizes: int) -> list[Group]:
    source = random.Random(11)
    return [random_group(i, size, source) for i, size in enumerate(sizes)]


def trained(groups: Sequence[Group], batch: int, micro: int, **changes: object) -> tuple[ActorPPOTrainer, dict]:
    args = make_arguments(N, batch, micro, **changes)
    trainer = make_trainer(experiences_of(groups, args), args)
    return trainer, trainer.ppo_train(0.1)


def assert_true_gradients(groups: Sequence[Group], steps: Sequence[SimpleNamespace]) -> None:
    for step in steps:
        expected = true_gradient(step.logits, [groups[number] for number in sorted(step.groups)])
        scale = expected.abs().max().item()
        assert scale > 1e-3
        torch.testing.assert_close(step.gradient, expected, atol=1e-5 * scale, rtol=1e-4)


def drift(step: SimpleNamespace, first: SimpleNamespace) -> float:
    return (step.logits - first.logits).abs().max().item()


# Samples in an optimizer step and a micro-batch; the number of optimizer steps that five groups make of it.
CUTS = {
    "one group a micro-batch": (8, 4, 3),
    "two groups a micro-batch": (16, 8, 2),
    "one step": (32, 8, 1),
    "a sample a micro-batch": (8, 1, 3),
    "groups cut": (12, 3, 2),
    "half groups": (8, 2, 3),
    "groups and a half": (24, 6, 1),
}
RAGGED = (4, 2, 4, 3, 2)


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("sizes", [(4, 4, 4, 4, 4), RAGGED], ids=["whole", "ragged"])
def test_every_optimizer_step_has_the_gradient_of_its_groups(name, sizes):
    batch, micro, steps = CUTS[name]
    groups = groups_of_sizes(*sizes)
    trainer, _ = trained(groups, batch, micro)
    seen = trainer.strategy.steps
    assert len(seen) == 2 * steps
    for epoch in (seen[:steps], seen[steps:]):
        assert sorted(number for step in epoch for number in step.groups) == list(range(5))
    assert_true_gradients(groups, seen)
    assert drift(seen[-1], seen[0]) > 0.1, "far from the sampling policy"


# The most tokens in a micro-batch: less than a sample, than a group, than two, more than all of them.
TOKENS = (3, 12, 30, 45, 1000)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("aggregate", ["token", "constant"])
def test_micro_batches_cut_by_tokens_have_the_gradient_of_their_groups(tokens, aggregate):
    groups = groups_of_sizes(*RAGGED)
    maxk = make_arguments(N, 8, 4).maxk
    maxk.aggregate = aggregate
    dynamic = {"train__dynamic_batch_enable": True, "train__max_tokens_per_gpu": tokens, "maxk": maxk}
    trainer, _ = trained(groups, 8, 4, **dynamic)
    steps = trainer.strategy.steps
    assert len(steps) == 2 * 3
    for step in steps:
        chosen = [groups[number] for number in sorted(step.groups)]
        expected = true_gradient(step.logits, chosen)
        if aggregate == "constant":
            actions = sum(int(member.action_mask.sum()) for group in chosen for member in group.members)
            expected *= actions / (40 * sum(group.size for group in chosen))
        scale = expected.abs().max().item()
        torch.testing.assert_close(step.gradient, expected, atol=1e-5 * scale, rtol=1e-4)
    samples = [len(batch.groups) for step in steps for batch in step.micro_batches]
    assert (max(samples) == 1) == (tokens == TOKENS[0])
    assert (max(len(step.micro_batches) for step in steps) == 1) == (tokens >= 45)


def test_ratios_are_one_in_the_first_optimizer_step_alone():
    trainer, _ = trained(groups_of_sizes(4, 4, 4, 4), 8, 4)
    assert [step.on_policy for step in trainer.strategy.steps] == [[True, True], *[[False, False]] * 3]
    trainer, _ = trained(groups_of_sizes(4, 4, 4, 4), 8, 4, maxk=rollout_behaviour())
    assert [step.on_policy for step in trainer.strategy.steps] == [[False, False]] * 4


def rollout_behaviour() -> SimpleNamespace:
    maxk = make_arguments(N, 8, 4).maxk
    maxk.behaviour = "rollout"
    return maxk


@pytest.mark.parametrize("behaviour", ["learner", "rollout"])
@pytest.mark.parametrize("loss", ["score", "ppo", "sequence_clip"])
@pytest.mark.parametrize("micro", [1, 3, 6])
def test_cut_groups_train_as_whole_ones_and_report_the_same(behaviour, loss, micro):
    maxk = make_arguments(N, 12, 12).maxk
    maxk.loss, maxk.behaviour, maxk.delta_clip, maxk.baseline = loss, behaviour, 0.5, "marginal"
    groups = groups_of_sizes(*RAGGED)
    (whole, status), (cut, cut_status) = (trained(groups, 12, size, maxk=maxk) for size in (4, micro))
    pairs = list(zip(whole.strategy.steps, cut.strategy.steps, strict=True))
    for one, other in pairs:
        assert one.groups == other.groups
        torch.testing.assert_close(one.gradient, other.gradient, atol=1e-6, rtol=1e-5)
    assert drift(pairs[-1][0], pairs[0][0]) > 0.05
    for name in (
        *("ratio_mean", "ratio_max", "ratio_ess", "ratio_ess_clamped", "ratio_clamped", "advantage_abs"),
        *("log_ratio_abs_measured", "clipped_positive", "clipped_negative"),
    ):
        assert cut_status[f"maxk/{name}"] == pytest.approx(status[f"maxk/{name}"], rel=1e-4), name
    assert status["maxk/ratio_max"] > 1.05


@pytest.mark.parametrize("cut", ["one group a micro-batch", "groups cut"])
@pytest.mark.parametrize("strategy", ["selected", "vote"])
def test_what_samples_are_chosen_by_reaches_the_gradient(strategy, cut):
    batch, micro, steps = CUTS[cut]
    maxk = make_arguments(N, batch, micro).maxk
    maxk.strategy = strategy
    source = random.Random(5)
    groups = []
    for i, size in enumerate(RAGGED):
        by = (
            source.sample(range(size), size) if strategy == "selected" else [source.randint(-1, 1) for _ in range(size)]
        )
        members = random_group(i, size, source).members
        groups.append(Group(i, members, 0, Strategy.parse(strategy), torch.tensor(by)))
    trainer, _ = trained(groups, batch, micro, maxk=maxk)
    assert len(trainer.strategy.steps) == 2 * steps
    assert drift(trainer.strategy.steps[-1], trainer.strategy.steps[0]) > 0.05
    assert_true_gradients(groups, trainer.strategy.steps)


def test_whole_groups_cost_no_extra_pass_and_cut_ones_cost_one_a_step_but_the_first():
    groups = groups_of_sizes(4, 4, 4, 4)
    whole, _ = trained(groups, 8, 4)
    assert whole.actor.passes_without_grad == 0
    cut, _ = trained(groups, 8, 2)
    assert cut.actor.passes_without_grad == 3 * 4  # three steps of four micro-batches


# Log-probs of the policy that sampled, which the learner may have to compute itself

LEFT_OUT = {**CUTS, "by tokens": (8, 4, 3), "by tokens, groups cut": (8, 4, 3)}
BY_TOKENS = {"by tokens": 45, "by tokens, groups cut": 12}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("loss", ["score", "ppo", "sequence_clip"])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("sizes", [RAGGED, (2,)], ids=["ragged", "one group, and fillers"])
def test_log_probs_that_were_left_out_change_nothing(name, loss, epochs, sizes):
    batch, micro, steps = LEFT_OUT[name]
    maxk = make_arguments(N, batch, micro).maxk
    maxk.loss, maxk.delta_clip = loss, 0.5
    kl = {"use_loss": True, "init_coef": 0.1, "estimator": "k3", "unbiased_gradient": True}
    changes = {f"algo__kl__{option}": value for option, value in kl.items()}
    changes |= {"train__dynamic_batch_enable": name in BY_TOKENS, "train__max_tokens_per_gpu": BY_TOKENS.get(name, 0)}
    args = make_arguments(N, batch, micro, maxk=maxk, train__max_epochs=epochs, **changes)
    groups = groups_of_sizes(*sizes)
    (given, status), (left, left_status) = (
        (trainer, trainer.ppo_train(0.1))
        for trainer in (make_trainer(experiences_of(groups, args, known), args) for known in (True, False))
    )
    assert len(left.strategy.steps) == epochs * (steps if sizes == RAGGED else 1)
    for one, other in zip(given.strategy.steps, left.strategy.steps, strict=True):
        assert one.groups == other.groups
        torch.testing.assert_close(one.gradient, other.gradient, atol=1e-6, rtol=1e-5)
    tokens = sum(float(member.action_mask.sum()) for group in groups for member in group.members)
    surprise = -sum(float(e.action_log_probs.sum()) for e in experiences_of(groups, args))
    assert left_status.pop("maxk/policy_entropy") == pytest.approx(surprise / tokens, rel=1e-5)
    assert left_status == pytest.approx(status, rel=1e-4, abs=1e-6)


def test_the_first_optimizer_step_computes_its_own_log_probs():
    """Five groups, one a micro-batch, two a step: three steps, of which the first has no pass of its own for it."""
    groups, args = groups_of_sizes(*RAGGED), make_arguments(N, 8, 4)
    for dropout, epochs, passes in ((0.0, 2, 4), (0.0, 1, 4), (0.1, 2, 6), (0.1, 1, 4)):
        args.train.max_epochs = epochs
        trainer = make_trainer(experiences_of(groups, args, known=False), args, dropout)
        trainer.ppo_train(0.1)
        assert trainer.actor.passes_without_grad == passes, (dropout, epochs)


@pytest.mark.parametrize(
    ("config", "random"),
    [
        (
            "OPTConfig",
            {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "dropout": 0.1},
        ),
        ("BloomConfig", {"hidden_size": 16, "n_layer": 1, "n_head": 2, "hidden_dropout": 0.1}),
        (
            "Starcoder2Config",
            {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "residual_dropout": 0.1},
        ),
        ("GPT2Config", {"n_embd": 16, "n_layer": 1, "n_head": 2, "resid_pdrop": 0.1}),
        (
            "Qwen2Config",
            {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "attention_dropout": 0.1},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_dropout_is_found_however_a_model_keeps_it(config, random):
    import transformers

    *_, name = random
    every = dict.fromkeys(
        ("dropout", "attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout"), 0.0
    )
    every |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    kind = getattr(transformers, config)
    known = {option: value for option, value in every.items() if hasattr(kind(), option)}
    for value in (0.1, 0.0):
        made = kind(**{**known, **random, name: value, "vocab_size": 8})
        assert _has_dropout(transformers.AutoModelForCausalLM.from_config(made)) == bool(value)


def test_with_dropout_they_are_those_of_a_pass_without():
    groups, args = groups_of_sizes(*RAGGED), make_arguments(N, 8, 4)
    trainer = make_trainer(experiences_of(groups, args, known=False), args, 0.5)
    status = trainer.ppo_train(0.1)
    assert trainer.actor.training
    tokens = sum(float(member.action_mask.sum()) for group in groups for member in group.members)
    surprise = -sum(float(e.action_log_probs.sum()) for e in experiences_of(groups, args))
    assert status["maxk/policy_entropy"] == pytest.approx(surprise / tokens, rel=1e-5)


@pytest.mark.parametrize("micro", [4, 8, 3, 1], ids=lambda micro: f"micro-batch {micro}")
@pytest.mark.parametrize("sizes", [(4,), (2,), (3, 2)], ids=str)
def test_fewer_groups_than_a_step_are_filled_up_with_nothing(sizes, micro):
    groups = groups_of_sizes(*sizes)
    trainer, status = trained(groups, 24, micro, algo__kl__use_loss=True, algo__kl__init_coef=0.0)
    assert len(trainer.strategy.steps) == 2
    batches = [batch.groups for step in trainer.strategy.steps for batch in step.micro_batches]
    assert [FILLER] in batches
    assert_true_gradients(groups, trainer.strategy.steps)
    assert all(math.isfinite(value) for value in status.values()), status


@pytest.mark.parametrize("micro", [8, 3], ids=["whole groups", "cut groups"])
def test_the_constant_divides_by_completions_times_the_most_tokens_of_one(micro):
    """Loss and KL alike, so that they keep their proportions; metrics stay means over tokens."""
    groups = groups_of_sizes(4, 3, 4, 2)
    tokens = sum(int(member.action_mask.sum()) for group in groups for member in group.members)
    kl = {"algo__kl__use_loss": True, "algo__kl__init_coef": 0.1, "algo__kl__estimator": "k2"}
    maxk = make_arguments(N, 24, micro).maxk
    token, of_token = trained(groups, 24, micro, maxk=maxk, train__max_epochs=1, **kl)
    maxk.aggregate = "constant"
    constant, of_constant = trained(groups, 24, micro, maxk=maxk, train__max_epochs=1, **kl)
    (one,), (other,) = token.strategy.steps, constant.strategy.steps
    torch.testing.assert_close(other.gradient, one.gradient * tokens / (13 * 40))
    assert of_constant["kl"] == pytest.approx(of_token["kl"])
    assert of_constant["policy_loss"] == pytest.approx(of_token["policy_loss"], rel=1e-4)


def test_weights_that_leave_clear_the_prefix_cache_of_the_engines():
    args = make_arguments(N, 16, 4)
    args.vllm.enable_prefix_caching = False  # upstream's default; its broadcast reads this
    trainer = make_trainer([], args)
    assert trainer.strategy.args.vllm.enable_prefix_caching


def test_every_update_and_every_epoch_shuffles_differently():
    groups = groups_of_sizes(*[4] * 8)
    args = make_arguments(N, 4, 4, actor__adam__lr=0.1)
    trainer = make_trainer(experiences_of(groups, args), args)
    for _ in range(2):
        trainer.ppo_train(0.0)
    steps = [next(iter(step.groups)) for step in trainer.strategy.steps]
    orders = [tuple(steps[i : i + 8]) for i in range(0, 32, 8)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == 4
    again = make_trainer(experiences_of(groups, args), args)
    again.ppo_train(0.0)
    assert [next(iter(step.groups)) for step in again.strategy.steps] == steps[:16], "the seed decides"


def test_the_status_is_of_the_whole_update():
    groups = groups_of_sizes(4, 2, 4)
    _, status = trained(groups, 12, 4)
    rewards = [member.rewards.item() for group in groups for member in group.members]
    lengths = [member.response_length.item() for group in groups for member in group.members]
    assert status["response_length"] == pytest.approx(sum(lengths) / len(lengths))
    assert status["actor_lr"] == 0.5
    assert status["actor_grad_norm"] == 1.25
    assert not [name for name in status if name.startswith("maxk_")], "columns of the machinery are no metrics"
    assert len(rewards) == 10


# Means over micro-batches, epochs and ranks


def micro_batch(tokens: float, samples: float, ratio_max: float = 1.0, **metrics: object) -> dict:
    values = {"per_token": 0.0, "per_sample": torch.zeros(2), "actor_lr": 0.0, **metrics}
    return {
        "metrics": values,
        "weights": {"per_token": "token", "per_sample": "sample", "actor_lr": None, "unweighed": None},
        "num_action_tokens": tokens,
        "num_samples": samples,
        "group_sums": {"ratio_mean": (3.0 * samples, samples)},
        "ratio_max": ratio_max,
    }


def two_micro_batches_and_a_filler() -> StatusMean:
    mean = StatusMean()
    mean.add(micro_batch(10, 2, per_token=torch.tensor(1.0), per_sample=torch.tensor([1, 3]), actor_lr=0.1))
    mean.add(micro_batch(30, 3, ratio_max=2.5, per_token=5.0, per_sample=torch.tensor([4.0, 4, 7]), actor_lr=0.2))
    filler = micro_batch(0, 1, ratio_max=9.0, per_token=math.nan, per_sample=torch.tensor([9.0]), actor_lr=0.3)
    mean.add({**filler, "group_sums": {"ratio_mean": (9.0, 1.0)}})
    return mean


def test_means_by_hand():
    found = two_micro_batches_and_a_filler().reduce()
    assert found == pytest.approx(
        {
            "per_token": (10 * 1 + 30 * 5) / 40,
            "per_sample": (1 + 3 + 4 + 4 + 7) / 5,
            "actor_lr": 0.3,
            "maxk/ratio_mean": 3.0,
            "maxk/ratio_max": 2.5,
        }
    )


def test_means_over_ranks_weigh_what_each_counted(monkeypatch):
    def gather(into: list, mine: tuple) -> None:
        into[:] = [mine, ({"per_token": [60.0, 20.0], "elsewhere": [6.0, 2.0]}, 4.0)]

    fake = SimpleNamespace(get_world_size=lambda: 2, all_gather_object=gather)
    monkeypatch.setattr(status_module, "torch", SimpleNamespace(distributed=fake, Tensor=torch.Tensor))
    found = two_micro_batches_and_a_filler().reduce()
    assert found["per_token"] == pytest.approx((10 * 1 + 30 * 5 + 60) / 60)
    assert found["per_sample"] == pytest.approx(19 / 5)
    assert found["elsewhere"] == 3.0
    assert found["maxk/ratio_max"] == 4.0


# Several ranks

# Sizes of the groups, samples in an optimizer step and in a micro-batch, for two ranks.
RANKS = {
    "a step without a group": ((4, 4, 2, 4, 3), 8, 4),
    "groups cut": ((4, 2, 4, 4, 3), 24, 3),
    "fillers": ((2, 4, 4), 24, 12),
    "a rank without a group": ((4,), 8, 4),
    "a rank without a group, cut": ((3,), 8, 2),
    "a step without a group, log-probs left out": ((4, 4, 2, 4, 3), 8, 4),
    "groups cut, log-probs left out": ((4, 2, 4, 4, 3), 24, 3),
    "a rank without a group, log-probs left out": ((4,), 8, 4),
}


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    cases = {
        name: (groups_of_sizes(*sizes), make_arguments(N, batch, micro, ranks=2))
        for name, (sizes, batch, micro) in RANKS.items()
    }
    torch.multiprocessing.spawn(on_a_rank, (2, str(folder), cases), nprocs=2)
    return {
        name: (groups, torch.load(folder / f"{name}.pt", weights_only=False)) for name, (groups, _) in cases.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RANKS)
def test_ranks_with_different_counts_of_groups_have_the_gradient_of_all_of_them(of_two_ranks, name):
    groups, found = of_two_ranks[name]
    (counts, status), (other_counts, other_status) = found["ranks"]
    assert status == other_status
    empty = [set() in (one, other) for one, other in zip(counts, other_counts, strict=True)].count(True)
    assert empty == (2 if "without a group" in name else 0), "once in each epoch"
    steps = [
        SimpleNamespace(logits=logits, gradient=gradient, groups=one | other)
        for (logits, gradient), one, other in zip(found["steps"], counts, other_counts, strict=True)
    ]
    assert_true_gradients(groups, steps)
    for epoch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
        assert sorted(number for step in epoch for number in step.groups) == list(range(len(groups)))
