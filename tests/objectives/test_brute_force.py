"""Every weight against its definition: all subsets, exact rationals, n <= 8, all k, ties, negatives, any order."""

from fractions import Fraction

import pytest
import torch

from openrlhf_maxk import objectives
from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    leave_one_out,
    marginal_gain,
    max_at_k,
    on_policy_weights,
    pass_at_k,
)

from . import oracle

SIZES = [(n, k) for n in range(1, 9) for k in range(1, n + 1)]


@pytest.fixture(params=SIZES, ids=lambda size: f"n{size[0]}-k{size[1]}", scope="module")
def case(request):
    n, k = request.param
    rewards, ratios = oracle.groups(n, 3, seed=100 * n + k)
    return k, rewards, ratios, oracle.tensor(rewards), oracle.tensor(ratios)


def assert_same(actual, expected):
    torch.testing.assert_close(actual, oracle.tensor(expected), rtol=1e-13, atol=1e-13)


def test_max_at_k(case):
    k, rewards, _, r, _ = case
    assert_same(max_at_k(r, k), [oracle.max_at_k(group, k) for group in rewards])


def test_pass_at_k(case):
    k, rewards, _, r, _ = case
    correct = [[Fraction(reward > 0) for reward in group] for group in rewards]
    expected = [oracle.max_at_k(group, k) for group in correct]
    assert_same(pass_at_k(oracle.tensor(correct), k), expected)
    torch.testing.assert_close(pass_at_k(r > 0, k), oracle.tensor(expected, torch.float32))


def test_on_policy_weights(case):
    k, rewards, ratios, r, _ = case
    expected = [oracle.weights(*group, k, oracle.one, own=True) for group in zip(rewards, ratios, strict=True)]
    assert_same(on_policy_weights(r, k), expected)


@pytest.mark.parametrize(("form", "own"), [("ratio", False), ("score", True)])
def test_first_order_weights(case, form, own):
    k, rewards, ratios, r, rho = case
    expected = [oracle.weights(*group, k, oracle.one_plus_deltas, own) for group in zip(rewards, ratios, strict=True)]
    assert_same(first_order_weights(r, rho, k, form), expected)


@pytest.mark.parametrize(("form", "own"), [("ratio", False), ("score", True)])
def test_exact_weights(case, form, own):
    k, rewards, ratios, r, rho = case
    expected = [oracle.weights(*group, k, oracle.product, own) for group in zip(rewards, ratios, strict=True)]
    assert_same(exact_weights(r, rho, k, form), expected)


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_marginal_gain(case, order):
    k, rewards, ratios, r, rho = case
    weight = oracle.ORDERS[order]
    expected = [oracle.marginal_gain(*group, k, weight) for group in zip(rewards, ratios, strict=True)]
    assert_same(marginal_gain(r, k, rho, order), expected)


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_leave_one_out(case, order):
    k, rewards, ratios, r, rho = case
    if k == r.shape[-1]:  # no completion outside the subset
        with pytest.raises(ValueError, match="k below the group size"):
            leave_one_out(r, k, rho, order)
        return
    weight = oracle.ORDERS[order]
    expected = [oracle.leave_one_out(*group, k, weight) for group in zip(rewards, ratios, strict=True)]
    assert_same(leave_one_out(r, k, rho, order), expected)


def test_orders_by_default(case):
    """Exact where ratios are given, none where they are not."""
    k, _, _, r, rho = case
    functions = [marginal_gain] if k == r.shape[-1] else [marginal_gain, leave_one_out]
    for function in functions:
        assert torch.equal(function(r, k), function(r, k, order="none"))
        assert torch.equal(function(r, k, rho), function(r, k, rho, order="exact"))


@pytest.mark.parametrize("correction", ["none", "first", "exact"])
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out", "none"])
def test_offpolicy_bon_is_n_times_the_weights(case, correction, baseline):
    k, rewards, ratios, r, rho = case
    n = r.shape[-1]
    weight = oracle.ORDERS[correction]
    expected = []
    for group in zip(rewards, ratios, strict=True):
        if baseline == "none":
            weights = oracle.weights(*group, k, weight, own=False)
        elif baseline == "leave_one_out" and k < n:
            weights = oracle.leave_one_out(*group, k, weight)
        else:  # a group of just k completions has nothing to leave out
            weights = oracle.marginal_gain(*group, k, weight)
        expected.append([n * w for w in weights])
    objective = objectives.get_objective("offpolicy_bon")
    assert_same(objective(r, k, rho, correction=correction, baseline=baseline).values, expected)
