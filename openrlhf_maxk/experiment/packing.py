"""The small part of an experiment that its results are made from: to be kept, and to be given to others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from openrlhf_maxk.evaluation.samples.run_folder import SETTINGS, RunFolder
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores, save_scores
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores
from openrlhf_maxk.experiment import curves
from openrlhf_maxk.experiment.plan import Plan
from openrlhf_maxk.experiment.running import DONE, seconds_of
from openrlhf_maxk.problems.atomic import write_text


def pack(plan: Plan, out: Path, target: Path) -> int:
    """Copy every finished job's settings, curves and scores from ``out`` to ``target``; returns how many there are.

    ``target`` then is an experiment's folder of which results can be made, but which has no models, texts or logs. Of a
    plan that names its metrics, and none that needs public tests or answers, only rewards and what is right are kept.

    Raises:
        PlanError: a job was done by another plan.
        RunFolderError: a job's evaluation is not there any more.
    """
    done = [job for job in plan.jobs() if seconds_of(plan, job, out) is not None]
    for job in done:
        run = RunFolder.find(str(out / job.folder / "evaluation"))
        into = target / job.folder / "evaluation"
        scores = into / run.scores.relative_to(run.path)
        scores.mkdir(parents=True, exist_ok=True)
        write_text(into / SETTINGS, _without_places((run.path / SETTINGS).read_text(encoding="utf-8")))
        save_scores(scores, _needed(plan, load_scores(run.scores)))
        if found := curves.of_job(out / job.folder):
            write_text(target / job.folder / curves.FILE, curves.as_csv(found))
        shutil.copyfile(out / job.folder / DONE, target / job.folder / DONE)  # last: it says that the rest is there
    return len(done)


def _needed(plan: Plan, scores: Scores) -> Scores:
    """Only rewards and what is right, where the plan's metrics are made of these: a tenth of the bytes."""
    enough = plan.metrics and not any(METRICS[metric].needs for metric in plan.metrics)
    return replace(scores, details=None) if enough else scores


def _without_places(settings: str) -> str:
    """An evaluation's settings, without what only means something on this machine."""
    record = json.loads(settings)
    record["about"] = {name: value for name, value in record["about"].items() if not str(value).startswith("/")}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
