"""The curves of the HTML report: where every line, band and tick of a chart stands, for the template to draw as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from openrlhf_maxk.evaluation.reports.figures import COLOURS, MOST_BANDS, place_beside
from openrlhf_maxk.evaluation.reports.formats import number
from openrlhf_maxk.evaluation.statistics.estimators import IntArray
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 36
DARK_COLOURS = ("#F0F0F0", "#FF8A3D", "#5AB0EC", "#2CC295", "#E6A3CB", "#F0B429", "#A6D8F7")  # on a dark page
DASHES = ("", "7 3", "7 3 1.5 3", "1.5 3", "12 2", "4 2 1.5 2 1.5 2", "1.5 1.5")
MARKERS = (  # around 0, 0
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "M-3 -3h6v6h-6z",
    "M0 -4l4 7h-8z",
    "M0 -4l4 4l-4 4l-4 -4z",
    "M0 4l4 -7h-8z",
    "M-1 -4h2v3h3v2h-3v3h-2v-3h-3v-2h3z",
    "M-4 -2.5l1.5 -1.5l2.5 2.5l2.5 -2.5l1.5 1.5l-2.5 2.5l2.5 2.5l-1.5 1.5l-2.5 -2.5l-2.5 2.5l-1.5 -1.5l2.5 -2.5z",
)


@dataclass(frozen=True)
class Line:
    """One evaluation in a chart."""

    points: list[tuple[float, float]]
    band: str  # the polygon of the intervals; "" where they are bars
    bars: list[tuple[float, float, float]]  # x, and from where to where


@dataclass(frozen=True)
class Chart:
    """One metric. Places are in units of the drawing, WIDTH by HEIGHT."""

    title: str
    shows: str
    labels: list[str]  # the metric at each k
    x: list[float]  # of each k
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    texts: list[list[str]]  # for each evaluation and k, as text


def charts(evaluations: Mapping[str, Scores], metrics: Sequence[str], ks: IntArray) -> list[Chart]:
    """A chart for each metric."""
    return [_chart(evaluations, metric, ks) for metric in metrics]


def style(index: int) -> dict[str, str]:
    """Colours, dashes and marker of the evaluation with this number, the same kinds as in the figures."""
    turn = len(COLOURS)
    return {
        "light": COLOURS[index % turn],
        "dark": DARK_COLOURS[index % turn],
        "dashes": DASHES[(index + index // turn) % len(DASHES)],
        "marker": MARKERS[(index + index // turn) % len(MARKERS)],
    }


def _chart(evaluations: Mapping[str, Scores], metric: str, ks: IntArray) -> Chart:
    curves = [scores.curve(metric, ks) for scores in evaluations.values()]
    bounds = np.asarray([(curve.low, curve.high) for curve in curves])
    ticks = nice_ticks(float(np.nanmin(bounds)), float(np.nanmax(bounds)))
    exponents = np.log2(ks)
    start, end = exponents[0] - 0.4, exponents[-1] + 0.4

    def across(exponent: float) -> float:
        return round(LEFT + (exponent - start) / (end - start) * (WIDTH - LEFT - RIGHT), 2)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM), 2)

    lines = []
    for index, curve in enumerate(curves):
        known = np.flatnonzero(~np.isnan(curve.mean))
        banded = len(curves) <= MOST_BANDS
        x = [across(exponents[c] + (0 if banded else place_beside(index, len(curves)))) for c in known]
        low, high = [[up(float(side[c])) for c in known] for side in (curve.low, curve.high)]
        outline = [*zip(x, low, strict=True), *reversed(list(zip(x, high, strict=True)))]
        lines.append(
            Line(
                points=[(place, up(float(curve.mean[c]))) for place, c in zip(x, known, strict=True)],
                band=" ".join(f"{a},{b}" for a, b in outline) if banded else "",
                bars=[] if banded else list(zip(x, low, high, strict=True)),
            )
        )
    return Chart(
        title=METRICS[metric].label("k"),
        shows=METRICS[metric].shows,
        labels=[METRICS[metric].label(k) for k in ks.tolist()],
        x=[across(exponent) for exponent in exponents],
        x_ticks=[(across(exponent), str(k)) for exponent, k in zip(exponents, ks.tolist(), strict=True)],
        y_ticks=[(up(tick), f"{tick:g}") for tick in ticks],
        lines=lines,
        texts=[[_value(*numbers) for numbers in zip(*curve[:3], strict=True)] for curve in curves],
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers, evenly apart, from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-3)
    unit = 10.0 ** floor(log10(span))
    step = next(factor * unit for factor in (0.2, 0.5, 1, 2) if span / (factor * unit) <= 6)
    first, last = floor(round(low / step, 6)), ceil(round((low + span) / step, 6))
    return [round(step * tick, 10) for tick in range(first, last + 1)]


def _value(mean: float, low: float, high: float) -> str:
    return "-" if np.isnan(mean) else f"{number(mean)} ({number(low)} to {number(high)})"
