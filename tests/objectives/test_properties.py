"""Properties that hold for every group."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    max_at_k,
    objective_names,
    on_policy_weights,
)

from .oracle import rewards_for

WEIGHTS = {
    "on policy": lambda r, rho, k: on_policy_weights(r, k),
    "first order ratio": lambda r, rho, k: first_order_weights(r, rho, k),
    "first order score": lambda r, rho, k: first_order_weights(r, rho, k, "score"),
    "exact": lambda r, rho, k: exact_weights(r, rho, k),
    "gain none": lambda r, rho, k: marginal_gain(r, k),
    "gain first": lambda r, rho, k: marginal_gain(r, k, rho, "first"),
    "gain exact": lambda r, rho, k: marginal_gain(r, k, rho),
}
CONTRASTS = {
    "contrast none": lambda r, rho, k: leave_one_out(r, k),
    "contrast first": lambda r, rho, k: leave_one_out(r, k, rho, "first"),
    "contrast exact": lambda r, rho, k: leave_one_out(r, k, rho),
}


@st.composite
def group(draw):
    """Rewards in sixteenths (exact, with ties), ratios, k."""
    n = draw(st.integers(1, 24))
    rewards = draw(st.lists(st.integers(-32, 32), min_size=n, max_size=n))
    ratios = draw(st.lists(st.floats(0.05, 8), min_size=n, max_size=n))
    k = draw(st.integers(1, n))
    return torch.tensor(rewards).double() / 16, torch.tensor(ratios, dtype=torch.float64), k


def functions(n, k):
    return WEIGHTS | CONTRASTS if k < n else WEIGHTS


def assert_same(actual, expected, name):
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=1e-12, msg=lambda text: f"{name}: {text}")


@settings(max_examples=60)
@given(group(), st.randoms(use_true_random=False))
def test_order_of_completions_does_not_matter(case, random):
    r, rho, k = case
    order = list(range(len(r)))
    random.shuffle(order)
    for name, weights in functions(len(r), k).items():
        assert_same(weights(r[order], rho[order], k), weights(r, rho, k)[order], name)
    for name in objective_names():
        if name == "grpo_passk":  # one of several best is picked, but then all get 0
            continue
        objective = get_objective(name)
        rewards = rewards_for(objective, r)
        values = objective(rewards, k).values
        torch.testing.assert_close(objective(rewards[order], k).values, values[order], atol=1e-6, rtol=1e-6)


@settings(max_examples=60)
@given(group(), st.integers(-64, 64))
def test_shifted_rewards_change_nothing_once_there_is_a_baseline(case, shift):
    r, rho, k = case
    for name, weights in functions(len(r), k).items():
        if name.startswith(("gain", "contrast")):
            assert_same(weights(r + shift, rho, k), weights(r, rho, k), name)


@settings(max_examples=60)
@given(group(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaled_rewards_scale_the_weights(case, scale):
    r, rho, k = case
    for name, weights in functions(len(r), k).items():
        assert torch.equal(weights(scale * r, rho, k), scale * weights(r, rho, k)), name


@settings(max_examples=60)
@given(group())
def test_marginal_gain_is_never_negative_and_grows_with_the_reward(case):
    r, rho, k = case
    order = r.argsort()
    for name in ("gain none", "gain exact"):
        gains = WEIGHTS[name](r, rho, k)
        if k > 1:
            assert (gains >= 0).all()
        assert (gains[order].diff() >= 0).all()


@settings(max_examples=60)
@given(group())
def test_equal_rewards_and_equal_ratios_get_equal_weights(case):
    """Two completions that differ in nothing are treated alike, wherever sorting put them."""
    r, rho, k = case
    r, rho = torch.cat([r, r[:1], r]), torch.cat([rho, rho[:1], rho])
    n = len(case[0])
    for name, weights in functions(len(r), k).items():
        result = weights(r, rho, k)
        assert_same(result[n + 1 :], result[:n], name)
        assert_same(result[n : n + 1], result[:1], name)


@settings(max_examples=60)
@given(group())
def test_tied_completions_get_equal_gains_whatever_their_ratios(case):
    """A gain looks only at those below: the ratios of completions of the same reward have no part in it."""
    r, rho, k = case
    if k == 1:
        return
    gains = marginal_gain(r, k, rho)
    for value in r.unique():
        tied = gains[r == value]
        assert (tied == tied[0]).all()


@settings(max_examples=60)
@given(group())
def test_max_at_k_lies_between_the_mean_and_the_best_and_grows_with_k(case):
    r, _, k = case
    value = max_at_k(r, k)
    assert r.mean() - 1e-12 <= value <= r.max() + 1e-12
    if k < len(r):
        assert value <= max_at_k(r, k + 1) + 1e-12
    assert abs(max_at_k(r, 1) - r.mean()) < 1e-12
    assert max_at_k(r, len(r)) == r.max()
