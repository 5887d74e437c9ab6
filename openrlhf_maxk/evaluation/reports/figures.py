"""Pictures of evaluations, legible in print and without colour vision: colours, markers and dashes all differ.

Matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.estimators import IntArray
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores, shown_ks, shown_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common kind of colour blindness; the palest are left out.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


MOST_BANDS = 3  # evaluations; more of them cover each other
NAME_WIDTH = 40  # letters of a name on a line
_LINE = 0.19  # inches
_MOST_COLUMNS = 4


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line with this number: where a colour comes back, both others are new."""
    shifted = index + index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[shifted % len(MARKERS)],
        "linestyle": DASHES[shifted % len(DASHES)],
    }


def plot_curves(
    evaluations: Mapping[str, Scores],
    path: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    ks: npt.ArrayLike | None = None,
    title: str = "",
    confidence: float = 0.95,
) -> None:
    """Metrics against k (max@k and pass@k as the paper's Figure 1), with confidence intervals.

    ``metrics``: those that all evaluations know. The ending of ``path`` decides the format (png, pdf, svg); without an
    ending a PNG and a PDF are written.
    """
    metrics = shown_metrics(evaluations)[0] if metrics is None else metrics
    columns = min(len(metrics), _MOST_COLUMNS)
    rows = -(-len(metrics) // columns)
    with figure(path, 3.6 * columns, 3.0 * rows, rows=rows, columns=columns, names=evaluations) as (fig, axes):
        for axis, metric in zip(axes, metrics, strict=False):
            draw_curves(axis, evaluations, metric, ks, confidence)
        for axis in axes[len(metrics) :]:
            axis.set_visible(False)
        legend_below(fig, axes[0])
        if title:
            fig.suptitle(title)


def draw_curves(
    axis: Axes,
    evaluations: Mapping[str, Scores],
    metric: str,
    ks: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> None:
    """One metric against k, on axes that are already there: with bands, or where those would cover each other with
    bars side by side."""
    ks = shown_ks(evaluations, ks)
    for index, (name, scores) in enumerate(evaluations.items()):
        curve = scores.curve(metric, ks, confidence=confidence)
        style = line_style(index)
        line = {"label": name, "markersize": 4, "linewidth": 1.4, **style}
        if len(evaluations) <= MOST_BANDS:
            axis.fill_between(ks, curve.low, curve.high, color=style["color"], alpha=0.15, linewidth=0)
            axis.plot(ks, curve.mean, **line)
        else:
            beside = ks * 2.0 ** place_beside(index, len(evaluations))
            reach = np.maximum([curve.mean - curve.low, curve.high - curve.mean], 0)
            axis.errorbar(beside, curve.mean, reach, elinewidth=0.8, capsize=1.5, **line)
    label_axes(axis, metric, ks)


def label_axes(axis: Axes, metric: str, ks: IntArray) -> None:
    """A metric against k, in powers of two."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(ks, [str(k) for k in ks])
    axis.minorticks_off()
    axis.set_xlabel("k")
    axis.set_ylabel(METRICS[metric].label("k"))


def place_beside(index: int, count: int) -> float:
    """How far from k this one of several bars stands, in powers of two."""
    return 0.6 * ((index + 0.5) / count - 0.5)


def legend_below(fig: Figure, axis: Axes) -> None:
    """The names of what ``axis`` shows, below everything: never over a curve, however long they are."""
    handles, labels = axis.get_legend_handles_labels()
    fig.legend(handles, [fill(label, NAME_WIDTH) for label in labels], loc="outside lower left")


@contextmanager
def figure(
    path: str | os.PathLike[str],
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    names: Iterable[str] = (),
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Axes to draw on (a flat list); the figure (inches) is saved when the block ends, and never shown.

    The ending of ``path`` decides the format; without one a PNG and a PDF are written. ``names`` adds room for a legend
    of these names below the axes.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        lines = sum(len(fill(name, NAME_WIDTH).splitlines()) for name in names)
        fig = Figure(figsize=(width, height + _LINE * lines), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(rows, columns, squeeze=False)
        yield fig, list(axes.flat)
        for target in [path] if Path(path).suffix else [f"{path}.png", f"{path}.pdf"]:
            fig.savefig(target, bbox_inches="tight", pad_inches=0.05)
            fig.set_layout_engine("none")  # laid out once
