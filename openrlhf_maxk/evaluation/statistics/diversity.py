"""How different the samples of a problem are, and how they fail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, reach_probability
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores
from openrlhf_maxk.problems.verdict import Verdict

NO_PROGRAM = "no program"
NONE = -1  # the number of a sample without a program, in Details.programs and Details.behaviours


def distinct_at_k(kinds: list[npt.NDArray], ks: npt.ArrayLike) -> FloatArray:
    """The expected number of different kinds among k of each problem's n samples (rarefaction).

    ``kinds`` holds a number a sample, equal for samples of one kind, P groups; negative numbers count for nothing. A
    kind with m samples is met with the probability that k samples contain one of m. Counts at the same k compare even
    where n differs. Returns shape (P, K), NaN where k exceeds a problem's samples.
    """
    ks = np.atleast_1d(np.asarray(ks, dtype=np.int64))
    out = np.full((len(kinds), len(ks)), np.nan)
    reach: dict[int, FloatArray] = {}
    for p, group in enumerate(kinds):
        n = len(group)
        if n == 0:
            continue
        if n not in reach:
            reach[n] = reach_probability(n, ks)
        _, counts = np.unique(group[group >= 0], return_counts=True)
        out[p] = reach[n][:, counts].sum(axis=1)
        out[p, ks > n] = np.nan
    return out


def verdict_shares(details: Details) -> dict[str, float]:
    """The share of each verdict among all tests, where a sample without a program counts as failing each test for the
    reason "no program". Every sample has the same weight, however many tests its problem has."""
    tests = details.verdicts.sum(axis=1)
    with_program = tests > 0
    if not len(tests):
        return {}
    shares = details.verdicts[with_program] / tests[with_program, None]
    result = {str(verdict): float(shares[:, v].sum() / len(tests)) for v, verdict in enumerate(Verdict)}
    result[NO_PROGRAM] = float(1 - with_program.mean())
    return {name: share for name, share in result.items() if share > 0}


def solved_by(scores: Scores) -> FloatArray:
    """The share of problems that at least c of the n samples solve, for c = 1..n; n is the fewest any problem has.

    A problem with more than n samples counts with the probability that n of them, drawn at random, hold c correct
    ones. Returns shape (n,).
    """
    from scipy.stats import hypergeom

    n = scores.largest_k
    needed = np.arange(1, n + 1)
    counts, samples = scores.correct_counts[:, None], scores.samples[:, None]
    return hypergeom.sf(needed - 1, samples, counts, n).mean(axis=0)
