from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, rankdata, wilcoxon

from openrlhf_maxk.evaluation.statistics.significance import EXACT_UP_TO, holm, signed_rank


def brute_force(differences):
    """All signs of the ranks, with zeros left out and ties sharing their mean rank."""
    nonzero = [d for d in differences if d != 0]
    if not nonzero:
        return 1.0
    ranks = rankdata(np.abs(nonzero))
    observed = abs(sum(r if d > 0 else -r for r, d in zip(ranks, nonzero, strict=True)))
    signs = np.asarray(list(product([-1, 1], repeat=len(nonzero))))
    return float(np.mean(np.abs(signs @ ranks) >= observed - 1e-9))


@given(st.lists(st.integers(-3, 3), max_size=10))
def test_exact_with_ties_and_zeros_against_all_signs(differences):
    assert signed_rank(np.asarray(differences, float)).p_value == pytest.approx(brute_force(differences), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 20, 50])
def test_agrees_with_scipys_exact_test(n):
    rng = np.random.default_rng(n)
    for _ in range(10):
        d = rng.normal(0.3, 1, n)
        assert signed_rank(d).p_value == pytest.approx(wilcoxon(d, method="exact").pvalue, rel=1e-10)


def test_agrees_with_scipys_permutation_test_with_ties_and_zeros():
    d = np.asarray([1, 1, -1, 2, 2, 3, -3, 0, 0, 4.0])
    ours = signed_rank(d)
    theirs = wilcoxon(d[d != 0], method=PermutationMethod())
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    assert (ours.differing, ours.problems, ours.exact) == (8, 10, True)


def test_many_problems_use_the_approximation_which_meets_the_exact_value():
    rng = np.random.default_rng(0)
    d = np.round(rng.normal(0.15, 1, EXACT_UP_TO), 1)
    d = d[d != 0]
    exact = signed_rank(d)
    assert exact.exact
    assert exact.p_value == pytest.approx(wilcoxon(d, method="asymptotic", correction=True).pvalue, rel=0.02)
    many = np.concatenate([d, d])
    assert not signed_rank(many).exact
    assert signed_rank(many).p_value == wilcoxon(many, method="asymptotic", correction=True).pvalue


def test_differences_by_rounding_count_as_none():
    d = np.asarray([1e-16, -3e-13, 0.0, 0.1 + 0.2 - 0.3])
    assert signed_rank(d).p_value == 1.0
    assert signed_rank(d).differing == 0
    tied = signed_rank(np.asarray([0.3, 0.1 + 0.2, -0.3]))
    assert tied.p_value == brute_force([1, 1, -1])


def test_rank_biserial():
    assert signed_rank([1.0, 2.0, 3.0]).rank_biserial == 1.0
    assert signed_rank([-1.0, -2.0]).rank_biserial == -1.0
    assert signed_rank([1.0, 2.0, -3.0]).rank_biserial == 0.0
    assert signed_rank([]).p_value == 1.0
    with pytest.raises(ValueError, match="NaN"):
        signed_rank([np.nan])


def test_the_exact_test_keeps_its_level_under_the_null():
    rng = np.random.default_rng(9)
    p = [signed_rank(rng.choice([-0.5, -0.25, 0.0, 0.25, 0.5], size=40)).p_value for _ in range(1500)]
    assert np.mean(np.asarray(p) <= 0.05) <= 0.065


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_as_the_step_down_procedure_does(p_values, level):
    rejected = set()
    for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - position) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected
