"""An evaluation from start to end: generate, execute, score. Each stage goes on from what is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy.typing as npt

from openrlhf_maxk.evaluation.reports.figures import plot_curves
from openrlhf_maxk.evaluation.samples.generate import generate
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
from openrlhf_maxk.evaluation.samples.records import Sampler, Sampling
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.execute import Execution, Runner, execute
from openrlhf_maxk.evaluation.scoring.score import score
from openrlhf_maxk.evaluation.scoring.scores_file import save_scores
from openrlhf_maxk.evaluation.statistics.scores import Scores, shown_ks
from openrlhf_maxk.evaluation.statistics.summary import summarise
from openrlhf_maxk.problems.atomic import new_folder
from openrlhf_maxk.rewards.scoring import extraction
from openrlhf_maxk.rewards.scoring.health import Health

SUMMARY = "summary.json"
CURVES = "curves.png"


class UnscoredError(Exception):
    """Too many samples could not be executed for the scores to be worth anything."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated, and how."""

    name: str  # for people: tables, folder names
    problems: ProblemSet
    prompts: Mapping[str, str]  # by problem id, in the order of the problems
    sampler: Sampler
    sampling: Sampling
    samples: int
    ks: npt.NDArray | None = None  # values of k to report; powers of two unless given
    max_unscored: float = 0.01  # the largest share of samples that may be left out because they could not be run
    modules: tuple[str, ...] = ()  # that programs may import besides the standard library; the runner has them
    about: Mapping[str, Any] = field(default_factory=dict)  # recorded beside the settings

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, not {self.samples}")
        if self.ks is not None and max(self.ks) > self.samples:
            raise ValueError(
                f"k = {max(self.ks)} needs at least {max(self.ks)} samples of each problem, not {self.samples}"
            )

    def key(self) -> dict[str, Any]:
        """Everything that decides the outcome but the number of samples, which may grow."""
        return {
            "sampler": dict(self.sampler.identity()),
            "sampling": asdict(self.sampling),
            "problems": self.problems.digest(self.prompts),
            "modules": sorted(self.modules),
            "extraction": extraction.RULES,
        }


@dataclass(frozen=True)
class Evaluation:
    """The outcome."""

    run: RunFolder
    scores: Scores
    execution: Execution
    health: Health


def evaluate(
    plan: Plan,
    root: str,
    runner: Callable[[], AbstractContextManager[Runner]],
    extract: Callable[..., str | None],
) -> Evaluation:
    """Carry out a plan under ``root``, as far as that has not been done.

    Raises:
        IncompleteError: samples are missing.
        UnscoredError: too many programs could not be executed.
        LogError: another process is evaluating the same.
    """
    run = RunFolder.create(root, plan.name, plan.key(), plan.prompts, plan.about)
    with run.writing():
        generate(run, plan.sampler, plan.prompts, plan.samples, plan.sampling.seed)
        with runner() as running:
            execution = execute(run, plan.problems, running, extract, plan.samples)
        health = Health()
        scores = score(run, plan.problems, plan.samples, health)
        _check_unscored(scores, plan, execution)
        write_scores(run, scores, plan)
        run.mark_latest()
    return Evaluation(run, scores, execution, health)


def write_scores(run: RunFolder, scores: Scores, plan: Plan) -> None:
    """Put scores, summary and curves into the run's folder, all or nothing."""
    ks = shown_ks({plan.name: scores}, plan.ks)
    with new_folder(run.scores) as folder:
        save_scores(folder, scores)
        (folder / SUMMARY).write_text(json.dumps(summarise(scores, ks), indent=2) + "\n", encoding="utf-8")
        plot_curves({plan.name: scores}, folder / CURVES, ks=ks)


def _check_unscored(scores: Scores, plan: Plan, execution: Execution) -> None:
    lost = int(scores.unscored.sum())
    total = lost + int(scores.samples.sum())
    if lost > plan.max_unscored * total:
        raise UnscoredError(
            f"{lost} of {total} samples could not be executed, more than the {plan.max_unscored:.1%} allowed "
            f"(--max-unscored). Run the same command again to retry them. Examples: {'; '.join(execution.examples)}"
        )
