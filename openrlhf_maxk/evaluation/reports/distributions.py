"""Pictures of what lies behind the means: entropies, how many samples solve a problem, tables as heat maps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from textwrap import fill

import numpy as np

from openrlhf_maxk.evaluation.reports.figures import MOST_BANDS, NAME_WIDTH, figure, legend_below, line_style
from openrlhf_maxk.evaluation.reports.formats import number
from openrlhf_maxk.evaluation.statistics.comparison import MarkedTable
from openrlhf_maxk.evaluation.statistics.diversity import solved_by
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray
from openrlhf_maxk.evaluation.statistics.scores import Scores

_BINS = 40
_LETTER = 0.095  # inches, of a column's head


def plot_entropy(evaluations: Mapping[str, Scores], path: str | os.PathLike[str]) -> bool:
    """The distribution of the samples' mean token entropy, as the paper's Figure 2. Returns whether there was one to
    draw: nothing is written where no evaluation knows entropies."""
    known = {}
    for name, scores in evaluations.items():
        if scores.details is not None and not np.isnan(scores.details.entropy).all():
            known[name] = scores.details.entropy[~np.isnan(scores.details.entropy)]
    if not known:
        return False
    highest = max(float(np.quantile(values, 0.995)) for values in known.values())
    bins = np.linspace(0, max(highest, 1e-3), _BINS + 1)
    with figure(path, 4.6, 3.0, names=known) as (fig, (axis,)):
        for index, (name, values) in enumerate(known.items()):
            style = line_style(index)
            share = np.full(len(values), 1 / len(values))
            hist = {"bins": bins, "weights": share, "color": style["color"]}
            if len(known) <= MOST_BANDS:
                axis.hist(np.minimum(values, bins[-1]), **hist, histtype="stepfilled", alpha=0.15)
            label = f"{name} (mean {values.mean():.3f})"
            axis.hist(
                np.minimum(values, bins[-1]),
                **hist,
                histtype="step",
                linestyle=style["linestyle"],
                linewidth=1.4,
                label=label,
            )
        axis.set_xlabel("mean token entropy of a sample (nats)")
        axis.set_ylabel("share of samples")
        axis.set_xlim(0, bins[-1])
        legend_below(fig, axis)
    return True


def plot_solved_by(evaluations: Mapping[str, Scores], path: str | os.PathLike[str]) -> None:
    """How many problems at least c of a problem's samples solve, against c. The leftmost point is pass@n."""
    with figure(path, 4.6, 3.0, names=evaluations) as (fig, (axis,)):
        for index, (name, scores) in enumerate(evaluations.items()):
            shares = solved_by(scores)
            style = line_style(index) | {"marker": "none"}
            axis.step(np.arange(1, len(shares) + 1), shares, where="mid", label=name, linewidth=1.4, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("correct samples of a problem, at least")
        axis.set_ylabel("share of problems")
        axis.set_ylim(bottom=0)
        legend_below(fig, axis)


def shades(values: FloatArray) -> FloatArray:
    """Where each entry (R, C) lies between the lowest and the highest of its column, 0 to 1; NaN where it is NaN.

    Numbers that read the same in three digits have the same shade.
    """
    values = np.round(values, 3)
    low = np.min(values, axis=0, where=~np.isnan(values), initial=np.inf)
    high = np.max(values, axis=0, where=~np.isnan(values), initial=-np.inf)
    return (values - low) / np.where(high > low, high - low, 1.0)


def plot_heat_table(table: MarkedTable, path: str | os.PathLike[str]) -> None:
    """A table whose cells are the darker the higher they are within their column, as the paper's Tables 5 to 14."""
    rows, columns = table.values.shape
    names = [fill(name, NAME_WIDTH) for name in table.rows]
    lines = [line for name in names for line in name.splitlines()]
    label_width = 0.1 * max(map(len, lines)) + 0.2
    shade = shades(table.values)
    width = columns * _LETTER * max(8, *map(len, table.columns)) + label_width
    height = rows * max(0.32, 0.16 * len(lines) / rows + 0.16) + 0.75
    with figure(path, width, height) as (_, (axis,)):
        axis.imshow(shade, cmap="Blues", vmin=-0.1, vmax=2.2, aspect="auto")  # dark text stays legible on all
        axis.set_xticks(range(columns), table.columns)
        axis.set_yticks(range(rows), names)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        axis.set_title(table.title, pad=10)
        for r in range(rows):
            for c in range(columns):
                weight = "bold" if table.best[r, c] else "normal"
                axis.text(c, r, number(table.values[r, c]), ha="center", va="center", fontsize=8, fontweight=weight)
