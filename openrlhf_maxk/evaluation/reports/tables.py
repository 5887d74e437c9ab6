"""Tables for the terminal: max@k and pass@k of one or more evaluations, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from openrlhf_maxk.evaluation.statistics.bootstrap import mean_interval
from openrlhf_maxk.evaluation.statistics.scores import METRICS, Metric, Scores, paired, shown_ks


def metric_table(
    evaluations: Mapping[str, Scores],
    metric: Metric,
    ks: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Table:
    """One row for each k, one column for each evaluation: the mean over problems and its confidence interval.

    With two evaluations a last column gives the difference on the problems they share. Its interval comes from the
    differences problem by problem, so it is narrower than the two intervals beside it suggest; a difference whose
    interval does not contain 0 is marked with ``*``. A cell that some problems have too few samples for says how many
    problems it rests on.
    """
    ks = shown_ks(evaluations, ks)
    table = Table()
    table.add_column("", justify="right")
    columns = []
    for name, scores in evaluations.items():
        table.add_column(name, justify="right")
        interval = scores.curve(metric, ks, confidence=confidence, seed=seed)
        columns.append([_cell(*values, of=len(scores)) for values in zip(*interval, strict=True)])
    if len(evaluations) == 2:
        table.add_column("difference", justify="right")
        before, after = (scores.estimates(metric, ks) for scores in paired(evaluations).values())
        interval = mean_interval(after - before, confidence=confidence, seed=seed)
        columns.append([_difference(*values) for values in zip(*interval, strict=True)])
    for row, k in enumerate(ks):
        table.add_row(f"{metric}@{k}", *(column[row] for column in columns))
    return table


def print_tables(
    evaluations: Mapping[str, Scores], ks: npt.ArrayLike | None = None, *, console: Console | None = None
) -> None:
    """Print the max@k and the pass@k table, and what the numbers rest on."""
    console = console or Console()
    for metric in METRICS:
        console.print(metric_table(evaluations, metric, ks))
    console.print("means over problems with their 95 % confidence intervals", style="dim", highlight=False)
    for name, scores in evaluations.items():
        console.print(f"{name}: {summary(scores)}", highlight=False)
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
    return f"{_number(mean)} [dim]{_number(low)}-{_number(high)}[/dim]{note}"


def _difference(mean: float, low: float, high: float, problems: int) -> str:
    if np.isnan(mean):
        return "-"
    star = "*" if low > 0 or high < 0 else " "
    style = "green" if low > 0 else "red" if high < 0 else "default"
    return f"[{style}]{mean:+.3f}{star}[/{style}] [dim]{low:+.3f} to {high:+.3f}[/dim]"


def _number(value: float) -> str:
    return f"{value:.3f}"
