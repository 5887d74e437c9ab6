"""The expected gradient, by exact enumeration: unbiased where that is said, off by as much as is said elsewhere."""

import pytest
import torch

from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    on_policy_weights,
)

from .policy import GROUPS, LOGITS, REWARDS, N, Situation, true_gradient

DISTANCES = [0.0, 0.05, 1.0, 3.0]
KS = [1, 2, 3, 6]


@pytest.fixture(params=DISTANCES, ids=lambda distance: f"distance{distance}")
def situation(request):
    return Situation(request.param)


def assert_unbiased(gradient, k):
    torch.testing.assert_close(gradient, true_gradient(k), rtol=0, atol=1e-9)


def test_the_situations_are_far_apart():
    variations = [Situation(distance).total_variation for distance in DISTANCES]
    assert variations[0] == 0
    assert variations[-1] > 0.6


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out", "none"])
def test_offpolicy_bon_is_unbiased_in_ratio_form(situation, k, baseline):
    """PPO's surrogate, mean_i ρ_i sg(A_i), by autograd; clipping and clamping off."""
    advantages = get_objective("offpolicy_bon")(situation.rewards, k, situation.ratios, baseline=baseline)
    assert not advantages.clamped.any()
    logits = LOGITS.clone().requires_grad_()
    ratios = (logits.softmax(0) / situation.sampler)[GROUPS]
    surrogate = situation.probabilities @ (ratios * advantages.values).mean(-1)
    assert_unbiased(torch.autograd.grad(surrogate, logits)[0], k)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out", "none"])
def test_offpolicy_bon_is_unbiased_in_score_form(situation, k, baseline):
    """REINFORCE's loss, mean_i log π sg(g_i), by autograd."""
    advantages = get_objective("offpolicy_bon")(situation.rewards, k, situation.ratios, baseline=baseline)
    logits = LOGITS.clone().requires_grad_()
    log_probs = logits.log_softmax(0)[GROUPS]
    surrogate = situation.probabilities @ (log_probs * advantages.for_score_loss()).mean(-1)
    assert_unbiased(torch.autograd.grad(surrogate, logits)[0], k)


@pytest.mark.parametrize("k", KS)
def test_exact_weights_are_unbiased_in_both_forms(situation, k):
    rewards, ratios = situation.rewards, situation.ratios
    assert_unbiased(situation.expected_gradient(ratios * exact_weights(rewards, ratios, k)), k)
    assert_unbiased(situation.expected_gradient(exact_weights(rewards, ratios, k, form="score")), k)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", ["bon_loo1", "offpolicy_bon"])
def test_on_policy_objectives_are_unbiased_on_policy(k, name):
    situation = Situation(0.0)
    advantages = get_objective(name)(situation.rewards, k, correction="none")
    assert_unbiased(situation.expected_gradient(advantages.values / N), k)
    assert_unbiased(situation.expected_gradient(on_policy_weights(situation.rewards, k)), k)


def test_rloo_is_the_gradient_of_the_mean_at_any_distance(situation):
    advantages = get_objective("rloo")(situation.rewards, 3, situation.ratios)
    assert_unbiased(situation.expected_gradient(advantages.for_score_loss() / N), 1)


FIRST_ORDER = {
    "w' in score form": lambda r, rho, k: first_order_weights(r, rho, k, "score"),
    "w'' in ratio form": lambda r, rho, k: rho * first_order_weights(r, rho, k),
    "marginal gain": lambda r, rho, k: rho * marginal_gain(r, k, rho, "first"),
    "leave one out": lambda r, rho, k: rho * leave_one_out(r, k, rho, "first"),
}
ZEROTH_ORDER = {
    "no correction": lambda r, rho, k: on_policy_weights(r, k),
    "no correction but PPO's ratio": lambda r, rho, k: rho * on_policy_weights(r, k),
    "the same with a baseline": lambda r, rho, k: rho * marginal_gain(r, k),
    "w' with its own ratio counted twice": lambda r, rho, k: rho * first_order_weights(r, rho, k, "score"),
}


def error(weights, distance, k=3):
    situation = Situation(distance)
    gradient = situation.expected_gradient(weights(situation.rewards, situation.ratios, k))
    return (gradient - true_gradient(k)).norm().item()


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_first_order_errors_are_of_second_order(name):
    """Half the distance, a quarter of the error."""
    assert error(FIRST_ORDER[name], 1e-3) / error(FIRST_ORDER[name], 5e-4) == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("name", ZEROTH_ORDER)
def test_other_errors_are_of_first_order(name):
    """Half the distance, half the error; among them w′ used as a PPO advantage, as the paper can be read."""
    assert error(ZEROTH_ORDER[name], 1e-3) / error(ZEROTH_ORDER[name], 5e-4) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("distance", [0.02, 0.1, 0.3])
def test_counting_the_ratio_twice_is_worse_than_ppo_without_a_correction(distance):
    twice = ZEROTH_ORDER["w' with its own ratio counted twice"]
    assert error(twice, distance) > error(ZEROTH_ORDER["no correction but PPO's ratio"], distance)


@pytest.mark.parametrize("k", KS)
def test_zeroing_groups_of_equal_rewards_biases_weights_without_a_baseline(k):
    """Why ``offpolicy_bon`` with baseline none keeps them: the bias is −k Σ_c c q_c^(n−k) p_c^(k−1) ∇p_c.

    p_c and q_c are the chances of reward c under π and μ.
    """
    situation = Situation(1.0)
    rewards, ratios = situation.rewards, situation.ratios
    weights = ratios * exact_weights(rewards, ratios, k)
    equal = rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True)
    bias = situation.expected_gradient(weights.masked_fill(equal, 0)) - true_gradient(k)

    logits = LOGITS.clone().requires_grad_()
    expected = torch.zeros(5, dtype=torch.float64)
    for value in REWARDS.unique():
        of_value = REWARDS.eq(value)
        p, q = logits.softmax(0)[of_value].sum(), situation.sampler[of_value].sum()
        slope = torch.autograd.grad(p, logits)[0]
        expected -= k * value * q ** (N - k) * p.detach() ** (k - 1) * slope
    torch.testing.assert_close(bias, expected, rtol=0, atol=1e-12)
    assert bias.norm() > 1e-3


@pytest.mark.parametrize("k", [2, 3, 5])
def test_subtracting_the_mean_weight_shrinks_the_gradient(k):
    """By exactly 1 − k/n: nothing would be left at k = n."""
    situation = Situation(0.0)
    weights = on_policy_weights(situation.rewards, k)
    gradient = situation.expected_gradient(weights - weights.mean(-1, keepdim=True))
    torch.testing.assert_close(gradient, (1 - k / N) * true_gradient(k), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", [0.0, 0.3, 1.0])
def test_baselines_reduce_the_spread(distance):
    situation = Situation(distance)
    rewards, ratios = situation.rewards, situation.ratios
    spread = situation.spread(ratios * exact_weights(rewards, ratios, 3))
    assert situation.spread(ratios * marginal_gain(rewards, 3, ratios)) < 0.7 * spread
    assert situation.spread(ratios * leave_one_out(rewards, 3, ratios)) < 0.7 * spread
