"""Programs that only one of the models found: the problem, and the first correct program with what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from openrlhf_maxk.evaluation.scoring.loading import Evaluated
from openrlhf_maxk.evaluation.statistics.comparison import only_found_by
from openrlhf_maxk.evaluation.statistics.scores import paired

SHOWN = 3  # problems for each model


@dataclass(frozen=True)
class Finding:
    """A problem that one model alone solves."""

    problem: str
    prompt: str
    completion: str
    correct: int
    samples: int


def findings(evaluations: Mapping[str, Evaluated]) -> dict[str, tuple[int, list[Finding]]]:
    """For each model: how many of the shared problems it alone solves, and a few of them, the most often solved first.

    Evaluations without details (which sample is which) give none.
    """
    scores = {name: evaluated.scores for name, evaluated in evaluations.items()}
    together = paired(scores)
    found = {}
    for name, problems in only_found_by(scores).items():
        own = together[name]
        counts = dict(zip(own.ids, own.correct_counts.tolist(), strict=True))
        best = sorted(problems, key=lambda problem: -counts[problem])[:SHOWN]
        found[name] = len(problems), _findings(evaluations[name], best)
    return found


def _findings(evaluated: Evaluated, problems: list[str]) -> list[Finding]:
    scores = evaluated.scores
    if scores.details is None or not problems:
        return []
    prompts = evaluated.run.prompts()
    wanted = {}
    for problem in problems:
        p = scores.ids.index(problem)
        correct = np.flatnonzero(scores.groups(scores.correct)[p])
        index = int(scores.groups(scores.details.indices)[p][correct[0]])
        wanted[problem, index] = Finding(problem, prompts.get(problem, ""), "", len(correct), int(scores.samples[p]))
    completions: dict[tuple[str, int], str] = {}
    for record in evaluated.run.samples:
        key = record["problem"], record["index"]
        if key in wanted:
            completions.setdefault(key, record["completion"])
    return [Finding(f.problem, f.prompt, completions.get(key, ""), f.correct, f.samples) for key, f in wanted.items()]
