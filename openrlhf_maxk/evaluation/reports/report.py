"""What a comparison leaves behind: tables, figures, and one HTML page that holds everything."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.reports import charts, formats
from openrlhf_maxk.evaluation.reports.distributions import plot_entropy, plot_heat_table, plot_solved_by, shades
from openrlhf_maxk.evaluation.reports.figures import plot_curves
from openrlhf_maxk.evaluation.reports.findings import findings
from openrlhf_maxk.evaluation.reports.paper import known_data_set, paper_curves
from openrlhf_maxk.evaluation.scoring.loading import Evaluated
from openrlhf_maxk.evaluation.statistics.bootstrap import mean_interval
from openrlhf_maxk.evaluation.statistics.comparison import (
    Comparison,
    MarkedTable,
    by_data_set,
    compare,
    curve_table,
    over_all,
    ranked,
)
from openrlhf_maxk.evaluation.statistics.diversity import verdict_shares
from openrlhf_maxk.evaluation.statistics.estimators import IntArray
from openrlhf_maxk.evaluation.statistics.metrics import MAIN, METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores, difficulty_key, shown_ks, shown_metrics
from openrlhf_maxk.evaluation.statistics.significance import EXACT_UP_TO
from openrlhf_maxk.evaluation.statistics.summary import ORACLE, SELECTED, detail_curves
from openrlhf_maxk.problems.atomic import new_folder

REPORT = "report.html"
Groups = dict[str, list[list[str]]]  # the rows of a table by the title above them; "" has none
_SECTIONS = [
    ("best", "Best of k"),
    ("differences", "Differences"),
    ("sets", "Data sets"),
    ("difficulty", "Difficulty"),
    ("verifier", "Verifier"),
    ("diversity", "Diversity"),
    ("only", "Only one solves"),
    ("settings", "Settings"),
]


def write_comparison(
    evaluations: Mapping[str, Evaluated], out: Path, ks: IntArray | None = None, *, paper: bool = False
) -> list[list[Comparison]]:
    """Compare evaluations and write everything into the folder ``out``, all or nothing. The first is the baseline.

    ``paper`` puts the paper's numbers beside those of data sets that the paper has. Returns the comparisons, one list
    for each metric.

    Raises:
        ValueError: there is no common problem, or not enough samples for a k.
    """
    scores = {name: evaluated.scores for name, evaluated in evaluations.items()}
    ks = shown_ks(scores, ks)
    metrics, left_out = shown_metrics(scores)
    curves = charts.charts(scores, metrics, ks)
    comparisons = [compare(scores, metric, ks) for metric in metrics] if len(scores) > 1 else []
    data_sets = _data_sets(scores)
    main_tables = [over_all(scores, _columns(metrics, ks), "all problems")]
    if len(data_sets) > 1:
        main_tables += [by_data_set(scores, metric, k) for metric in MAIN for k in _ends(ks)]
    heats = {
        _file_name(f"{name}_{metric}"): _curve_table(of_set, metric, ks, name, paper)
        for name, of_set in data_sets.items()
        for metric in metrics
    }
    with new_folder(out) as folder:
        figures = _draw(folder, scores, metrics, ks, heats)
        _write_tables(folder, scores, metrics, ks, main_tables + list(heats.values()), comparisons)
        context = {
            "title": _title(scores),
            "overview": {"": [_overview(evaluated) for evaluated in evaluations.values()]},
            "main_tables": main_tables,
            "metrics": [METRICS[metric] for metric in metrics],
            "left_out": left_out,
            "charts": curves,
            "size": charts,
            "runs": [{"name": name, **charts.style(index)} for index, name in enumerate(scores)],
            "figures": figures,
            "baseline": next(iter(scores)),
            "comparisons": [_compared(of_metric) for of_metric in comparisons],
            "comparison_head": formats.COMPARISON_HEAD[3:],
            "exact_up_to": EXACT_UP_TO,
            "data_sets": [
                {
                    "name": name,
                    "problems": len(next(iter(of_set.values()))),
                    "main": [_heat(heats[_file_name(f"{name}_{metric}")]) for metric in MAIN],
                    "others": [
                        _heat(heats[_file_name(f"{name}_{metric}")]) for metric in metrics if metric not in MAIN
                    ],
                }
                for name, of_set in data_sets.items()
            ],
            "paper_shown": any(row.startswith("paper:") for table in heats.values() for row in table.rows),
            **_difficulties(scores, _columns(metrics, ks)),
            **_details(scores, ks),
            "found": findings(evaluations) if len(scores) > 1 else {},
            "settings": {name: json.dumps(e.settings, indent=2) for name, e in evaluations.items()},
            "number": formats.number,
        }
        (folder / REPORT).write_text(_render(context), encoding="utf-8")
    return comparisons


def _title(names: Iterable[str]) -> str:
    first, *others = names
    if not others:
        return f"Evaluation of {first}"
    return f"{others[0]} against {first}" if len(others) == 1 else f"{len(others)} evaluations against {first}"


def _grouped(rows: Iterable[tuple[str, list[str]]]) -> Groups:
    """The rows of each title, in order of first appearance."""
    groups: Groups = {}
    for title, row in rows:
        groups.setdefault(title, []).append(row)
    return groups


def _compared(of_metric: list[Comparison]) -> dict[str, Any]:
    """The rows of one metric: over all problems, and by data set where there are several."""
    everything = of_metric[-1].data_set
    rows = list(zip(of_metric, formats.comparison_rows(of_metric), strict=True))
    metric = of_metric[0].metric
    return {
        "label": METRICS[metric].label("k"),
        "main": metric in MAIN,
        "everything": _grouped((c.name, row[3:]) for c, row in rows if c.data_set == everything),
        "by_set": _grouped((f"{c.data_set}: {c.name}", row[3:]) for c, row in rows if c.data_set != everything),
    }


def _columns(metrics: Sequence[str], ks: IntArray) -> list[tuple[str, int]]:
    """The main metrics at the smallest k, where the others say nothing new, and all at the largest."""
    smallest, largest = _ends(ks)[0], _ends(ks)[-1]
    return [(metric, smallest) for metric in MAIN] * (smallest < largest) + [(metric, largest) for metric in metrics]


def _ends(ks: IntArray) -> list[int]:
    return [int(ks[-1])] if len(ks) == 1 else [int(ks[0]), int(ks[-1])]


def _data_sets(scores: Mapping[str, Scores]) -> dict[str, dict[str, Scores]]:
    """For each data set, the evaluations that have problems of it."""
    sets: dict[str, dict[str, Scores]] = {}
    for name, of_all in scores.items():
        for source, part in of_all.by_source().items():
            sets.setdefault(source or "all problems", {})[name] = part
    return sets


def _curve_table(scores: Mapping[str, Scores], metric: str, ks: IntArray, name: str, paper: bool) -> MarkedTable:
    table = curve_table(scores, metric, ks, f"{METRICS[metric].label('k')} on {name}")
    if not paper or metric not in MAIN or known_data_set(name) is None:
        return table
    paper_ks, curves = paper_curves(name, metric)
    columns = [int(np.flatnonzero(paper_ks == k)[0]) if k in paper_ks else None for k in ks]
    theirs = [[np.nan if c is None else curve[c] for c in columns] for curve in curves.values()]
    values = np.concatenate([table.values, np.asarray(theirs)])
    best, second = ranked(values)
    rows = (*table.rows, *(f"paper: {method}" for method in curves))
    return replace(table, rows=rows, values=values, best=best, second=second, star=np.zeros_like(best))


def _heat(table: MarkedTable) -> dict[str, Any]:
    """A table with how dark each cell is, in percent."""
    return {"table": table, "shades": np.nan_to_num(100 * shades(table.values)).round().astype(int).tolist()}


def _draw(
    folder: Path, scores: Mapping[str, Scores], metrics: Sequence[str], ks: IntArray, heats: Mapping[str, MarkedTable]
) -> dict[str, str]:
    """Draw every figure as PDF and PNG; returns those PNGs in base64, by name, that the page shows."""
    (folder / "figures").mkdir()
    plot_curves(scores, folder / "figures" / "curves", metrics=metrics, ks=ks)
    plot_entropy(scores, folder / "figures" / "entropy")
    plot_solved_by(scores, folder / "figures" / "solved")
    for name, table in heats.items():
        plot_heat_table(table, folder / "figures" / name)
    images = [path for name in ("entropy", "solved") if (path := folder / "figures" / f"{name}.png").exists()]
    return {image.stem: base64.b64encode(image.read_bytes()).decode() for image in images}


def _write_tables(
    folder: Path,
    scores: Mapping[str, Scores],
    metrics: Sequence[str],
    ks: IntArray,
    tables: list[MarkedTable],
    comparisons: list[list[Comparison]],
) -> None:
    every = [comparison for of_metric in comparisons for comparison in of_metric]
    parts = [formats.markdown(table) for table in tables] + [formats.comparisons_markdown(every)] * bool(every)
    (folder / "tables.md").write_text("\n".join(parts), encoding="utf-8")
    (folder / "tables.tex").write_text("\n".join(formats.latex(table) for table in tables), encoding="utf-8")
    (folder / "comparisons.csv").write_text(formats.comparisons_csv(every), encoding="utf-8")
    head = ("evaluation", "data_set", "metric", "k", "mean", "low", "high", "problems")
    rows = [
        [name, data_set, metric, int(k), *map(float, numbers), int(problems)]
        for data_set, of_set in _data_sets(scores).items()
        for name, part in of_set.items()
        for metric in metrics
        for k, *numbers, problems in zip(ks, *part.curve(metric, ks), strict=True)
    ]
    (folder / "curves.csv").write_text(formats.csv_text(head, rows), encoding="utf-8")


def _overview(evaluated: Evaluated) -> list[str]:
    scores = evaluated.scores
    sizes = sorted({int(scores.samples.min()), int(scores.samples.max())})
    samples = " to ".join(map(str, sizes)) + " each"
    return [evaluated.name, str(len(scores)), samples, str(int(scores.unscored.sum())), str(evaluated.run.path.name)]


def _difficulties(scores: Mapping[str, Scores], columns: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The evaluations at each difficulty, or the difficulties of one; nothing if there is one difficulty only."""
    parts = {name: of_all.by_difficulty() for name, of_all in scores.items()}
    levels = sorted({level for of_one in parts.values() for level in of_one}, key=difficulty_key)
    rows = []
    for level in levels if len(levels) > 1 else []:
        label = level or "(none)"
        for name, part in ((name, of_one[level]) for name, of_one in parts.items() if level in of_one):
            numbers = [formats.number(float(part.curve(metric, [k]).mean[0])) for metric, k in columns]
            title, first = (label, name) if len(scores) > 1 else ("", label)
            rows.append((title, [first, str(len(part)), *numbers]))
    head = ["evaluation" if len(scores) > 1 else "difficulty", "problems", *(METRICS[m].label(k) for m, k in columns)]
    return {"difficulties": _grouped(rows), "difficulty_head": head}


