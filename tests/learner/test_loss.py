"""The loss of a micro-batch against autograd through F(ρ(θ)), by brute force in float64."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from openrlhf.models.loss import PolicyLoss

from openrlhf_maxk.experience.advantages import group_advantages, sequence_log_ratios
from openrlhf_maxk.experience.group import FILLER
from openrlhf_maxk.learner.batch import GroupBatch
from openrlhf_maxk.learner.loss import GroupPolicyLoss
from openrlhf_maxk.objectives import get_objective
from openrlhf_maxk.options.maxk import MaxKOptions

K = 3
VOCABULARY, LENGTH = 7, 5
GROUPS = torch.tensor([8, 3, 8, 3, 3, 8, 3, 8, 8])  # n = 5 and, one completion lost, n = 4
REWARDS = torch.tensor([0.25, 1.0, -0.5, 0.25, 0.25, 2.0, 0.0, 0.25, 1.0])


class Policy:
    """A table of next-token logits; μ is the policy that it starts from."""

    def __init__(self, distance: float) -> None:
        generator = torch.Generator().manual_seed(5)
        shape = (VOCABULARY, VOCABULARY)
        self.behaviour = torch.randn(shape, generator=generator, dtype=torch.float64)
        away = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.logits = (self.behaviour + distance * away).requires_grad_()
        self.tokens = torch.randint(VOCABULARY, (len(GROUPS), LENGTH + 1), generator=generator)
        lengths = torch.randint(1, LENGTH + 1, (len(GROUPS),), generator=generator)
        self.mask = (torch.arange(LENGTH) < lengths[:, None]).double()

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Of the sampled tokens, (B, A)."""
        table = logits.log_softmax(-1)
        return table[self.tokens[:, :-1], self.tokens[:, 1:]]

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, self.logits, retain_graph=True)[0]

    @property
    def now(self) -> torch.Tensor:
        return self.log_probs(self.logits)

    @property
    def then(self) -> torch.Tensor:
        return self.log_probs(self.behaviour)


