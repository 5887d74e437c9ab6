"""The expected gradient of every strategy, by exact enumeration: exact weights are unbiased at any distance."""

from itertools import product

import pytest
import torch

from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    on_policy_weights,
    vote_weights,
)
from openrlhf_maxk.objectives.strategy import rank_weights_of

from .policy import GROUPS, LOGITS, REWARDS, N, Situation

DISTANCES = [0.0, 1.0, 3.0]
SCORES = torch.tensor([2.0, 0.0, 2.0, 1.0, 0.5], dtype=torch.float64)  # of the actions: another order, with a tie
KEYS = torch.tensor([0, 1, 1, 2, 0])
SOME_SILENT = torch.tensor([0, -1, 1, -1, 0])
STRATEGIES = ["min", "mean_of_best:2", "median", "quantile:0.3", "selected"]


def true_gradient(worth, k):
    """∇ E[worth of k samples from π], by the logits: autograd through the sum over all 5^k outcomes."""
    logits = LOGITS.clone().requires_grad_()
    outcomes = torch.tensor(list(product(range(5), repeat=k)))
    value = (logits.softmax(0)[outcomes].prod(-1) * worth(outcomes)).sum()
    return torch.autograd.grad(value, logits)[0]


def worth_of(strategy, k):
    """Of outcomes (…, k); the first drawn of equal scores is kept."""

    def worth(outcomes):
        rewards = REWARDS[outcomes]
        if strategy == "selected":
            return rewards.gather(-1, SCORES[outcomes].argmax(-1, keepdim=True)).squeeze(-1)
        weights = torch.tensor(rank_weights_of(strategy, k).values, dtype=torch.float64)
        return rewards.sort(-1, descending=True).values @ weights

    return worth


def worth_of_vote(keys):
    def worth(outcomes):
        voted = torch.nn.functional.one_hot(keys[outcomes] + 1, 4).double()[..., 1:]
        votes, sums = voted.sum(1), (voted * REWARDS[outcomes].unsqueeze(-1)).sum(1)
        won = (votes == votes.amax(-1, keepdim=True)).double()
        winners = (won * sums / votes.clamp(min=1)).sum(-1) / won.sum(-1)
        return torch.where(votes.any(-1), winners, REWARDS[outcomes].mean(-1))

    return worth


def options_of(strategy, situation):
    scores = SCORES[GROUPS] if strategy == "selected" else None
    return {"strategy": strategy, "scores": scores}


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_exact_weights_are_unbiased_with_any_baseline(strategy, k, distance):
    situation = Situation(distance)
    r, rho, options = situation.rewards, situation.ratios, options_of(strategy, situation)
    weights = [exact_weights(r, rho, k, **options), marginal_gain(r, k, rho, **options)]
    if k < N:
        weights.append(leave_one_out(r, k, rho, **options))
    expected = true_gradient(worth_of(strategy, k), k)
    for found in weights:
        torch.testing.assert_close(situation.expected_gradient(rho * found), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("baseline", ["none", "marginal", "leave_one_out"])
@pytest.mark.parametrize("keys", [KEYS, SOME_SILENT])
def test_vote_weights_are_unbiased_with_any_baseline(keys, k, baseline):
    """In groups of four, which are fewer; the first four of each."""
    situation = Situation(1.0)
    groups = torch.tensor(list(product(range(5), repeat=4)))
    rho = (situation.policy / situation.sampler)[groups]
    weights = rho * vote_weights(REWARDS[groups], keys[groups], k, rho, baseline)
    score = torch.eye(5, dtype=torch.float64)[groups] - situation.policy
    chances = situation.sampler[groups].prod(-1)
    gradient = chances @ (weights.unsqueeze(-1) * score).sum(1)
    torch.testing.assert_close(gradient, true_gradient(worth_of_vote(keys), k), rtol=0, atol=1e-9)


@pytest.mark.parametrize("strategy", ["min", "median"])
def test_first_order_errors_are_of_second_order(strategy):
    """Half the distance, a quarter of the error; with on-policy weights, half."""
    expected = true_gradient(worth_of(strategy, 3), 3)

    def ratio(weights):
        errors = []
        for distance in (1e-3, 5e-4):
            situation = Situation(distance)
            gradient = situation.expected_gradient(weights(situation.rewards, situation.ratios))
            errors.append((gradient - expected).norm().item())
        return errors[0] / errors[1]

    of = {"strategy": strategy}
    assert ratio(lambda r, rho: rho * first_order_weights(r, rho, 3, **of)) == pytest.approx(4, rel=0.02)
    assert ratio(lambda r, rho: first_order_weights(r, rho, 3, "score", **of)) == pytest.approx(4, rel=0.02)
    assert ratio(lambda r, rho: rho * marginal_gain(r, 3, rho, "first", **of)) == pytest.approx(4, rel=0.02)
    assert ratio(lambda r, rho: rho * leave_one_out(r, 3, rho, "first", **of)) == pytest.approx(4, rel=0.02)
    assert ratio(lambda r, rho: rho * on_policy_weights(r, 3, **of)) == pytest.approx(2, rel=0.02)


def test_the_lowest_of_the_group_would_be_a_biased_baseline_of_the_minimum():
    """Why the lowest is compared with the second lowest: left at 0, as for the maximum, the gradient is another."""
    situation = Situation(0.0)
    gains = marginal_gain(situation.rewards, 3, strategy="min")
    expected = true_gradient(worth_of("min", 3), 3)
    torch.testing.assert_close(situation.expected_gradient(gains), expected, rtol=0, atol=1e-12)
    bias = situation.expected_gradient(gains.clamp(min=0)) - expected
    assert bias.norm() > 0.1 * expected.norm()


def test_on_policy_rivals_follow_max_at_k():
    situation = Situation(0.0)
    for name in ("pkpo", "maxpo"):
        gradient = situation.expected_gradient(get_objective(name)(situation.rewards, 3).values / N)
        expected = true_gradient(worth_of("max", 3), 3)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