def _details(scores: Mapping[str, Scores], ks: IntArray) -> dict[str, Any]:
    """The tables that need to know more of a sample than its reward."""
    selection, distinct, shares = [], [], {}
    for name, of_all in scores.items():
        curves = {what: mean_interval(values).mean for what, values in detail_curves(of_all, ks).items()}
        for what, chosen in ((SELECTED, "public tests"), (ORACLE, "oracle")):
            if what in curves and not np.isnan(curves[what]).all():
                selection.append((name, [chosen, *map(formats.number, curves[what])]))
        for what in ("programs", "behaviours"):
            if f"distinct {what}" in curves:
                distinct.append((name, [what, *(f"{value:.1f}" for value in curves[f"distinct {what}"])]))
        if of_all.details is not None:
            shares[name] = verdict_shares(of_all.details)
    kinds = list(dict.fromkeys(kind for of_one in shares.values() for kind in of_one))
    verdicts = [[name, *(f"{of_one.get(kind, 0):.1%}" for kind in kinds)] for name, of_one in shares.items()]
    each_k = [f"k = {k}" for k in ks]
    return {
        "selection": _grouped(selection),
        "selection_head": ["chosen by", *each_k],
        "distinct": _grouped(distinct),
        "distinct_head": ["different", *each_k],
        "verdicts": {"": verdicts} if verdicts else {},
        "verdict_head": ["evaluation", *(kind.replace("_", " ") for kind in kinds)],
    }


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FunctionLoader

    here = files("openrlhf_maxk.evaluation.reports")
    loader = FunctionLoader(lambda name: here.joinpath(f"{name}.jinja").read_text(encoding="utf-8"))
    present = {"differences": "comparisons", "difficulty": "difficulties", "verifier": "selection", "only": "found"}
    sections = [(anchor, words) for anchor, words in _SECTIONS if context.get(present.get(anchor, "title"))]
    pages = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return pages.get_template("report.html").render(context, sections=sections)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
