"""Whether two models differ: Wilcoxon's signed-rank test on problems, effect sizes, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray

EXACT_UP_TO = 200  # differing problems; beyond, the normal approximation agrees to three digits
_DECIMALS = 9  # smaller differences are rounding, and count as none


class SignedRank(NamedTuple):
    """The outcome of the test."""

    p_value: float  # two-sided; 1 if no problem differs
    rank_biserial: float  # (W+ - W-) / (W+ + W-), in [-1, 1]: the matched-pairs effect size; 0 if no problem differs
    differing: int  # problems that differ
    problems: int  # all of them
    exact: bool  # from the exact distribution; else from the normal approximation


def signed_rank(differences: npt.ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test of paired differences (shape (P,), no NaN) against a median of 0.

    Problems without a difference are left out (Wilcoxon's own treatment of zeros). Equal absolute differences share
    their mean rank. With up to 200 differing problems the p-value is exact *given* these ranks, ties included: the
    distribution of W+ over all signs. Beyond that it is the normal approximation with the corrections for ties and
    continuity, from scipy.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError("the differences must be one number a problem, without NaN")
    rounded = np.round(values, _DECIMALS)
    nonzero = rounded[rounded != 0]
    n = len(nonzero)
    if n == 0:
        return SignedRank(1.0, 0.0, 0, len(values), True)
    ranks = rankdata(np.abs(nonzero))
    positive, total = ranks[nonzero > 0].sum(), ranks.sum()
    effect = float((2 * positive - total) / total)
    exact = n <= EXACT_UP_TO
    if exact:
        p_value = _exact_p_value(ranks, positive)
    else:
        p_value = float(wilcoxon(nonzero, method="asymptotic", correction=True).pvalue)
    return SignedRank(p_value, effect, n, len(values), exact)


def _exact_p_value(ranks: FloatArray, positive: float) -> float:
    """P(W+ is as far from its mean as ``positive``, or farther), each sign being + or - with probability 1/2."""
    doubled = np.rint(2 * ranks).astype(np.int64)  # mean ranks are halves
    total = int(doubled.sum())
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    for rank in doubled:
        probability[rank:] = 0.5 * (probability[rank:] + probability[: total + 1 - rank])
        probability[:rank] *= 0.5
    extreme = max(round(2 * positive), total - round(2 * positive))
    return float(min(1.0, 2 * probability[extreme:].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in the order given, that keep the chance of any false discovery
    in the family below the level they are compared with."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted.tolist()
