"""Groups of 256 in float64 against exact integers, for ranks in every part of the k samples."""

from fractions import Fraction
from math import comb

import pytest
import torch

from openrlhf_maxk.objectives import (
    exact_weights,
    leave_one_out,
    marginal_gain,
    on_policy_weights,
    value_at_k,
    vote_at_k,
    vote_weights,
)

N = 256
SOME = [0, 100, 255]
RANKS = {
    "best": lambda k: {0: 1},
    "worst": lambda k: {k - 1: 1},
    "four best": lambda k: dict.fromkeys(range(min(4, k)), 1),
    "middle": lambda k: {k // 2: 1},
    "spread": lambda k: {0: 1, k - 1: -1} if k > 1 else {0: 1},
}


def polynomials(ratios, k):
    """e_m of every prefix, up to degree k."""
    rows = [[1] + [0] * k]
    for ratio in ratios:
        last = rows[-1]
        rows.append([1] + [last[m] + ratio * last[m - 1] for m in range(1, k + 1)])
    return rows


def worth(rewards, ratios, k, ranks):
    """Σ_I ρ(I) Σ_m c_m (m-th best of I), in integers; by sums over prefixes and suffixes."""
    pairs = sorted(zip(rewards, ratios, strict=True), key=lambda pair: pair[0])
    below = polynomials([ratio for _, ratio in pairs], k)
    above = polynomials([ratio for _, ratio in reversed(pairs)], k)
    total = 0
    for j, (reward, ratio) in enumerate(pairs):
        for a, c in ranks.items():
            total += c * reward * ratio * below[j][k - 1 - a] * above[len(pairs) - 1 - j][a]
    return total


@pytest.fixture(scope="module")
def group():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(-40, 41, (N,), generator=generator).tolist()
    return rewards, torch.randint(5, 12, (N,), generator=generator).tolist()


@pytest.mark.parametrize("k", [2, 30, 128, 250, 256])
@pytest.mark.parametrize("name", RANKS)
def test_weights(group, name, k):
    """F is linear in each ratio, so A_i is F at ρ_i = 1 less F at ρ_i = 0."""
    rewards, integers = group
    ranks = RANKS[name](k)
    strategy = [float(ranks.get(a, 0)) for a in range(k)]
    r, rho = torch.tensor(rewards).double(), torch.tensor(integers).double() / 8
    value = Fraction(worth(rewards, integers, k, ranks), 8**k * comb(N, k))
    weights = exact_weights(r, rho, k, strategy=strategy)
    size = 40 * sum(abs(c) for c in ranks.values())
    scale = size * worth([1] * N, integers, k, {0: 1}) / (8**k * comb(N, k)) * k / N
    assert abs((rho * weights).sum().item() / k - float(value)) <= 1e-12 * scale * N
    ones = exact_weights(r, torch.ones_like(r), k, strategy=strategy)
    plain = on_policy_weights(r, k, strategy=strategy)
    assert (ones - plain).abs().max().item() <= 1e-12 * size * k / N
    expected = Fraction(worth(rewards, [1] * N, k, ranks), comb(N, k))
    assert abs(value_at_k(r, k, strategy).item() - float(expected)) <= 1e-12 * size
    for i in SOME:
        rest, rest_ratios = rewards[:i] + rewards[i + 1 :], integers[:i] + integers[i + 1 :]
        absent = worth(rest, rest_ratios, k, ranks) if k < N else 0
        present = worth([*rest, rewards[i]], [*rest_ratios, 1], k, ranks)
        weight = float(Fraction(present - absent, 8 ** (k - 1) * comb(N, k)))
        assert abs(weights[i].item() - weight) <= 1e-11 * scale


@pytest.mark.parametrize("k", [2, 30, 128, 250])
@pytest.mark.parametrize("name", RANKS)
def test_baselines(group, name, k):
    """Against the weights, by what they subtract: exact ones by autograd, and all of them where ratios are 1."""
    rewards, integers = group
    ranks = RANKS[name](k)
    strategy = [float(ranks.get(a, 0)) for a in range(k)]
    r, rho = torch.tensor(rewards).double(), torch.tensor(integers).double() / 8
    contrasts = leave_one_out(r, k, rho, strategy=strategy)
    assert abs(contrasts.sum().item()) <= 1e-12 * contrasts.abs().sum().item()
    gains = marginal_gain(r, k, rho, strategy=strategy)
    weights = exact_weights(r, rho, k, strategy=strategy)
    lowest = min(rewards)
    for i in SOME:
        rest, rest_ratios = rewards[:i] + rewards[i + 1 :], integers[:i] + integers[i + 1 :]
        # With the lowest, which no other is below, a subset S has its own ranks and c_k goes to the lowest.
        smaller = {a: c for a, c in ranks.items() if a < k - 1}
        subtracted = worth(rest, rest_ratios, k - 1, smaller) if smaller else 0
        subtracted += ranks.get(k - 1, 0) * lowest * polynomials(rest_ratios, k - 1)[-1][k - 1]
        baseline = float(Fraction(subtracted, 8 ** (k - 1) * comb(N, k)))
        scale = abs(baseline) + abs(weights[i].item()) + weights.abs().mean().item()
        assert abs(gains[i].item() - (weights[i].item() - baseline)) <= 1e-11 * scale
    for order in ("first", "exact"):
        ones = torch.ones_like(r)
        for function in (marginal_gain, leave_one_out):
            plain, same = (function(r, k, *arguments, strategy=strategy) for arguments in ((), (ones, order)))
            torch.testing.assert_close(same, plain, rtol=0, atol=1e-12 * plain.abs().max().item())


@pytest.mark.parametrize(("n", "k"), [(1024, 512), (2048, 3), (4096, 4094)])
def test_no_overflow(n, k):
    """The worst turned round is the best, far beyond where binomials are in range."""
    r = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    rho = (0.1 * r.flip(-1)).exp() if k < 1000 else torch.ones_like(r)
    scale = exact_weights(r, rho, k).abs().max().item()
    worst = -exact_weights(-r, rho, k, strategy="min")
    torch.testing.assert_close(worst, exact_weights(r, rho, k), rtol=0, atol=1e-12 * scale)
    middle = exact_weights(r, rho, k, strategy="median")
    assert middle.isfinite().all()
    torch.testing.assert_close(
        exact_weights(r, torch.ones_like(r), k, strategy="median"),
        on_policy_weights(r, k, strategy="median"),
        rtol=0,
        atol=1e-11 * k / n,
    )


@pytest.mark.parametrize("k", [2, 64, 128])
def test_votes_of_many_completions(k):
    """Two answers, whose votes can be counted: the weight of a completion is what the vote is worth with it, less that
    of the k - 1 others, over all subsets."""
    of_first = 100
    keys = torch.tensor([0] * of_first + [1] * (N - of_first))

    def worth(first, second, size):
        """Subsets of so many completions of each answer, weighed: the first wins alone, or there is a tie."""
        total = Fraction(0)
        for votes in range(max(0, size - second), min(first, size) + 1):
            share = Fraction((2 * votes > size) + (2 * votes >= size), 2)
            total += comb(first, votes) * comb(second, size - votes) * share
        return total / comb(N, k)

    rewards = (keys == 0).double()
    assert vote_at_k(rewards, keys, k).item() == pytest.approx(float(worth(of_first, N - of_first, k)), rel=1e-11)
    weights = vote_weights(rewards, keys, k, baseline="none")
    for i, first in ((0, of_first - 1), (N - 1, of_first)):
        with_it = worth(of_first, N - of_first, k) - (worth(first, N - 1 - first, k) if k < N else 0)
        assert weights[i].item() == pytest.approx(float(with_it), rel=1e-9, abs=1e-12)
    for baseline in ("marginal", "leave_one_out"):
        assert vote_weights(rewards, keys, k, torch.ones_like(rewards), baseline).isfinite().all()
