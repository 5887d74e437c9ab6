"""Best of k, chosen by a verifier: what a user gets who samples k programs and keeps one.

The verifier knows only the public tests. It keeps the program that passes most of them; among equals it draws one.
The oracle, which knows the hidden tests, would get max@k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, reach_probability


def selected_at_k(verifier: Sequence[npt.ArrayLike], value: Sequence[npt.ArrayLike], ks: npt.ArrayLike) -> FloatArray:
    """The expected value of the sample that the verifier prefers among k of the n, for each problem.

    ``verifier`` and ``value`` hold one number a sample, P groups of any sizes. The mean is over all k-subsets and, in
    each, over the samples tied for the largest verifier score. In closed form: the best of a subset belongs to a level
    of equal verifier scores with a probability that follows from the level's rank, and by symmetry it is any sample of
    that level with equal probability; so

        selected@k = sum over levels of P(best level = l) * (mean value in l).

    Returns shape (P, K), NaN where k exceeds a problem's samples or a score is NaN (no public tests, no hidden tests).
    """
    ks = np.atleast_1d(np.asarray(ks, dtype=np.int64))
    out = np.full((len(verifier), len(ks)), np.nan)
    reach: dict[int, FloatArray] = {}
    for p, (scores, values) in enumerate(zip(verifier, value, strict=True)):
        scores, values = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if scores.shape != values.shape:
            raise ValueError(f"problem {p} has {scores.shape} verifier scores and {values.shape} values")
        n = len(scores)
        if n == 0 or np.isnan(scores).any() or np.isnan(values).any():
            continue
        if n not in reach:
            reach[n] = reach_probability(n, ks)
        _, level, sizes = np.unique(scores, return_inverse=True, return_counts=True)
        means = np.bincount(level, weights=values) / sizes
        at_or_above = np.concatenate([np.cumsum(sizes[::-1])[::-1], [0]])  # samples at each level or higher
        probability = reach[n][:, at_or_above[:-1]] - reach[n][:, at_or_above[1:]]
        out[p] = probability @ means
    return out
