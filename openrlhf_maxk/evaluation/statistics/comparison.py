"""Two or more evaluations of the same problems, paired problem by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from openrlhf_maxk.evaluation.statistics.bootstrap import mean_interval
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores, paired
from openrlhf_maxk.evaluation.statistics.significance import SignedRank, holm, signed_rank

ALL = "all"  # the name of all data sets together
_MARKS = (
    " that all evaluations share. Bold: best; underlined: second best; *: better than the second best by Wilcoxon's "
    "signed-rank test, p < 0.05 after Holm's correction over the columns."
)


@dataclass(frozen=True)
class Comparison:
    """One evaluation against the first one (the baseline), for one metric on one data set."""

    baseline: str
    name: str
    data_set: str
    metric: str
    k: int
    difference: float  # mean over problems: name - baseline
    low: float
    high: float
    test: SignedRank
    adjusted: float  # p-value after Holm's correction over data sets, values of k and evaluations

    @property
    def label(self) -> str:
        return METRICS[self.metric].label(self.k)

    @property
    def significant(self) -> bool:
        return self.adjusted < 0.05


@dataclass(frozen=True, eq=False)
class MarkedTable:
    """Numbers with the marks of the paper's Table 2, column by column."""

    title: str
    columns: tuple[str, ...]  # (C,)
    rows: tuple[str, ...]  # (R,)
    values: FloatArray  # (R, C); NaN is shown as a dash
    best: np.ndarray  # (R, C) bold
    second: np.ndarray  # (R, C) underlined
    star: np.ndarray  # (R, C) best, and significantly above the second best
    note: str = ""


def compare(evaluations: Mapping[str, Scores], metric: str, ks: IntArray) -> list[Comparison]:
    """Every later evaluation against the first, for each data set and k. Holm's correction is over all of them."""
    together = paired(evaluations)
    baseline, *others = together
    estimates = {name: scores.estimates(metric, ks) for name, scores in together.items()}
    found: list[Comparison] = []
    for data_set, rows in data_sets(together).items():
        for name in others:
            differences = (estimates[name] - estimates[baseline])[rows]
            mean, low, high, _ = mean_interval(differences)
            for column, k in enumerate(ks.tolist()):
                of_k = differences[:, column]
                test = signed_rank(of_k[~np.isnan(of_k)])
                numbers = float(mean[column]), float(low[column]), float(high[column])
                found.append(Comparison(baseline, name, data_set, metric, k, *numbers, test, test.p_value))
    adjusted = holm([comparison.test.p_value for comparison in found])
    return [replace(comparison, adjusted=p) for comparison, p in zip(found, adjusted, strict=True)]


class Column(NamedTuple):
    """What a column of a marked table shows."""

    head: str
    metric: str
    k: int
    rows: list[int]  # the problems, as positions among those that are shared


def over_all(evaluations: Mapping[str, Scores], wanted: Sequence[tuple[str, int]], title: str) -> MarkedTable:
    """Evaluations by metrics at values of k, over all problems that they share; marked as :func:`by_data_set`."""
    every = list(range(len(next(iter(paired(evaluations).values())))))
    return _marked(evaluations, title, [Column(METRICS[metric].label(k), metric, k, every) for metric, k in wanted])


def by_data_set(evaluations: Mapping[str, Scores], metric: str, k: int) -> MarkedTable:
    """The paper's Table 2 (or 3): evaluations by data sets, at one k, on the problems that all of them share.

    Bold is the best of a column, underlined the second best. A star says that the best is significantly better than
    the second best by Wilcoxon's signed-rank test (p < 0.05 after Holm's correction over the columns).
    """
    sets = data_sets(paired(evaluations))
    columns = [Column(name, metric, k, rows) for name, rows in sets.items()]
    return _marked(evaluations, METRICS[metric].label(k), columns)


def _marked(evaluations: Mapping[str, Scores], title: str, columns: Sequence[Column]) -> MarkedTable:
    together = paired(evaluations)
    values = np.full((len(together), len(columns)), np.nan)
    p_values = np.ones(len(columns))
    for c, column in enumerate(columns):
        estimates = np.stack([scores.estimates(column.metric, [column.k])[:, 0] for scores in together.values()])
        estimates = estimates[:, column.rows]
        estimates = estimates[:, ~np.isnan(estimates).any(axis=0)]
        if estimates.shape[1]:
            values[:, c] = estimates.mean(axis=1)
            if len(together) > 1:
                first, second = np.argsort(-values[:, c], kind="stable")[:2]
                p_values[c] = signed_rank(estimates[first] - estimates[second]).p_value
    best, second_best = ranked(values)
    star = best & (np.asarray(holm(p_values.tolist())) < 0.05) & (best.sum(axis=0) == 1)
    return MarkedTable(
        title=title,
        columns=tuple(column.head for column in columns),
        rows=tuple(together),
        values=values,
        best=best,
        second=second_best,
        star=star,
        note=f"{len(next(iter(together.values())))} problems" + (_MARKS if len(together) > 1 else "."),
    )


def curve_table(evaluations: Mapping[str, Scores], metric: str, ks: IntArray, title: str) -> MarkedTable:
    """The paper's Tables 5 to 14: evaluations by values of k."""
    values = np.stack([scores.curve(metric, ks).mean for scores in evaluations.values()])
    best, second = ranked(values)
    columns = tuple(METRICS[metric].label(k) for k in ks)
    return MarkedTable(title, columns, tuple(evaluations), values, best, second, np.zeros_like(best))


def ranked(values: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    """Which entries (R, C) are the best and the second best of their column; equal values share a place, and of one
    row none is the best."""
    filled = np.where(np.isnan(values), -np.inf, np.round(values, 9))
    best = (filled == filled.max(axis=0)) & ~np.isnan(values) & (len(values) > 1)
    rest = np.where(best, -np.inf, filled)
    second = (rest == rest.max(axis=0)) & np.isfinite(rest)
    second &= best.sum(axis=0) == 1
    return best, second


def only_found_by(evaluations: Mapping[str, Scores]) -> dict[str, list[str]]:
    """For each evaluation, the shared problems that it alone solves with some sample."""
    together = paired(evaluations)
    solved = np.stack([scores.correct_counts > 0 for scores in together.values()])
    alone = solved & (solved.sum(axis=0) == 1)
    ids: Sequence[str] = next(iter(together.values())).ids
    return {name: [ids[p] for p in np.flatnonzero(row)] for name, row in zip(together, alone, strict=True)}


def data_sets(together: Mapping[str, Scores]) -> dict[str, list[int]]:
    """The positions of each data set's problems, and of all if there are several data sets."""
    first = next(iter(together.values()))
    sets: dict[str, list[int]] = {}
    for position, source in enumerate(first.sources):
        sets.setdefault(source or ALL, []).append(position)
    return sets | {ALL: list(range(len(first)))} if len(sets) > 1 else sets
