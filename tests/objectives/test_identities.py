"""Identities of the weights, and F's own gradient by autograd."""

from math import comb

import pytest
import torch
from torch import Tensor

from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    leave_one_out,
    marginal_gain,
    max_at_k,
    on_policy_weights,
)


def subset_shares(n: int, k: int) -> Tensor:
    """C(i−1, k−1)/C(n, k) for i = 1..n."""
    return torch.tensor([comb(i, k - 1) / comb(n, k) for i in range(n)], dtype=torch.float64)


SIZES = [(2, 1), (5, 2), (8, 3), (9, 9), (16, 8), (33, 5), (40, 39), (64, 32)]


@pytest.fixture(params=SIZES, ids=lambda size: f"n{size[0]}-k{size[1]}")
def case(request):
    """k, rewards of either sign, ratios between 1/3 and 3; 7 groups, sorted ascending."""
    n, k = request.param
    generator = torch.Generator().manual_seed(n)
    rewards = torch.randn(7, n, dtype=torch.float64, generator=generator).sort(-1).values
    ratios = torch.rand(7, n, dtype=torch.float64, generator=generator).mul(2).sub(1).mul(1.1).exp()
    return k, rewards, ratios


def assert_equal(actual, expected, tolerance=1e-13):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def off_policy_max_at_k(rewards: Tensor, ratios: Tensor, k: int) -> Tensor:
    """F of sorted rewards, with means of products in place of sums, open to autograd; (batch, n) -> (batch,)."""
    n = rewards.shape[-1]
    share = subset_shares(n, k)
    means = [torch.ones_like(ratios[:, 0])] + [torch.zeros_like(ratios[:, 0])] * (k - 1)
    value = torch.zeros_like(ratios[:, 0])
    for t in range(1, n + 1):
        value = value + share[t - 1] * rewards[:, t - 1] * ratios[:, t - 1] * means[k - 1]
        means = [means[0]] + [
            (1 - m / t) * means[m] + m / t * ratios[:, t - 1] * means[m - 1] if m <= t else means[m]
            for m in range(1, k)
        ]
    return value


def test_autograd_through_f_gives_the_exact_weights(case):
    k, r, rho = case
    rho = rho.requires_grad_()
    value = off_policy_max_at_k(r, rho, k)
    gradient = torch.autograd.grad(value.sum(), rho)[0]
    weights = exact_weights(r, rho, k)
    assert not weights.requires_grad
    scale = gradient.abs().amax()
    assert_equal(weights / scale, gradient / scale, 1e-14)


def test_ratio_weighted_sum_is_k_times_f(case):
    k, r, rho = case
    assert_equal((rho * exact_weights(r, rho, k)).sum(-1), k * off_policy_max_at_k(r, rho, k))


def test_on_policy_identities(case):
    k, r, _ = case
    n = r.shape[-1]
    weights = on_policy_weights(r, k)
    assert_equal(weights.sum(-1), k * max_at_k(r, k))
    assert_equal(weights[:, -1], k / n * r[:, -1])
    assert_equal(weights.diff(dim=-1), subset_shares(n, k)[:-1] * r.diff(dim=-1))


def test_marginal_gain_climbs_by_shares_of_the_gaps(case):
    k, r, _ = case
    if k == 1:
        return  # RLOO: below
    gains = marginal_gain(r, k)
    assert gains[:, 0].eq(0).all()
    assert_equal(gains.diff(dim=-1), subset_shares(r.shape[-1], k)[1:] * r.diff(dim=-1))


