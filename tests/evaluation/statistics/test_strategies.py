"""What k samples are worth, against the definition over all subsets."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.evaluation.statistics.estimators import max_at_k, pass_at_k
from openrlhf_maxk.evaluation.statistics.strategies import g_pass_at_k, majority_at_k, strategy_at_k
from openrlhf_maxk.objectives import vote_at_k

rewards_of_a_problem = st.lists(st.integers(-8, 8).map(lambda x: Fraction(x, 8)), min_size=1, max_size=7)
WORTHS = {
    "max": max,
    "min": min,
    "mean_of_best:2": lambda subset: sum(sorted(subset)[-2:]) / 2,
    "median": lambda subset: (sorted(subset)[len(subset) // 2] + sorted(subset)[(len(subset) - 1) // 2]) / 2,
    "quantile:0.25": lambda subset: Fraction(np.quantile([float(x) for x in subset], 0.25)),
}


def mean_over_subsets(worth, n, k):
    return float(sum((Fraction(worth(subset)) for subset in combinations(range(n), k)), Fraction(0)) / comb(n, k))


@pytest.mark.parametrize("strategy", WORTHS)
@settings(max_examples=25)
@given(rewards=rewards_of_a_problem)
def test_strategies(strategy, rewards):
    n = len(rewards)
    (got,) = strategy_at_k([np.asarray(rewards, dtype=float)], np.arange(1, n + 1), strategy)
    for k in range(1, n + 1):
        if strategy == "mean_of_best:2" and k == 1:
            assert np.isnan(got[0])
            continue
        want = mean_over_subsets(lambda subset: WORTHS[strategy]([rewards[i] for i in subset]), n, k)
        assert got[k - 1] == pytest.approx(want, abs=1e-13)


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=7), st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]))
def test_g_pass_at_k(correct, share):
    n = len(correct)
    (got,) = g_pass_at_k([correct], np.arange(1, n + 1), share)
    for k in range(1, n + 1):
        want = mean_over_subsets(lambda subset, k=k: sum(correct[i] for i in subset) >= share * k, n, k)
        assert got[k - 1] == pytest.approx(want, abs=1e-13)


def test_g_pass_at_k_ends_in_pass_at_k_and_pass_hat_k():
    correct = np.arange(30)[None] < 21
    ks = [1, 2, 8, 30]
    np.testing.assert_allclose(g_pass_at_k(correct, ks, 1e-6), pass_at_k([21], 30, ks), rtol=1e-13)
    every = [[comb(21, k) / comb(30, k) for k in ks]]
    np.testing.assert_allclose(g_pass_at_k(correct, ks, 1.0), every, rtol=1e-13)
    np.testing.assert_allclose(strategy_at_k(correct, ks, "min"), every, rtol=1e-13)


def test_a_share_that_floating_point_makes_a_little_larger():
    assert 0.07 * 100 > 7
    assert g_pass_at_k(np.arange(100)[None] < 7, [100], 0.07)[0, 0] == 1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(-4, 4)), min_size=1, max_size=7))
def test_majority_at_k(samples):
    answers, rewards = [answer for answer, _ in samples], [Fraction(reward, 4) for _, reward in samples]

    def worth(subset):
        votes = Counter(answers[i] for i in subset if answers[i] is not None)
        if not votes:
            return sum((rewards[i] for i in subset), Fraction(0)) / len(subset)
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        of = {answer: [rewards[i] for i in subset if answers[i] == answer] for answer in winners}
        return sum((sum(x, Fraction(0)) / len(x) for x in of.values()), Fraction(0)) / len(winners)

    n = len(samples)
    (got,) = majority_at_k([[float(x) for x in rewards]], [answers], np.arange(1, n + 1))
    np.testing.assert_allclose(got, [mean_over_subsets(worth, n, k) for k in range(1, n + 1)], rtol=0, atol=1e-13)


def test_majority_among_many_samples():
    """256 samples, whose subsets of 128 no double counts exactly: by drawing subsets, and as training estimates it."""
    counts, worth = (
        np.asarray([7, 90, 88, 40, 20, 11]),
        np.asarray([0.5, 0.25, 1.0, 0.0, 0.75, 1.0]),
    )  # the first: silent
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.repeat(np.arange(6), counts))
    answers = [None if key == 0 else int(key) for key in keys]
    ks = [1, 2, 3, 8, 64, 128, 200, 255, 256]
    (got,) = majority_at_k([worth[keys]], [answers], ks)
    assert got[0] == pytest.approx(worth[keys].mean(), abs=1e-13)
    assert got[-1] == 0.25
    for k, value in zip(ks, got, strict=True):
        votes = rng.multivariate_hypergeometric(counts, k, size=40_000)
        most = votes[:, 1:].max(axis=1, keepdims=True)
        won = (votes[:, 1:] == most) & (most > 0)
        drawn = np.where(won.any(axis=1), won @ worth[1:] / np.maximum(won.sum(axis=1), 1), worth[0])
        assert value == pytest.approx(drawn.mean(), abs=5 * drawn.std() / 200 + 1e-12)
    speaking = keys > 0
    voters, n = torch.from_numpy(keys[speaking]), int(speaking.sum())
    for k in (2, 128, n - 1):
        (mine,) = majority_at_k([worth[keys[speaking]]], [voters.tolist()], [k])
        assert mine[0] == pytest.approx(float(vote_at_k(torch.from_numpy(worth[keys[speaking]]), voters, k)), rel=1e-9)
    (all_different,) = majority_at_k([np.arange(256) / 256], [range(256)], [1, 128, 256])
    np.testing.assert_allclose(all_different, np.full(3, 255 / 512), rtol=1e-10)


def test_ragged_groups_and_too_few_samples():
    groups, ks = [[0.5, 1.0, 0.0], [], [0.25]], [1, 2, 4]
    got = strategy_at_k(groups, ks, "max")
    np.testing.assert_allclose(got, max_at_k(groups, ks), rtol=1e-14)
    assert np.isnan(g_pass_at_k([[1, 0], []], ks, 0.5)).tolist() == [[False, False, True], [True] * 3]
    assert np.isnan(majority_at_k([[1.0, 0.0], []], ["xy", ""], ks)).tolist() == [[False, False, True], [True] * 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: strategy_at_k([[0.0]], [1], "best"), "strategy must be one of"),
        (lambda: strategy_at_k([[0.0]], [1], "selected"), "strategy selected needs scores"),
        (lambda: strategy_at_k([[0.0]], [1], "vote"), "strategy vote goes by keys"),
        (lambda: strategy_at_k([[0.0, np.nan]], [1], "min"), "problem 0 has a reward that is not a finite number"),
        (lambda: strategy_at_k([[[0.0]]], [1], "min"), "shape"),
        (lambda: strategy_at_k([[0.0]], [0], "min"), "ks must be positive"),
        (lambda: g_pass_at_k([[0.0]], [1], 0.0), "above 0 and at most 1"),
        (lambda: g_pass_at_k([[0.5]], [1], 0.5), "correct must be 0 or 1"),
        (lambda: majority_at_k([[0.5]], ["ab"], [1]), "problem 0 has 1 rewards and 2 answers"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
