from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.evaluation.statistics.diversity import distinct_at_k, solved_by
from openrlhf_maxk.evaluation.statistics.estimators import max_at_k
from openrlhf_maxk.evaluation.statistics.scores import Scores
from openrlhf_maxk.evaluation.statistics.selection import selected_at_k

pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=7)


def brute_force(samples, k):
    """Over all k-subsets: the mean value of those tied for the best verifier score."""
    total, subsets = Fraction(0), list(combinations(samples, k))
    for subset in subsets:
        best = max(score for score, _ in subset)
        tied = [Fraction(value, 4) for score, value in subset if score == best]
        total += sum(tied) / len(tied)
    return float(total / len(subsets))


@given(pairs)
def test_selection_by_a_verifier_against_all_subsets(samples):
    ks = np.arange(1, len(samples) + 1)
    verifier = [[score / 2 for score, _ in samples]]
    value = [[value / 4 for _, value in samples]]
    want = [brute_force(samples, int(k)) for k in ks]
    np.testing.assert_allclose(selected_at_k(verifier, value, ks)[0], want, atol=1e-14)


def test_a_perfect_verifier_is_the_oracle_and_a_blind_one_draws_at_random():
    value = np.random.default_rng(0).random(50)
    ks = [1, 5, 50]
    np.testing.assert_allclose(selected_at_k([value], [value], ks), max_at_k([value], ks))
    np.testing.assert_allclose(selected_at_k([np.zeros(50)], [value], ks), np.full((1, 3), value.mean()))


def test_problems_without_public_tests_and_too_large_k_have_no_value():
    got = selected_at_k([[np.nan] * 2, [0.0, 1.0], []], [[0.0, 1.0], [0.5, 1.0], []], [1, 2, 4])
    np.testing.assert_allclose(got, [[np.nan] * 3, [0.75, 1.0, np.nan], [np.nan] * 3])
    with pytest.raises(ValueError, match="verifier scores"):
        selected_at_k([[0.0]], [[0.0, 1.0]], [1])


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=7))
def test_distinct_kinds_against_all_subsets(kinds):
    ks = np.arange(1, len(kinds) + 1)
    want = [
        np.mean([len({kind for kind in subset if kind >= 0}) for subset in combinations(kinds, int(k))]) for k in ks
    ]
    np.testing.assert_allclose(distinct_at_k([np.asarray(kinds)], ks)[0], want, atol=1e-13)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=6), min_size=1, max_size=4))
def test_solved_by_against_all_subsets_of_the_common_size(groups):
    n = min(len(group) for group in groups)
    want = [
        np.mean([np.mean([sum(subset) >= c for subset in combinations(group, n)]) for group in groups])
        for c in range(1, n + 1)
    ]
    scores = Scores.from_groups({str(p): np.asarray(group, float) for p, group in enumerate(groups)})
    np.testing.assert_allclose(solved_by(scores), want, atol=1e-12)
