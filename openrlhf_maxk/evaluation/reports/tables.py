"""Tables for the terminal: the curves of one or more evaluations, with confidence intervals, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from openrlhf_maxk.evaluation.reports.formats import number, signed
from openrlhf_maxk.evaluation.statistics.comparison import Comparison, compare, data_sets
from openrlhf_maxk.evaluation.statistics.estimators import IntArray
from openrlhf_maxk.evaluation.statistics.metrics import MAIN, METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores, paired, shown_ks, shown_metrics

_FEW = 3  # values of k for all but the main metrics: files have all of them


def metric_table(
    evaluations: Mapping[str, Scores],
    metrics: Sequence[str],
    ks: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Table:
    """One row for each metric and k, one column for each evaluation: the mean over problems and its interval.

    A cell that some problems have too few samples for, or no public tests, says how many problems it rests on.
    """
    table = Table("", *(_head(name) for name in evaluations))
    for metric in metrics:
        of_metric = rows_of(metric, shown_ks(evaluations, ks))
        curves = [scores.curve(metric, of_metric, confidence=confidence, seed=seed) for scores in evaluations.values()]
        sizes = [len(scores) for scores in evaluations.values()]
        for row, k in enumerate(of_metric.tolist()):
            cells = [_cell(*(a[row] for a in curve), of=of) for curve, of in zip(curves, sizes, strict=True)]
            table.add_row(METRICS[metric].label(k), *cells, end_section=row + 1 == len(of_metric))
    return table


def difference_table(
    evaluations: Mapping[str, Scores], metrics: Sequence[str], ks: npt.ArrayLike | None = None
) -> Table:
    """Every later evaluation against the first, on all problems that they share: the mean difference and its interval.

    The interval comes from the differences problem by problem, so it is narrower than those of two curves suggest. A
    star says what it says in the report: p < 0.05 after Holm's correction.
    """
    baseline, *others = evaluations
    table = Table("", *(_head(name) for name in others), title=f"differences from {baseline}", title_justify="left")
    *_, everything = data_sets(paired(evaluations))
    for metric in metrics:
        all_ks = shown_ks(evaluations, ks)
        found = {(c.k, c.name): c for c in compare(evaluations, metric, all_ks) if c.data_set == everything}
        of_metric = rows_of(metric, all_ks).tolist()
        for k in of_metric:
            cells = [_difference(found[k, name]) for name in others]
            table.add_row(METRICS[metric].label(k), *cells, end_section=k == of_metric[-1])
    return table


def rows_of(metric: str, ks: IntArray) -> IntArray:
    """The values of k that a table on the terminal has: all of the main metrics, a few of the others."""
    if metric in MAIN or len(ks) <= _FEW:
        return ks
    return ks[np.unique(np.linspace(1, len(ks) - 1, _FEW).round().astype(int))]  # at k = 1 they say nothing new


def print_tables(
    evaluations: Mapping[str, Scores], ks: npt.ArrayLike | None = None, *, console: Console | None = None
) -> None:
    """Print the curves and their differences, and what the numbers rest on."""
    console = console or Console()
    metrics, left_out = shown_metrics(evaluations)
    console.print(metric_table(evaluations, metrics, ks))
    for metric in metrics:
        console.print(f"{METRICS[metric].label('k')}: {METRICS[metric].shows}", style="dim", highlight=False)
    console.print("means over problems with their 95 % confidence intervals", style="dim", highlight=False)
    if len(evaluations) > 1:
        console.print(difference_table(evaluations, metrics, ks))
        console.print(
            "mean differences problem by problem with their 95 % confidence intervals; * p < 0.05 by Wilcoxon's "
            "signed-rank test, after Holm's correction over the data sets, values of k and evaluations of one metric",
            style="dim",
            highlight=False,
        )
    for sentence in left_out:
        console.print(sentence, highlight=False)
    for name, scores in evaluations.items():
        console.print(f"{name}: {summary(scores)}", highlight=False, markup=False)
    if len({frozenset(scores.ids) for scores in evaluations.values()}) > 1:
        shared = len(next(iter(paired(evaluations).values())))
        console.print(f"they are not of the same problems: differences and tests use the {shared} that all share")


def summary(scores: Scores) -> str:
    """How many problems and samples there are, and how many samples could not be executed."""
    sizes = scores.samples
    samples = f"{sizes.min()}" if len(sizes) and sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    text = f"{len(scores)} problems, {samples} samples each"
    lost = int(scores.unscored.sum())
    return text + (f"; {lost} samples not scored (infrastructure errors), left out" if lost else "")


def _cell(mean: float, low: float, high: float, problems: int, *, of: int) -> str:
    if np.isnan(mean):
        return "-"
    note = "" if problems == of else f" ({problems} of {of})"
    between = " to " if number(low).startswith("-") else "-"
    return f"{number(mean)} [dim]{number(low)}{between}{number(high)}[/dim]{note}"


def _difference(comparison: Comparison) -> str:
    c = comparison
    if np.isnan(c.difference):
        return "-"
    star = "*" if c.significant else " "
    style = "default" if not c.significant else "green" if c.difference > 0 else "red"
    return f"[{style}]{signed(c.difference)}{star}[/{style}] [dim]{signed(c.low)} to {signed(c.high)}[/dim]"


def _head(name: str) -> Column:
    return Column(Text(name, overflow="fold"), justify="right")
