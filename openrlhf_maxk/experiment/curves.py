"""How runs went while they trained: what TensorBoard was told, over seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openrlhf_maxk.evaluation.reports.figures import figure, legend_below, line_style
from openrlhf_maxk.evaluation.reports.formats import csv_text, number
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray
from openrlhf_maxk.experiment.plan import BASE, Job, Plan
from openrlhf_maxk.experiment.running import DONE

FILE = "curves.csv"
EVENTS = "tensorboard"  # the folder of a job's event files
STEP = "step"
LAST = 5  # steps that a table's means are of

Curves = Mapping[str, FloatArray]  # a job's scalars by name, shape (steps,), and the steps


@dataclass(frozen=True, slots=True)
class Shown:
    """A column of the table and an axis of the figure: a sum of scalars, and what stands for all steps."""

    title: str
    names: tuple[str, ...]
    over: str  # the steps
    of: Callable[[FloatArray], float]

    def curve(self, curves: Curves) -> FloatArray | None:
        """Shape (steps,); None for a run that has no such scalars."""
        known = [curves[name] for name in self.names if name in curves]
        return np.sum(known, axis=0) if len(known) == len(self.names) else None


def _last(values: FloatArray) -> float:
    return float(np.nanmean(values[-LAST:]))


SHOWN = (
    Shown("reward", ("rollout/reward_mean",), f"last {LAST}", _last),
    Shown("policy entropy", ("rollout/policy_entropy",), f"last {LAST}", _last),
    Shown("distinct", ("rollout/distinct",), f"last {LAST}", _last),
    Shown("ESS of ρ", ("maxk/ratio_ess",), "least", lambda values: float(np.nanmin(values))),
    Shown(
        "clipped", ("maxk/clipped_positive", "maxk/clipped_negative"), "mean", lambda values: float(np.nanmean(values))
    ),
    Shown("seconds a step", ("timing/step_total",), "median", lambda values: float(np.nanmedian(values))),
)


def load(plan: Plan, out: Path) -> dict[Job, Curves]:
    """The curves of the jobs that are done and have any."""
    trained = [job for job in plan.jobs() if job.run != BASE and (out / job.folder / DONE).is_file()]
    found = {job: of_job(out / job.folder) for job in trained}
    return {job: curves for job, curves in found.items() if curves}


def of_job(folder: Path) -> Curves:
    """The curves of a job, from the file of a packed one or from its event files; empty where there are none."""
    if (folder / FILE).is_file():
        with (folder / FILE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}
    return _from_events(folder / EVENTS)


def as_csv(curves: Curves) -> str:
    """A row a step; six digits, which is what a float32 has."""
    columns = [[float(f"{value:.6g}") for value in curve] for curve in curves.values()]
    return csv_text(list(curves), zip(*columns, strict=True))


def _from_events(folder: Path) -> Curves:
    """Of a run that went on after a crash, each step's last record counts."""
    paths = sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.name)
    if not paths:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = [name for shown in SHOWN for name in shown.names]
    found: dict[str, dict[int, float]] = {}
    for path in paths:
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in wanted:
            if f"train/{name}" in events.Tags()["scalars"]:
                found.setdefault(name, {}).update((s.step, s.value) for s in events.Scalars(f"train/{name}"))
    steps = sorted({step for curve in found.values() for step in curve})
    if not steps:
        return {}
    curves = {name: np.array([curve.get(step, np.nan) for step in steps]) for name, curve in found.items()}
    return {STEP: np.array(steps, dtype=float), **curves}


def markdown(plan: Plan, found: Mapping[Job, Curves]) -> str:
    """A table for each model: the mean over a run's seeds, with the standard deviation."""
    lines = []
    for model in plan.models:
        runs = _by_run(found, model)
        if not runs:
            continue
        head = [f"{shown.title} ({shown.over})" for shown in SHOWN]
        lines += [
            f"**{model}, training**",
            "",
            f"| | seeds | {' | '.join(head)} |",
            f"|---|{'---:|' * (len(head) + 1)}",
        ]
        for run, of_seeds in runs.items():
            cells = [
                _cell([shown.of(c) for seed in of_seeds if (c := shown.curve(seed)) is not None]) for shown in SHOWN
            ]
            lines.append(f"| {run} | {len(of_seeds)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(["", *lines]) if lines else ""


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return number(float(np.mean(values))) + spread


def plot(found: Mapping[Job, Curves], model: str, path: Path) -> None:
    """What is shown over the steps: the mean over a run's seeds, with a band of a standard deviation."""
    runs = _by_run(found, model)
    if not runs:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with figure(path, 3.6 * 3, 3.0 * 2, rows=2, columns=3, names=runs) as (fig, axes):
        for axis, shown in zip(axes, SHOWN, strict=True):
            for index, (run, of_seeds) in enumerate(runs.items()):
                of_run = [(seed[STEP], c) for seed in of_seeds if (c := shown.curve(seed)) is not None]
                if not of_run:
                    continue
                length = min(len(steps) for steps, _ in of_run)
                steps = of_run[0][0][:length]
                values = np.stack([curve[:length] for _, curve in of_run])
                mean, spread = values.mean(axis=0), values.std(axis=0, ddof=int(len(values) > 1))
                style = line_style(index)
                axis.plot(steps, mean, label=run, linewidth=1.2, markersize=4, markevery=max(1, length // 6), **style)
                axis.fill_between(steps, mean - spread, mean + spread, color=style["color"], alpha=0.15, linewidth=0)
            axis.set_xlabel(STEP)
            axis.set_ylabel(shown.title)
        legend_below(fig, axes[0])


def _by_run(found: Mapping[Job, Curves], model: str) -> dict[str, list[Curves]]:
    runs: dict[str, list[Curves]] = {}
    for job, curves in found.items():
        if job.model == model:
            runs.setdefault(job.run, []).append(curves)
    return runs
