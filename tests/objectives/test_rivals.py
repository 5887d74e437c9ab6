"""The objectives of other papers, against slow references written from what the papers say."""

from fractions import Fraction
from itertools import combinations
from math import comb, exp, sqrt

import pytest
import torch

from openrlhf_maxk.objectives import get_objective, leave_one_out, marginal_gain, on_policy_weights

from . import oracle

SIZES = [(n, k) for n in range(1, 8) for k in range(1, n + 1)]
BINARY = ["nsr", "passk_training", "w_reinforce"]


@pytest.fixture(params=SIZES, ids=lambda size: f"n{size[0]}-k{size[1]}")
def case(request):
    n, k = request.param
    rewards, _ = oracle.groups(n, 3, seed=n + 10 * k)
    return n, k, rewards, oracle.tensor(rewards)


def assert_same(name, r, k, expected):
    actual = get_objective(name)(r, k).values
    wanted = torch.tensor([[float(x) for x in row] for row in expected], dtype=torch.float64)
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


def test_pkpo(case):
    """Its s_i with the baseline over k − 1 of the others, summed over the subsets that hold i."""
    n, k, rewards, r = case
    if k == 1:
        return  # undefined there; here RLOO: below
    expected = []
    for group in rewards:
        of_group = []
        for i in range(n):
            rests = list(combinations([l for l in range(n) if l != i], k - 1))
            gains = [max(group[i], *(group[l] for l in rest)) - max(group[l] for l in rest) for rest in rests]
            of_group.append(n * sum(gains) / Fraction(comb(n, k)))
        expected.append(of_group)
    assert_same("pkpo", r, k, expected)
    torch.testing.assert_close(get_objective("pkpo")(r, k).values, n * marginal_gain(r, k))


def loo_1(rewards, i, k):
    """PKPO's: the mean of what i adds, over the subsets of k − 1 others."""
    rests = list(combinations(oracle.others(rewards, i), k - 1))
    return sum((max(*rest, rewards[i]) - max(rest) if rest else rewards[i] for rest in rests), Fraction(0)) / len(rests)


def test_maxpo_leaves_two_out(case):
    """LOO-1 of i, less the mean over j of LOO-1 of j in the group without i. Centred, and the same as LOO(k)."""
    n, k, rewards, r = case
    if k == n:
        return
    expected = []
    for group in rewards:
        of_group = []
        for i in range(n):
            rest = oracle.others(group, i)
            baseline = oracle.mean([loo_1(rest, j, k) for j in range(n - 1)])
            of_group.append(k * (loo_1(group, i, k) - baseline))
        assert sum(of_group) == 0
        expected.append(of_group)
    assert_same("maxpo", r, k, expected)
    torch.testing.assert_close(get_objective("maxpo")(r, k).values, n * leave_one_out(r, k))
    weights = on_policy_weights(r, k)
    centred = n * n / (n - k) * (weights - weights.mean(-1, keepdim=True))
    torch.testing.assert_close(get_objective("maxpo")(r, k).values, centred)


def test_maxpo_of_a_group_of_just_k_is_loo_1():
    r = torch.rand(3, 4, dtype=torch.float64)
    torch.testing.assert_close(get_objective("maxpo")(r, 4).values, 4 * marginal_gain(r, 4))


def test_maxrl(case):
    _, k, rewards, r = case
    expected = []
    for group in rewards:
        mean = oracle.mean(group)
        expected.append([(x - mean) / mean if mean > 0 else Fraction(0) for x in group])
    assert_same("maxrl", r, k, expected)


def test_maxrl_is_a_mixture_of_pass_at_k():
    """Its expected gradient, of a policy of two actions, by enumeration, is that of Σ_k pass@k/k up to k = n − 1."""
    n, p = 4, 0.3
    gradient = 0.0
    for outcome in range(2**n):
        r = torch.tensor([(outcome >> i) & 1 for i in range(n)]).double()
        chance = p ** r.sum().item() * (1 - p) ** (n - r.sum().item())
        score = r / p - (1 - r) / (1 - p)
        gradient += chance * (get_objective("maxrl")(r, 1).values * score).mean().item()
    # d/dp (1 − (1−p)^k)/k = (1−p)^(k−1)
    assert gradient == pytest.approx(sum((1 - p) ** (k - 1) for k in range(1, n)), rel=1e-12)


def test_passk_training(case):
    """Over all draws of k: z-scores of whether a draw has a right answer, averaged over the draws with the answer."""
    n, k, rewards, _ = case
    correct = [[Fraction(reward > 0) for reward in group] for group in rewards]
    expected = []
    for group in correct:
        draws = list(combinations(range(n), k))
        worth = {draw: max(group[i] for i in draw) for draw in draws}
        mean = oracle.mean(list(worth.values()))
        std = sqrt(oracle.mean([(x - mean) ** 2 for x in worth.values()]))
        with_i = [oracle.mean([worth[draw] for draw in draws if i in draw]) for i in range(n)]
        expected.append([float(x - mean) / std if std else 0.0 for x in with_i])
    assert_same("passk_training", oracle.tensor(correct), k, expected)


def test_passk_training_of_large_groups_against_exact_binomials():
    n, k, c = 1024, 300, 3
    r = (torch.arange(n) < c).double()
    right, wrong = get_objective("passk_training")(r, k).values[[0, -1]].tolist()
    missed = Fraction(comb(n - c, k), comb(n, k))
    spread = sqrt(missed * (1 - missed))
    assert right == pytest.approx(float(missed) / spread, rel=1e-12)
    expected = float(missed - Fraction(comb(n - c - 1, k - 1), comb(n - 1, k - 1))) / spread
    assert wrong == pytest.approx(expected, rel=1e-10)


def test_rs_grpo(case):
    n, k, rewards, r = case
    expected = []
    for group in rewards:
        powers = [exp(2 * x) for x in group]
        expected.append([(power / (sum(powers) / n) - 1) / 2 for power in powers])
    assert_same("rs_grpo", r, k, expected)
    far = get_objective("rs_grpo")(torch.tensor([0.0, 1000.0]), 1)  # e^2000 would overflow
    assert far.values.tolist() == [-0.5, 0.5]


def test_dr_grpo(case):
    _, k, rewards, r = case
    assert_same("dr_grpo", r, k, [[x - oracle.mean(group) for x in group] for group in rewards])


@pytest.mark.parametrize(("name", "right"), [("w_reinforce", 0.1), ("nsr", 0.0)])
def test_negative_reinforcement(name, right):
    r = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    expected = torch.where(r > 0, right, -1.0)
    torch.testing.assert_close(get_objective(name)(r, 2).values, expected)


@pytest.mark.parametrize("name", BINARY)
def test_those_about_right_and_wrong_take_nothing_else(name):
    assert get_objective(name).binary
    with pytest.raises(ValueError, match=rf"rewards of {name} must be 0 or 1: rewards of {name}\[1\] is 0\.5"):
        get_objective(name)(torch.tensor([1.0, 0.5, 0.0]), 2)


def test_each_has_a_line_for_the_list():
    for name in ("pkpo", "maxpo", "maxrl", "passk_training", "rs_grpo", "dr_grpo", "w_reinforce", "nsr"):
        assert "arXiv" in get_objective(name).summary
        assert "A_i = " in get_objective(name).summary