def objective(rewards: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """F(ρ): the mean over subsets of K of the product of their ratios times their best reward."""
    subsets = [list(subset) for subset in combinations(range(len(rewards)), K)]
    return torch.stack([ratios[s].prod() * rewards[s].max() for s in subsets]).sum() / math.comb(len(rewards), K)


def true_gradient(policy: Policy) -> torch.Tensor:
    """−Σ over groups of n ∇F, over the number of action tokens: what a token-level mean of the losses must give."""
    ratios = ((policy.now - policy.then) * policy.mask).sum(-1).exp()
    total = torch.zeros((), dtype=torch.float64)
    for number in (3, 8):
        rows = number == GROUPS
        total = total + rows.sum() * objective(REWARDS[rows].double(), ratios[rows])
    return policy.gradient(-total / policy.mask.sum())


def at_experience_time(options: MaxKOptions) -> torch.Tensor:
    return group_advantages(GROUPS, REWARDS, None, torch.full_like(GROUPS, K), options).values


def make_loss(options: MaxKOptions, **ppo: object) -> GroupPolicyLoss:
    loss = GroupPolicyLoss(PolicyLoss(**ppo), options)
    loss.batch = GroupBatch(GROUPS, REWARDS, torch.full_like(GROUPS, K), at_experience_time(options))
    return loss


def spread(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One value a completion onto its tokens."""
    return values[:, None] * mask


UNBIASED = {"baseline": "none", "delta_clip": float("inf"), "min_ess": 0.0}


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.7])
def test_the_score_loss_has_the_gradient_of_the_objective(distance):
    policy = Policy(distance)
    options = MaxKOptions.make(loss="score", **UNBIASED)
    loss = make_loss(options)
    value, *_ = loss(policy.now, policy.then, spread(at_experience_time(options), policy.mask), policy.mask)
    expected = true_gradient(policy)
    torch.testing.assert_close(policy.gradient(value), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)
    assert expected.abs().max() > 1e-3


def test_the_ppo_loss_has_that_gradient_where_the_policy_has_not_moved():
    policy = Policy(0.0)
    options = MaxKOptions.make(loss="ppo", **UNBIASED)
    value, *_ = make_loss(options)(
        policy.now, policy.then, spread(at_experience_time(options), policy.mask), policy.mask
    )
    expected = true_gradient(policy)
    torch.testing.assert_close(policy.gradient(value), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("name", ["offpolicy_bon", "offpolicy_bon_paper", "grpo"])
def test_the_ppo_loss_is_upstreams_with_advantages_of_the_current_policy(name):
    policy = Policy(0.2)
    options = MaxKOptions.make(objective=name, loss="ppo")
    before = spread(at_experience_time(options), policy.mask)
    found = make_loss(options)(policy.now, policy.then, before, policy.mask, batch_num_tokens=50.0, dp_size=2)
    log_ratios = sequence_log_ratios(policy.now, policy.then, policy.mask)
    advantages = torch.zeros(len(GROUPS))
    for number in (3, 8):
        rows = number == GROUPS
        result = get_objective(name)(REWARDS[rows], K, log_ratios[rows].exp(), delta_clip=1.0)
        advantages[rows] = result.values
    expected = PolicyLoss()(
        policy.now, policy.then, spread(advantages, policy.mask), policy.mask, batch_num_tokens=50.0, dp_size=2
    )
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(policy.gradient(found[0]), policy.gradient(expected[0]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ppo", "sequence_clip", "score"])
def test_in_the_first_step_every_ratio_is_one_whatever_rounding_measures(kind):
    policy = Policy(0.0)
    options = MaxKOptions.make(loss=kind, **UNBIASED)
    noise = 1e-2 * torch.randn(policy.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = make_loss(options)
    loss.policy_is_behaviour = True
    value, *_ = loss(policy.now, policy.then + noise, spread(at_experience_time(options), policy.mask), policy.mask)
    assert torch.equal(loss.computed.values, at_experience_time(options))
    assert torch.equal(loss.computed.score_factors, torch.ones(len(GROUPS)))
    assert loss.drift > 1e-3, "what was measured is reported"
    expected = true_gradient(policy)
    torch.testing.assert_close(policy.gradient(value), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["ppo", "sequence_clip", "score"])
def test_ratios_are_taken_to_the_samplers_log_probs_where_that_is_asked_for(kind):
    policy = Policy(0.2)
    options = MaxKOptions.make(loss=kind, behaviour="rollout", **UNBIASED)
    elsewhere = policy.then - 0.3
    before = spread(at_experience_time(options), policy.mask)
    found = make_loss(options)(policy.now, elsewhere, before, policy.mask, rollout_log_probs=policy.then)
    learner = MaxKOptions.make(loss=kind, **UNBIASED)
    expected = make_loss(learner)(policy.now, policy.then, before, policy.mask, rollout_log_probs=elsewhere)
    assert torch.equal(policy.gradient(found[0]), policy.gradient(expected[0]))
    mistaken = make_loss(learner)(policy.now, elsewhere, before, policy.mask)
    assert not torch.allclose(policy.gradient(found[0]), policy.gradient(mistaken[0]), rtol=1e-2)


@pytest.mark.parametrize("kind", ["ppo", "sequence_clip", "score"])
def test_the_token_level_kl_penalty_survives(kind):
    policy = Policy(0.1)
    options = MaxKOptions.make(loss=kind)
    penalty = torch.randn(policy.mask.shape, generator=torch.Generator().manual_seed(2)) * policy.mask
    loss = make_loss(options)
    value, *_ = loss(policy.now, policy.then, spread(at_experience_time(options), policy.mask) + penalty, policy.mask)
    assert not torch.allclose(loss.computed.values, at_experience_time(options)), "the policy has moved"
    advantages = spread(loss.computed.values, policy.mask) + penalty
    if kind == "ppo":
        expected, *_ = PolicyLoss()(policy.now, policy.then, advantages, policy.mask)
    else:
        ratios = loss.computed.ratios[:, None]
        weights = advantages * ratios
        if kind == "sequence_clip":
            assert ((advantages > 0) & (ratios > 1.2)).any(), "something is clipped"
            weights = weights.where(~((advantages > 0) & (ratios > 1.2) | (advantages < 0) & (ratios < 0.8)), 0.0)
        expected = -(policy.now * weights * policy.mask).sum() / policy.mask.sum()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(policy.gradient(value), policy.gradient(expected))


def test_advantages_of_the_whole_step_are_used_where_micro_batches_cut_groups():
    policy = Policy(0.4)
    options = MaxKOptions.make(loss="score", **UNBIASED)
    log_ratios = sequence_log_ratios(policy.now, policy.then, policy.mask)
    whole = group_advantages(GROUPS, REWARDS, log_ratios, torch.full_like(GROUPS, K), options)
    before, tokens = at_experience_time(options), policy.mask.sum().item()
    total = torch.zeros((), dtype=torch.float64)
    for part in (slice(0, 4), slice(4, 9)):
        loss = make_loss(options)
        loss.batch = GroupBatch(GROUPS[part], REWARDS[part], torch.full_like(GROUPS, K)[part], before[part])
        loss.computed = type(whole)(whole.values[part], whole.ratios[part], whole.score_factors[part])
        mask = policy.mask[part]
        value, *_ = loss(policy.now[part], policy.then[part], spread(before[part], mask), mask, batch_num_tokens=tokens)
        total = total + value
    expected = true_gradient(policy)
    torch.testing.assert_close(policy.gradient(total), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["ppo", "sequence_clip", "score"])
def test_a_filler_adds_no_loss_and_no_gradient(kind):
    policy = Policy(0.4)
    options = MaxKOptions.make(loss=kind)
    loss = make_loss(options)
    loss.batch = GroupBatch(torch.tensor([FILLER]), torch.ones(1), torch.tensor([K]), torch.tensor([2.0]))
    mask = torch.zeros(1, LENGTH)
    value, *_ = loss(policy.now[:1], policy.then[:1], torch.full((1, LENGTH), 2.0), mask, batch_num_tokens=9.0)
    assert value.item() == 0
    assert not policy.gradient(value).any()


@pytest.mark.parametrize("name", ["offpolicy_bon", "offpolicy_bon_paper", "grpo"])
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out"])
def test_the_clip_of_whole_completions_is_the_papers_equation_4(name, baseline):
    """−min(ρ_i A_i, clip(ρ_i, 1 − ε, 1 + ε) A_i), summed over completions, by automatic differentiation."""
    policy = Policy(0.15)
    options = MaxKOptions.make(objective=name, baseline=baseline, loss="sequence_clip", delta_clip=float("inf"))
    loss = make_loss(options)
    value, clipped, *_ = loss(
        policy.now, policy.then, spread(at_experience_time(options), policy.mask), policy.mask, batch_num_tokens=50.0
    )
    ratios = ((policy.now - policy.then) * policy.mask).sum(-1).exp()
    advantages = loss.computed.values.double()
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages)
    expected = policy.gradient(-surrogate.sum() / 50)
    torch.testing.assert_close(policy.gradient(value), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)
    silenced = (ratios > 1.2) & (advantages > 0) | (ratios < 0.8) & (advantages < 0)
    lengths = policy.mask.sum(-1)
    assert 0 < silenced.sum() < len(GROUPS)
    assert clipped.item() == pytest.approx(float(lengths[silenced].sum() / lengths.sum()))
    for sign, kind in ((1, "positive"), (-1, "negative")):
        lost = lengths[silenced & (sign * advantages > 0)].sum()
        assert loss.silenced[f"clipped_{kind}"] == (float(lost), float(lengths.sum())), kind


@pytest.mark.parametrize("dual_clip", [None, 1.5])
def test_the_tokens_that_the_clip_silences_are_those_without_gradient(dual_clip):
    policy = Policy(-0.6)
    options = MaxKOptions.make(baseline="leave_one_out", loss="ppo")
    loss = make_loss(options, dual_clip=dual_clip)
    now = policy.now.detach().requires_grad_()
    value, *_ = loss(now, policy.then, spread(at_experience_time(options), policy.mask), policy.mask)
    (slope,) = torch.autograd.grad(value, now)
    advantages = spread(loss.computed.values, policy.mask)
    silenced = (slope == 0) & (policy.mask > 0) & (advantages != 0)
    found = {name: count for name, (count, _) in loss.silenced.items()}
    assert found == {
        "clipped_positive": float((silenced & (advantages > 0)).sum()),
        "clipped_negative": float((silenced & (advantages < 0)).sum()),
    }
    assert min(found.values()) > 0
    assert {tokens for _, tokens in loss.silenced.values()} == {float(policy.mask.sum())}


def test_the_score_loss_is_never_clipped():
    policy = Policy(0.7)
    options = MaxKOptions.make(loss="score")
    loss = make_loss(options)
    _, clipped, *_ = loss(policy.now, policy.then, spread(at_experience_time(options), policy.mask), policy.mask)
    assert clipped.item() == 0
    assert {count for count, _ in loss.silenced.values()} == {0.0}
