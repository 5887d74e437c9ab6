"""What came of an experiment: every run over its seeds, against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openrlhf_maxk.evaluation.reports.formats import number
from openrlhf_maxk.evaluation.scoring.loading import load_evaluations
from openrlhf_maxk.evaluation.statistics.bootstrap import mean_interval
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores, paired, shown_ks, shown_metrics
from openrlhf_maxk.evaluation.statistics.significance import holm, signed_rank
from openrlhf_maxk.experiment.plan import BASE, Job, Plan
from openrlhf_maxk.experiment.running import DONE


@dataclass(frozen=True)
class Value:
    """One metric of one run of one model at one k, over seeds and problems; differences are to the baseline."""

    model: str
    run: str
    metric: str
    k: int
    seeds: int
    mean: float
    deviation: float  # standard deviation of the seeds' means (n - 1); NaN for one seed
    difference: float
    low: float  # of the 95 % interval of the difference, problems resampled, each with the mean of its seeds
    high: float
    effect: float  # rank-biserial
    p_value: float  # Wilcoxon's signed-rank test over problems, after Holm's correction over runs and k

    @property
    def label(self) -> str:
        return METRICS[self.metric].label(self.k)


def load(plan: Plan, out: Path) -> dict[Job, Scores]:
    """The scores of the jobs that are done."""
    done = [job for job in plan.jobs() if (out / job.folder / DONE).is_file()]
    return {job: next(iter(load_evaluations([str(out / job.folder / "evaluation")]).values())).scores for job in done}


def values(plan: Plan, scores: Mapping[Job, Scores], ks: Sequence[int] | None = None) -> list[Value]:
    """Every metric that all jobs of a model know, at all k that their samples allow, on the problems they share."""
    return [value for model in plan.models for value in _of_model(plan, model, scores, ks)]


def _of_model(plan: Plan, model: str, scores: Mapping[Job, Scores], ks: Sequence[int] | None) -> list[Value]:
    named = {job.name: of_job for job, of_job in scores.items() if job.model == model}
    if not named:
        return []
    together = paired(named)
    chosen = shown_ks(named, None if ks is None else np.asarray(ks))
    return [
        value
        for metric in shown_metrics(named)[0]
        for value in _of_metric(plan, model, metric, chosen, _by_run(scores, together, model, metric, chosen))
    ]


def _by_run(
    scores: Mapping[Job, Scores], together: Mapping[str, Scores], model: str, metric: str, ks: IntArray
) -> dict[str, FloatArray]:
    """(seeds, problems, K) of each run."""
    found: dict[str, list[FloatArray]] = {}
    for job in scores:
        if job.model == model:
            found.setdefault(job.run, []).append(together[job.name].estimates(metric, ks))
    return {run: np.stack(of_seeds) for run, of_seeds in found.items()}


def _of_metric(plan: Plan, model: str, metric: str, ks: IntArray, by_run: Mapping[str, FloatArray]) -> list[Value]:
    baseline = by_run.get(plan.baseline)
    found: list[Value] = []
    for run, of_seeds in by_run.items():
        per_seed = np.nanmean(of_seeds, axis=1)
        spread = per_seed.std(axis=0, ddof=1) if len(per_seed) > 1 else np.full(len(ks), np.nan)
        against = None if baseline is None or run == plan.baseline else of_seeds.mean(axis=0) - baseline.mean(axis=0)
        interval = None if against is None else mean_interval(against)
        for column, k in enumerate(ks.tolist()):
            difference, low, high, effect, p_value = (np.nan,) * 5
            if against is not None and interval is not None:
                of_k = against[:, column]
                test = signed_rank(of_k[~np.isnan(of_k)])
                effect, p_value = test.rank_biserial, test.p_value
                difference, low, high = (float(part[column]) for part in interval[:3])
            numbers = float(per_seed[:, column].mean()), float(spread[column]), difference, low, high, effect, p_value
            found.append(Value(model, run, metric, k, len(per_seed), *numbers))
    return _corrected(found)


def _corrected(found: list[Value]) -> list[Value]:
    tested = [value for value in found if not np.isnan(value.p_value)]
    adjusted = iter(holm([value.p_value for value in tested]))
    return [
        value if np.isnan(value.p_value) else Value(**{**vars(value), "p_value": next(adjusted)}) for value in found
    ]


def markdown(plan: Plan, found: Sequence[Value], metrics: Sequence[str], ks: Sequence[int]) -> str:
    """Tables for a page of docs: mean ± standard deviation over seeds, bold where best, starred where it differs
    significantly from the baseline."""
    lines = []
    for model in plan.models:
        for metric in metrics:
            rows = {v.run: v for v in found if v.model == model and v.metric == metric}
            if rows:
                lines += [f"**{model}, {METRICS[metric].label('k')}**", "", *_table(found, model, metric, ks), ""]
    against = "the model as it is" if plan.baseline == BASE else plan.baseline
    lines += [
        f"Mean ± standard deviation over seeds. Bold: the highest. \\*: differs from {against}, by Wilcoxon's "
        "signed-rank test over problems, each with the mean of its seeds, p < 0.05 after Holm's correction over runs "
        "and k.",
        "",
    ]
    return "\n".join(lines)


def _table(found: Sequence[Value], model: str, metric: str, ks: Sequence[int]) -> list[str]:
    chosen = {(v.run, v.k): v for v in found if v.model == model and v.metric == metric and v.k in ks}
    runs = list(dict.fromkeys(run for run, _ in chosen))
    ks = [k for k in ks if (runs[0], k) in chosen]
    best = {k: max(chosen[run, k].mean for run in runs) for k in ks}
    lines = [f"| | seeds | {' | '.join(METRICS[metric].label(k) for k in ks)} |", f"|---|{'---:|' * (len(ks) + 1)}"]
    for run in runs:
        cells = []
        for k in ks:
            value = chosen[run, k]
            text = number(value.mean) + ("" if np.isnan(value.deviation) else f" ± {value.deviation:.3f}")
            text = f"**{text}**" if value.mean == best[k] else text
            cells.append(text + (r" \*" if value.p_value < 0.05 else ""))
        lines.append(f"| {run} | {chosen[run, ks[0]].seeds} | {' | '.join(cells)} |")
    return lines
