"""Unbiased estimates of pass@k and max@k from n samples of a problem, in NumPy.

Both rest on one quantity: the probability that k samples, drawn without replacement from n, contain at least one of c
chosen ones. It is pass@k of c correct samples (Chen et al., 2021, eq. 1), and max@k is a sum of it over the steps
between sorted rewards: a level is reached when one of the samples at or above it is drawn.

    max@k = r_(1) + sum_i (r_(i+1) - r_(i)) * reach(n, n - i, k)

This equals the paper's sum over C(i-1, k-1) / C(n, k) * r_(i) (appendix C.1), never overflows, and is exact where all
rewards are equal. A problem with fewer than k samples has no unbiased estimate: its value is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def powers_of_two(limit: int) -> IntArray:
    """1, 2, 4, ... up to ``limit``: the values of k that the paper reports. Shape (K,)."""
    if limit < 1:
        raise ValueError(f"the largest k must be at least 1, not {limit}")
    return np.asarray([1 << e for e in range(int(limit).bit_length())], dtype=np.int64)


def reach_probability(n: int, ks: npt.ArrayLike) -> FloatArray:
    """1 - C(n-c, k) / C(n, k) for every c = 0..n, as a product that never overflows.

    Returns shape (K, n + 1); row k is NaN where k > n. The first column is exactly 0, and columns with n - c < k are
    exactly 1.
    """
    k = checked_ks(ks)[:, None].astype(np.float64)
    remaining = np.arange(n, 0, -1, dtype=np.float64)  # n - c + 1 for c = 1..n
    factors = np.maximum(remaining - k, 0.0) / remaining
    missed = np.concatenate([np.ones((len(k), 1)), np.cumprod(factors, axis=1)], axis=1)
    return np.where(k > n, np.nan, 1.0 - missed)


def pass_at_k(correct: npt.ArrayLike, samples: npt.ArrayLike, ks: npt.ArrayLike) -> FloatArray:
    """pass@k of each problem from its number of correct samples (integers, shape (P,)) among ``samples`` (shape (P,)
    or one number for all).

    Returns shape (P, K), NaN where k exceeds a problem's samples.
    """
    ks = checked_ks(ks)
    correct = _checked_counts("correct", correct)
    samples = np.broadcast_to(_checked_counts("samples", samples), correct.shape)
    if np.any(correct > samples):
        p = int(np.argmax(correct > samples))
        raise ValueError(f"problem {p} has {correct[p]} correct samples among only {samples[p]}")
    out = np.empty((len(correct), len(ks)))
    for n in np.unique(samples):
        rows = samples == n
        out[rows] = reach_probability(int(n), ks).T[correct[rows]]
    return out


def max_at_k(rewards: Sequence[npt.ArrayLike] | FloatArray, ks: npt.ArrayLike) -> FloatArray:
    """max@k of each problem: the mean over all k-subsets of its samples of the largest reward.

    ``rewards``: shape (P, n), or P one-dimensional groups whose sizes may differ; any finite numbers, in any order.
    Returns shape (P, K), NaN where k exceeds a problem's samples.
    """
    ks = checked_ks(ks)
    sizes, together = by_size(rewards)
    out = np.full((len(sizes), len(ks)), np.nan)
    for rows, group in together:
        n = group.shape[1]
        ordered = np.sort(group, axis=1)
        steps = np.diff(ordered, axis=1)  # step i leads to a level that n - i samples reach
        reach = reach_probability(n, ks)[:, n - 1 : 0 : -1]
        out[rows] = ordered[:, :1] + steps @ reach.T
        out[np.ix_(rows, ks > n)] = np.nan
    return out


def by_size(
    rewards: Sequence[npt.ArrayLike] | FloatArray,
) -> tuple[IntArray, list[tuple[npt.NDArray[np.intp], FloatArray]]]:
    """The sizes of P groups, and for every size but 0 which groups have it, with their rewards, (groups, n).

    Raises:
        ValueError: a group that is not one-dimensional; a reward that is not finite.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in rewards]
    for p, group in enumerate(groups):
        if group.ndim != 1:
            raise ValueError(f"the rewards of problem {p} have shape {group.shape}; one number a sample is needed")
        if not np.all(np.isfinite(group)):
            raise ValueError(f"problem {p} has a reward that is not a finite number; leave unscored samples out")
    sizes = np.asarray([len(group) for group in groups], dtype=np.int64)
    same = [np.flatnonzero(sizes == n) for n in np.unique(sizes[sizes > 0])]
    return sizes, [(rows, np.stack([groups[p] for p in rows])) for rows in same]


def checked_ks(ks: npt.ArrayLike) -> IntArray:
    """One or more k as integers, shape (K,).

    Raises:
        ValueError: if one is no integer from 1 on.
    """
    array = np.atleast_1d(np.asarray(ks))
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or np.any(array < 1):
        raise ValueError(f"ks must be positive integers, not {ks!r}")
    return array.astype(np.int64)


def _checked_counts(name: str, counts: npt.ArrayLike) -> IntArray:
    array = np.atleast_1d(np.asarray(counts))
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or np.any(array < 0):
        raise ValueError(f"{name} must be non-negative integers, one a problem, not {counts!r}")
    return array.astype(np.int64)
