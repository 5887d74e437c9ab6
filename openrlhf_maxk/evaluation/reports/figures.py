"""Pictures of evaluations, legible in print and without colour vision: colours, markers and dashes all differ.

Matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.scores import METRICS, Metric, Scores, shown_ks

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


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line with this number."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[(index + index // len(COLOURS)) % len(DASHES)],
    }


def plot_curves(
    evaluations: Mapping[str, Scores],
    path: str | os.PathLike[str],
    *,
    metrics: Sequence[Metric] = METRICS,
    ks: npt.ArrayLike | None = None,
    title: str = "",
    confidence: float = 0.95,
) -> None:
    """max@k and pass@k against k (as the paper's Figure 1), with confidence bands.

    The ending of ``path`` decides the format (png, pdf, svg); without an ending a PNG and a PDF are written.
    """
    with figure(path, 3.6 * len(metrics), 3.0, columns=len(metrics)) as (fig, axes):
        for axis, metric in zip(axes, metrics, strict=True):
            draw_curves(axis, evaluations, metric, ks, confidence)
        axes[0].legend(loc="upper left" if len(evaluations) < 4 else "best")
        if title:
            fig.suptitle(title)


def draw_curves(
    axis: Axes,
    evaluations: Mapping[str, Scores],
    metric: Metric,
    ks: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> None:
    """One metric against k, on axes that are already there."""
    ks = shown_ks(evaluations, ks)
    for index, (name, scores) in enumerate(evaluations.items()):
        curve = scores.curve(metric, ks, confidence=confidence)
        style = line_style(index)
        axis.fill_between(ks, curve.low, curve.high, color=style["color"], alpha=0.15, linewidth=0)
        axis.plot(ks, curve.mean, label=name, markersize=4, linewidth=1.4, **style)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ks, [str(k) for k in ks])
    axis.minorticks_off()
    axis.set_xlabel("k")
    axis.set_ylabel(f"{metric}@k")


@contextmanager
def figure(
    path: str | os.PathLike[str], width: float, height: float, *, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Axes to draw on (a flat list); the figure (inches) is saved when the block ends, and never shown.

    The ending of ``path`` decides the format; without one a PNG and a PDF are written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(rows, columns, squeeze=False)
        yield fig, list(axes.flat)
        for target in [path] if Path(path).suffix else [f"{path}.png", f"{path}.pdf"]:
            fig.savefig(target)
            fig.set_layout_engine("none")  # laid out once
