"""Confidence intervals for means over problems, by the bootstrap.

Problems are resampled, not samples: the question is how the mean would move with other problems of the same kind (and
other samples of them, which a problem's own estimate already carries). The interval is BCa, bias-corrected and
accelerated (Efron, 1987). In simulation over skewed, U-shaped, sparse and binary populations of 96 to 422 problems its
coverage is 94 to 96.5 % for the nominal 95 %, where percentile intervals fall to 90 % on sparse ones;
``tests/evaluation/statistics/test_bootstrap.py`` repeats that simulation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray

RESAMPLES = 4000
_CELLS_PER_CHUNK = 4_000_000  # bounds the memory of the resampling weights to 32 MB


class Interval(NamedTuple):
    """A mean over problems for each column, with its confidence interval. All of shape (K,)."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    problems: IntArray  # how many problems had a value


def mean_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of each column of ``values`` (shape (P, K), one row a problem) and its BCa interval.

    NaN marks a problem without a value in that column; it is left out there. Columns whose NaNs fall on the same
    problems share their resamples, so that curves over k have smooth bands. A column without spread has an interval of
    width 0, one without any value is NaN: the bootstrap can say nothing about problems it has not seen.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values must have shape (problems, columns), not {table.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    present = ~np.isnan(table)
    mean, low, high = (np.full(table.shape[1], np.nan) for _ in range(3))
    patterns, pattern_of = np.unique(present, axis=1, return_inverse=True)
    for index, rows in enumerate(patterns.T):
        columns = np.flatnonzero(pattern_of.reshape(-1) == index)
        if rows.any():
            block = table[np.ix_(rows, columns)]
            mean[columns] = block.mean(axis=0)
            low[columns], high[columns] = _bca(block, mean[columns], confidence, resamples, seed)
    return Interval(mean, low, high, present.sum(axis=0).astype(np.int64))


def _bca(
    block: FloatArray, mean: FloatArray, confidence: float, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """The BCa interval of each column's mean; ``block`` has shape (P, K) and no NaN.

    For a mean, acceleration and bias correction are the same number to the order of BCa, a sixth of the mean's
    skewness. Counting the replicates below the mean instead, as for any other statistic, adds their noise, and rounding
    decides where many of them *are* the mean (values 0 and 1).
    """
    centred = block - mean
    replicates = _replicates(centred, resamples, seed)
    spread = np.sum(centred**2, axis=0)
    flat = spread <= 1e-24 * len(block)  # equal values, but for rounding
    skew = np.sum(centred**3, axis=0) / (6 * np.where(flat, 1.0, spread) ** 1.5)
    tail = (1 - confidence) / 2
    bounds = []
    for quantile in (tail, 1 - tail):
        z = skew + ndtri(quantile)
        level = ndtr(skew + z / (1 - skew * z))
        bound = np.asarray([np.quantile(replicates[:, c], level[c]) for c in range(block.shape[1])])
        bounds.append(mean + np.where(flat, 0.0, bound))
    return bounds[0], bounds[1]


def _replicates(centred: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means of ``resamples`` bootstrap draws, shape (resamples, K), in chunks of bounded memory."""
    problems = len(centred)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS_PER_CHUNK // problems)
    parts = []
    for start in range(0, resamples, chunk):
        weights = rng.multinomial(problems, np.full(problems, 1 / problems), size=min(chunk, resamples - start))
        parts.append(weights @ centred / problems)
    return np.concatenate(parts)
