"""The curves over k, as data: every table, figure, comparison and file goes by this list.

Each says what k samples are worth in one way of using them. All are unbiased, the mean over all k-subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray, max_at_k, pass_at_k
from openrlhf_maxk.evaluation.statistics.selection import selected_at_k
from openrlhf_maxk.evaluation.statistics.strategies import g_pass_at_k, majority_at_k

NO_ANSWER, UNKNOWN = -1, -2  # in place of an answer's number: the sample gives none; it is not known
SHARE = 0.5  # of k samples that G-Pass@k wants to be correct


class Columns(NamedTuple):
    """What is known of the samples of P problems: one array a problem, one number a sample."""

    rewards: list[FloatArray]
    correct: list[npt.NDArray[np.bool_]]
    public: list[FloatArray]  # share of the public tests passed; NaN where it is not known
    answers: list[IntArray]  # equal numbers mean equal answers; NO_ANSWER, UNKNOWN


@dataclass(frozen=True)
class Metric:
    """One curve."""

    name: str  # in files
    pattern: str  # for people, with {} in the place of k
    shows: str
    estimate: Callable[[Columns, IntArray], FloatArray]  # (P, K); NaN where k exceeds the samples, or it is not known
    needs: str = ""  # what some problems or sample files do not have

    def label(self, k: int | str) -> str:
        """As in "max@8"."""
        return self.pattern.format(k)


def _pass(columns: Columns, ks: IntArray, *, wrong: bool = False) -> FloatArray:
    counts = [np.sum(~group if wrong else group) for group in columns.correct]
    sizes = [len(group) for group in columns.correct]
    return pass_at_k(np.asarray(counts, dtype=np.int64), np.asarray(sizes, dtype=np.int64), ks)


def _maj(columns: Columns, ks: IntArray) -> FloatArray:
    known = [p for p, answers in enumerate(columns.answers) if not np.any(answers == UNKNOWN)]
    out = np.full((len(columns.answers), len(ks)), np.nan)
    if known:
        answers = [[None if a == NO_ANSWER else a for a in columns.answers[p].tolist()] for p in known]
        out[known] = majority_at_k([columns.rewards[p] for p in known], answers, ks)
    return out


_ALL = (
    Metric("max", "max@{}", "the best reward of k", lambda c, ks: max_at_k(c.rewards, ks)),
    Metric("pass", "pass@{}", "whether one of k is correct", _pass),
    Metric(
        "selected",
        "selected@{}",
        "the reward of the one of k that passes most public tests (among equals one is drawn)",
        lambda c, ks: selected_at_k(c.public, c.rewards, ks),
        needs="public tests",
    ),
    Metric(
        "gap",
        "gap@{}",
        "the reward of that one, less what it gets for public tests alone: below 0, they promise too much",
        lambda c, ks: selected_at_k(c.public, [r - p for r, p in zip(c.rewards, c.public, strict=True)], ks),
        needs="public tests",
    ),
    Metric(
        "maj",
        "maj@{}",
        "the reward of the answer that most of k give (for programs: their outputs on all tests' inputs)",
        _maj,
        needs="answers",
    ),
    Metric("min", "min@{}", "the worst reward of k", lambda c, ks: 0.0 - max_at_k([-group for group in c.rewards], ks)),
    Metric("pass_hat", "pass^{}", "whether all of k are correct", lambda c, ks: 1 - _pass(c, ks, wrong=True)),
    Metric(
        "g_pass",
        f"G-Pass@{{}}_{SHARE:g}",
        f"whether at least {SHARE:.0%} of k are correct",
        lambda c, ks: g_pass_at_k(c.correct, ks, SHARE),
    ),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
MAIN = ("max", "pass")  # the paper's


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}: known are {', '.join(METRICS)}")
    return METRICS[name]
