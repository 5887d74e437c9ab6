"""Metrics against k, one line a run: the mean over seeds, with bars of a standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openrlhf_maxk.evaluation.reports.figures import figure, label_axes, legend_below, line_style, place_beside
from openrlhf_maxk.experiment.results import Value

_COLUMNS = 3


def plot(found: Sequence[Value], model: str, metrics: Sequence[str], path: Path) -> None:
    """Draw the values of one model."""
    of_model = [value for value in found if value.model == model]
    runs = list(dict.fromkeys(value.run for value in of_model))
    if not runs:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = min(len(metrics), _COLUMNS)
    rows = -(-len(metrics) // columns)
    with figure(path, 3.6 * columns, 3.0 * rows, rows=rows, columns=columns, names=runs) as (fig, axes):
        for axis, metric in zip(axes, metrics, strict=False):
            for index, run in enumerate(runs):
                line = [value for value in of_model if value.run == run and value.metric == metric]
                ks = np.asarray([value.k for value in line])
                beside = ks * 2.0 ** place_beside(index, len(runs))
                spread = [0.0 if np.isnan(value.deviation) else value.deviation for value in line]
                style = {"label": run, "markersize": 4, "linewidth": 1.2, **line_style(index)}
                axis.errorbar(beside, [value.mean for value in line], spread, elinewidth=0.8, capsize=1.5, **style)
            label_axes(axis, metric, ks)
        for axis in axes[len(metrics) :]:
            axis.set_visible(False)
        legend_below(fig, axes[0])