def test_marginal_gain_is_the_weight_less_the_subset_without(case):
    """The baseline is (k/n) max@(k−1) of the others."""
    k, r, rho = case
    n = r.shape[-1]
    if k == 1:
        return
    for i in (0, n // 2, n - 1):
        rest, rest_ratios = (torch.cat([x[:, :i], x[:, i + 1 :]], -1) for x in (r, rho))
        baseline = k / n * off_policy_max_at_k(rest, rest_ratios, k - 1)
        assert_equal(marginal_gain(r, k, rho)[:, i], exact_weights(r, rho, k)[:, i] - baseline, 1e-12)
        assert_equal(marginal_gain(r, k)[:, i], on_policy_weights(r, k)[:, i] - k / n * max_at_k(rest, k - 1))


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_leave_one_out_sums_to_zero(case, order):
    k, r, rho = case
    if k == r.shape[-1]:
        return
    contrasts = leave_one_out(r, k, rho, order)
    assert_equal(contrasts.sum(-1) / contrasts.abs().amax(), torch.zeros(7, dtype=torch.float64))


def test_leave_one_out_on_policy(case):
    """n/(n−k) (r̃_i − mean r̃), and the weight less (k/n) max@k of the others."""
    k, r, _ = case
    n = r.shape[-1]
    if k == n:
        return
    weights, contrasts = on_policy_weights(r, k), leave_one_out(r, k)
    assert_equal(contrasts, n / (n - k) * (weights - weights.mean(-1, keepdim=True)))
    for i in range(n):
        rest = torch.cat([r[:, :i], r[:, i + 1 :]], -1)
        assert_equal(contrasts[:, i], weights[:, i] - k / n * max_at_k(rest, k))


@pytest.mark.parametrize("k", [2, 3, 6])
def test_signal_of_binary_rewards(k):
    """r̃ has a spread from k wrong on, the marginal gain from k − 1 wrong and one correct on."""
    n = 8
    for wrong in range(n + 1):
        r = (torch.arange(n) >= wrong).double()
        assert on_policy_weights(r, k).unique().numel() == (2 if k <= wrong < n else 1)
        assert marginal_gain(r, k).unique().numel() == (2 if k - 1 <= wrong < n else 1)


def test_first_order_forms_differ_by_the_own_delta(case):
    """w′_i = w″_i + δ_i r̃_i."""
    k, r, rho = case
    expected = first_order_weights(r, rho, k) + (rho - 1) * on_policy_weights(r, k)
    assert_equal(first_order_weights(r, rho, k, "score"), expected)


def test_score_form_is_ratio_form_times_the_ratio(case):
    k, r, rho = case
    assert_equal(exact_weights(r, rho, k, "score"), rho * exact_weights(r, rho, k))


@pytest.mark.parametrize("weights", [exact_weights, marginal_gain, leave_one_out])
def test_first_order_is_the_tangent_of_exact(case, weights):
    """Off by ε² along ρ = 1 + εδ: the same constant at two values of ε, where rounding does not hide it."""
    k, r, rho = case
    if k < 3 or (weights is leave_one_out and k == r.shape[-1]):
        return  # k <= 2: one ratio, or none, and nothing of second order
    delta = rho - 1

    def error(step):
        ratios = 1 + step * delta
        if weights is exact_weights:
            return (exact_weights(r, ratios, k) - first_order_weights(r, ratios, k)).norm()
        return (weights(r, k, ratios, "exact") - weights(r, k, ratios, "first")).norm()

    assert (error(2e-4) / error(1e-4)).item() == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("k", [1, 2])
def test_first_order_is_exact_where_a_subset_has_one_other_ratio_or_none(k):
    r = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rho = r.exp()
    assert_equal(first_order_weights(r, rho, k), exact_weights(r, rho, k))
    assert_equal(marginal_gain(r, k, rho, "first"), marginal_gain(r, k, rho, "exact"))
    assert_equal(leave_one_out(r, k, rho, "first"), leave_one_out(r, k, rho, "exact"))


def test_ratios_of_one_change_nothing(case):
    k, r, _ = case
    ones = torch.ones_like(r)
    for form in ("ratio", "score"):
        assert_equal(first_order_weights(r, ones, k, form), on_policy_weights(r, k))
        assert_equal(exact_weights(r, ones, k, form), on_policy_weights(r, k))
    for order in ("first", "exact"):
        assert_equal(marginal_gain(r, k, ones, order), marginal_gain(r, k))
        if k < r.shape[-1]:
            assert_equal(leave_one_out(r, k, ones, order), leave_one_out(r, k))


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_k_of_one_is_rloo(order):
    r = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = (r - (r.sum(-1, keepdim=True) - r) / 8) / 9
    assert_equal(marginal_gain(r, 1, r.exp(), order), expected)
    assert_equal(leave_one_out(r, 1, r.exp(), order), expected)
