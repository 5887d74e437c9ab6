"""Groups of 1024 against exact integers: where C(n, k) has 300 digits and more, in every order of k."""

from fractions import Fraction
from math import comb

import pytest
import torch

from openrlhf_maxk.objectives import (
    exact_weights,
    leave_one_out,
    marginal_gain,
    max_at_k,
    on_policy_weights,
    pass_at_k,
)

N = 1024
KS = [1, 2, 3, 17, 512, 1000, 1023, 1024]
SOME = [0, 1, 17, 400, 511, 512, 1000, 1022, 1023]  # completions looked at one by one


@pytest.fixture(scope="module")
def rewards():
    """Integers in random order, with ties."""
    return torch.randint(-40, 41, (N,), generator=torch.Generator().manual_seed(0)).tolist()


def subset_sum(values: list[int], k: int) -> int:
    """Σ_I max r(I) over the k-subsets of ``values``."""
    return sum(comb(i, k - 1) * value for i, value in enumerate(sorted(values)))


def without(values: list[int], i: int) -> list[int]:
    return values[:i] + values[i + 1 :]


def assert_close(actual: float, expected: Fraction, scale: float = 1.0):
    assert abs(actual - float(expected)) <= 2e-13 * max(scale, abs(float(expected)))


@pytest.mark.parametrize("k", KS)
def test_metrics(rewards, k):
    assert_close(max_at_k(torch.tensor(rewards).double(), k).item(), Fraction(subset_sum(rewards, k), comb(N, k)), 40)
    correct = [reward == 40 for reward in rewards]
    expected = 1 - Fraction(comb(N - sum(correct), k), comb(N, k))
    assert_close(pass_at_k(torch.tensor(correct).double(), k).item(), expected)


@pytest.mark.parametrize("k", KS)
def test_on_policy_weights(rewards, k):
    r = torch.tensor(rewards, dtype=torch.float64)
    weights, gains = on_policy_weights(r, k), marginal_gain(r, k)
    contrasts = leave_one_out(r, k) if k < N else None
    everything = subset_sum(rewards, k)
    for i in SOME:
        rest = without(rewards, i)
        without_i = subset_sum(rest, k) if k < N else 0
        weight = Fraction(everything - without_i, comb(N, k))
        assert_close(weights[i].item(), weight, 40 * k / N)
        if k > 1:
            gain = weight - Fraction(subset_sum(rest, k - 1), comb(N, k))
            assert_close(gains[i].item(), gain, 40 * k / N)
            assert gains[i] >= 0
        if contrasts is not None:
            assert_close(contrasts[i].item(), weight - Fraction(k * without_i, N * comb(N - 1, k)), 40 * k / N)


def weighted_subset_sum(rewards: list[int], ratios: list[int], k: int) -> int:
    """Σ_I ρ(I) max r(I) for integer ratios."""
    polynomial = [1] + [0] * (k - 1)  # polynomial[m]: Σ over m-subsets of those lower
    total = 0
    for reward, ratio in sorted(zip(rewards, ratios, strict=True)):
        total += reward * ratio * polynomial[k - 1]
        for m in range(k - 1, 0, -1):
            polynomial[m] += polynomial[m - 1] * ratio
    return total


@pytest.mark.parametrize(("n", "k"), [(256, 2), (256, 128), (256, 200), (256, 256), (1024, 512)])
def test_exact_weights(rewards, n, k):
    """F is linear in each ratio, so A_i is F at ρ_i = 1 less F at ρ_i = 0; both in exact integers."""
    rewards = rewards[:n]
    integers = torch.randint(5, 12, (n,), generator=torch.Generator().manual_seed(1)).tolist()
    denominator = 8
    r, rho = torch.tensor(rewards).double(), torch.tensor(integers).double() / denominator
    weights, gains = exact_weights(r, rho, k), marginal_gain(r, k, rho)
    contrasts = leave_one_out(r, k, rho) if k < n else None
    value = Fraction(weighted_subset_sum(rewards, integers, k), denominator**k * comb(n, k))
    assert_close((rho * weights).sum().item() / k, value)

    for i in [0, n // 3, n - 1]:
        rest, rest_ratios = without(rewards, i), without(integers, i)
        absent = weighted_subset_sum(rest, rest_ratios, k) if k < n else 0
        present = weighted_subset_sum([*rest, rewards[i]], [*rest_ratios, 1], k)
        weight = Fraction(present - absent, denominator ** (k - 1) * comb(n, k))
        scale = float(value) * k / n
        assert_close(weights[i].item(), weight, scale)
        baseline = Fraction(weighted_subset_sum(rest, rest_ratios, k - 1), denominator ** (k - 1) * comb(n, k))
        assert_close(gains[i].item(), weight - baseline, scale)
        assert gains[i] >= 0
        if contrasts is not None:
            assert_close(contrasts[i].item(), weight - stand_in_mean(rest, rest_ratios, k, denominator, n), scale)


def stand_in_mean(rewards: list[int], ratios: list[int], k: int, denominator: int, n: int) -> Fraction:
    """(1/C(n,k)) Σ_S ρ(S) mean_l max r(S+l), S of k − 1 of these completions and l any other of them."""
    polynomial = [1] + [0] * (k - 1)
    total = 0
    for rank, (reward, ratio) in enumerate(sorted(zip(rewards, ratios, strict=True))):
        best_is_l = polynomial[k - 1]
        best_is_in_s = ratio * polynomial[k - 2] * (rank - (k - 2)) if k > 1 else 0
        total += reward * (best_is_l + best_is_in_s)
        for m in range(k - 1, 0, -1):
            polynomial[m] += polynomial[m - 1] * ratio
    return Fraction(total, denominator ** (k - 1) * comb(n, k) * (n - k))


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_equal_ratios_at_every_k(ratio):
    """ρ(S) is the same for all S of k − 1: the weights are ratio^(k−1) times the on-policy ones."""
    r = torch.randn(2, 150, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rho = torch.full_like(r, ratio)
    for k in range(1, 151):
        scale = r.abs().amax() * k / 150
        pairs = [(exact_weights(r, rho, k), on_policy_weights(r, k)), (marginal_gain(r, k, rho), marginal_gain(r, k))]
        if k < 150:
            pairs.append((leave_one_out(r, k, rho), leave_one_out(r, k)))
        for exact, on_policy in pairs[:1] if k == 1 else pairs:
            assert (exact / ratio ** (k - 1) - on_policy).abs().amax() <= 1e-14 * scale


@pytest.mark.parametrize("n", [1024, 2048, 4096])
def test_no_overflow_up_to_4096(n):
    """With ratios of 1 the exact sweep is the on-policy one; binomials of this size are far out of range."""
    r = torch.rand(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    k = n // 2 if n == 1024 else 5
    torch.testing.assert_close(marginal_gain(r, k, torch.ones_like(r)), marginal_gain(r, k), rtol=1e-12, atol=1e-300)
    for k in (n // 2, n - 2):
        assert 0.99 < max_at_k(r, k).min() <= max_at_k(r, k).max() <= 1
        assert marginal_gain(r, k, torch.full_like(r, 1.01), order="first").isfinite().all()
