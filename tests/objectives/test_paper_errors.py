"""Counterexamples to what arXiv:2510.23393 prints, and what is right. The printed forms are written out here only."""

from fractions import Fraction
from math import comb, inf, isnan

import pytest
import torch

from openrlhf_maxk.objectives import exact_weights, first_order_weights, marginal_gain, max_at_k, on_policy_weights

from . import oracle


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def printed_matrix(deltas: torch.Tensor, k: int, vector_for_diagonal: bool) -> torch.Tensor:
    """Listing 3's weights for one group in the order given; matrix[j, i] multiplies r_j in weight i."""
    n = len(deltas)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    choose = lambda a, b: comb(a, b) if min(a, b) >= 0 else 0  # noqa: E731
    lower = deltas.cumsum(0) - deltas
    for j in range(n):
        for i in range(j):
            pair, triple = choose(j - 1, k - 2), choose(j - 2, k - 3)
            matrix[j, i] = pair * (1 + deltas[i] + deltas[j]) + triple * (lower[j] - deltas[i])
        matrix[j, j] = choose(j, k - 1) * deltas[j] + choose(j - 1, k - 2) * lower[j]
    diagonal = torch.tensor([float(comb(j, k - 1)) for j in range(n)], dtype=torch.float64)
    return (matrix + (diagonal if vector_for_diagonal else diagonal.diag())) / comb(n, k)


def test_listing_3_adds_a_vector_where_a_diagonal_is_meant():
    r, ones = row(1, 2), row(1, 1)
    assert (r @ printed_matrix(ones - 1, 2, vector_for_diagonal=True)).tolist() == [2, 3]
    assert (r @ printed_matrix(ones - 1, 2, vector_for_diagonal=False)).tolist() == [2, 2]
    for weights in (first_order_weights(r, ones, 2, "score"), exact_weights(r, ones, 2), on_policy_weights(r, 2)):
        assert weights.tolist() == [2, 2]


def test_listing_3_with_the_diagonal_is_w_prime_of_sorted_groups():
    r, rho = row(-1, 0.5, 0.5, 2, 3), row(1.5, 0.25, 1, 2, 0.75)
    for k in (1, 2, 3, 4, 5):
        mended = r @ printed_matrix(rho - 1, k, vector_for_diagonal=False)
        torch.testing.assert_close(first_order_weights(r, rho, k, "score"), mended)


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_listing_3_contracts_across_prompts(groups):
    """(groups, m) @ (groups, m, m) multiplies every group's rewards with every group's weights."""
    generator = torch.Generator().manual_seed(0)
    r = torch.rand(groups, 4, dtype=torch.float64, generator=generator).sort(-1).values
    rho = torch.rand(groups, 4, dtype=torch.float64, generator=generator) + 0.5
    matrices = torch.stack([printed_matrix(group - 1, 2, vector_for_diagonal=False) for group in rho])
    assert (r @ matrices).shape == (groups, groups, 4)
    each = torch.einsum("gj,gji->gi", r, matrices)
    torch.testing.assert_close(first_order_weights(r, rho, 2, "score"), each)


def test_listing_2_does_not_sort():
    r = row(0.9, 0.1, 0.5, 0.3)
    as_printed = r @ printed_matrix(torch.zeros(4, dtype=torch.float64), 2, vector_for_diagonal=False)
    torch.testing.assert_close(as_printed, row(0.15, 0.15, 1.3 / 6, 0.15))
    torch.testing.assert_close(on_policy_weights(r, 2), row(0.45, 1.7 / 6, 1.9 / 6, 1.7 / 6))


def test_listing_1_overflows_to_zeros_or_nan():
    """C(1030, 515) is inf in float64."""
    n, k = 1030, 515

    def binomial(a, b):
        try:
            return float(comb(a, b))
        except OverflowError:
            return inf

    assert binomial(n, k) == inf
    coefficients = [binomial(i, k - 1) / binomial(n, k) for i in range(n)]
    assert all(value == 0 or isnan(value) for value in coefficients)
    r = torch.arange(n, dtype=torch.float64) / n
    exact = sum(Fraction(comb(i, k - 1) * i, comb(n, k) * n) for i in range(n))
    assert max_at_k(r, k).item() == pytest.approx(float(exact), rel=1e-13)


def test_appendix_e_prose_has_the_wrong_index():
    """C(j−3, k−3) for the deltas of further members, as displayed; C(i−3, k−3), as in its prose, is another number."""
    rewards = [Fraction(value) for value in (0, 0, 0, 0, 1)]
    ratios = [Fraction(value) for value in (1, 2, 1, 1, 1)]
    k, i, j = 4, 3, 5
    displayed, prose = ((comb(j - 2, k - 2) + comb(index - 3, k - 3)) / comb(5, k) for index in (j, i))
    expected = oracle.weights(rewards, ratios, k, oracle.one_plus_deltas, own=True)[i - 1]
    assert float(expected) == displayed != prose
    assert first_order_weights(oracle.tensor(rewards), oracle.tensor(ratios), k, "score")[i - 1].item() == displayed


def test_appendix_a_recursion_differs_from_its_definition():
    """b_i^(k), by definition k times the mean of max r(I) over I∌i, for r = [0, 0, 1] and k = 2."""
    r, n, k = [0, 0, 1], 3, 2
    defined = [k * max(r[l] for l in range(n) if l != i) for i in range(n)]
    own = lambda i: comb(i - 1, k - 1)  # noqa: E731
    pair = lambda j: comb(j - 2, k - 2) if j >= k else 0  # noqa: E731
    factor = lambda i: own(i) + (i - 2) * pair(i + 1)  # noqa: E731
    printed = [sum(factor(i) * r[i - 1] for i in range(2, n + 1)) / comb(n, k)]
    for i in range(1, n):
        printed.append(printed[-1] + (r[i - 1] - r[i]) * factor(i) / comb(n, k))
    assert defined == [2, 2, 0]
    assert printed == pytest.approx([1, 1, 2 / 3])
    # Used for LOO-1 at k + 1 = 3: r̃_i − k'/(n(k'−1)) b_i^(k'−1), with k' = 3.
    rewards = row(*r)
    from_definition = on_policy_weights(rewards, 3) - 3 / (n * 2) * row(*defined)
    torch.testing.assert_close(marginal_gain(rewards, 3), from_definition)
    assert marginal_gain(rewards, 3).tolist() == [0, 0, 1]
