from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.evaluation.statistics.estimators import max_at_k, pass_at_k, powers_of_two, reach_probability

rationals = st.fractions(min_value=-3, max_value=3, max_denominator=8)


def exact_max_at_k(rewards, k):
    """The definition: the mean of the maximum over all subsets, in rationals."""
    subsets = list(combinations([Fraction(r) for r in rewards], k))
    return sum((max(s) for s in subsets), Fraction(0)) / len(subsets)


@given(st.lists(rationals, min_size=1, max_size=8))
def test_max_at_k_is_the_mean_over_all_subsets(rewards):
    ks = np.arange(1, len(rewards) + 1)
    got = max_at_k([np.asarray(rewards, dtype=float)], ks)[0]
    want = [float(exact_max_at_k(rewards, int(k))) for k in ks]
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-15)


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_pass_at_k_is_max_at_k_of_zeros_and_ones(correct):
    ks = np.arange(1, len(correct) + 1)
    got = pass_at_k([sum(correct)], [len(correct)], ks)[0]
    want = [float(exact_max_at_k([int(c) for c in correct], int(k))) for k in ks]
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=0)
    np.testing.assert_allclose(max_at_k([np.asarray(correct, float)], ks)[0], want, rtol=1e-14, atol=0)


@pytest.mark.parametrize("n", [256, 1030, 4096])
def test_large_groups_against_exact_integers(n):
    rng = np.random.default_rng(n)
    numerators = rng.integers(0, 21, size=n)
    ks = [1, 2, 7, 64, 128, n // 2, n - 1, n]
    got = max_at_k([numerators / 20], ks)[0]
    ordered = sorted(int(x) for x in numerators)
    want = [sum(comb(i, k - 1) * r for i, r in enumerate(ordered)) / (20 * comb(n, k)) for k in ks]
    np.testing.assert_allclose(got, want, rtol=1e-13)
    for c in (0, 1, n // 3, n):
        want = [1 - comb(n - c, k) / comb(n, k) for k in ks]
        np.testing.assert_allclose(pass_at_k([c], n, ks)[0], want, rtol=1e-12, atol=1e-15)


def test_equal_rewards_and_sure_hits_are_exact():
    assert np.all(max_at_k([np.full(100, 1 / 3)], powers_of_two(100)) == 1 / 3)
    assert np.all(pass_at_k([0, 256], 256, powers_of_two(256)) == [[0.0] * 9, [1.0] * 9])
    assert pass_at_k([3], [5], [3])[0, 0] == 1.0  # only two wrong samples: three always hold a right one


@given(st.lists(st.lists(rationals.map(float), min_size=0, max_size=6), min_size=1, max_size=6))
def test_ragged_groups_are_independent_and_too_large_k_is_nan(groups):
    ks = [1, 2, 4]
    together = max_at_k(groups, ks)
    for p, group in enumerate(groups):
        np.testing.assert_array_equal(np.isnan(together[p]), np.asarray(ks) > len(group))
        alone = max_at_k([group], ks)[0]
        np.testing.assert_allclose(together[p], alone, rtol=1e-15, atol=1e-15)


def test_pass_at_k_with_too_few_samples_is_nan_not_one():
    got = pass_at_k([2, 2], [2, 4], [1, 4])
    assert np.isnan(got[0, 1])
    np.testing.assert_allclose(got[[0, 1, 1], [0, 0, 1]], [1.0, 0.5, 1.0])


def test_reach_probability_shape_and_ends():
    table = reach_probability(5, [1, 3, 6])
    assert table.shape == (3, 6)
    np.testing.assert_allclose(table[0], np.arange(6) / 5)
    assert np.isnan(table[2]).all()


def test_powers_of_two():
    assert powers_of_two(256).tolist() == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert powers_of_two(100).tolist() == [1, 2, 4, 8, 16, 32, 64]
    with pytest.raises(ValueError, match="at least 1"):
        powers_of_two(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_at_k([[0.0]], [0]), "ks must be positive"),
        (lambda: max_at_k([[0.0]], [1.5]), "ks must be positive"),
        (lambda: max_at_k([[0.0, np.nan]], [1]), "problem 0 has a reward"),
        (lambda: max_at_k([[[0.0]]], [1]), "shape"),
        (lambda: pass_at_k([3], [2], [1]), "3 correct samples among only 2"),
        (lambda: pass_at_k([-1], [2], [1]), "non-negative"),
    ],
)
def test_bad_input_names_the_culprit(call, message):
    with pytest.raises(ValueError, match=message):
        call()
