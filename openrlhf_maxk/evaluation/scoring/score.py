"""The third stage: from the logs of a run to the rewards of every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.execute import first_samples
from openrlhf_maxk.evaluation.statistics.diversity import NONE
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores, offsets_of
from openrlhf_maxk.problems.verdict import Verdict

_VERDICTS = {str(verdict): v for v, verdict in enumerate(Verdict)}


def score(run: RunFolder, problems: ProblemSet, samples: int) -> Scores:
    """The scores of the first ``samples`` samples of each problem, with all details.

    A sample whose program has not been executed is left out and counted in ``Scores.unscored``. A completion without a
    program has reward 0.
    """
    facts = {problem.id: (problem.public_tests, problem.source, problem.difficulty) for problem in problems}
    outcomes: dict[tuple[str, str], _Outcome] = {}
    behaviours: dict[str, dict[bytes, int]] = {}
    for record in run.results:
        problem = record["problem"]
        if problem in facts:
            told = _outcome(record, facts[problem][0], behaviours.setdefault(problem, {}))
            outcomes.setdefault((problem, record["program"]), told)
    program_of = {(record["problem"], record["index"]): record["program"] for record in run.programs}

    rows: dict[str, list[_Row]] = {problem: [] for problem in problems.ids}
    unscored = dict.fromkeys(problems.ids, 0)
    for sample in first_samples(run, problems, samples):
        problem, index = sample["problem"], sample["index"]
        digest = program_of.get((problem, index), "")
        outcome = _no_program(facts[problem][0]) if digest is None else outcomes.get((problem, digest))
        if outcome is None:
            unscored[problem] += 1
            continue
        entropy = np.nan if sample["logprob"] is None else -sample["logprob"] / max(sample["tokens"], 1)
        rows[problem].append(_Row(index, digest, outcome, entropy, sample["tokens"]))
    for of_problem in rows.values():
        of_problem.sort(key=lambda row: row.index)

    flat = [row for of_problem in rows.values() for row in of_problem]
    return Scores(
        ids=problems.ids,
        sources=tuple(facts[problem][1] for problem in problems.ids),
        difficulties=tuple(facts[problem][2] for problem in problems.ids),
        offsets=offsets_of([len(of_problem) for of_problem in rows.values()]),
        rewards=np.asarray([row.outcome.reward for row in flat], dtype=np.float64),
        correct=np.asarray([row.outcome.reward == 1.0 for row in flat], dtype=np.bool_),
        unscored=np.asarray(list(unscored.values()), dtype=np.int64),
        details=Details(
            indices=np.asarray([row.index for row in flat], dtype=np.int64),
            public=np.asarray([row.outcome.public for row in flat], dtype=np.float64),
            hidden=np.asarray([row.outcome.hidden for row in flat], dtype=np.float64),
            programs=np.concatenate([_numbered(of_problem) for of_problem in rows.values()] or [np.empty(0, np.int64)]),
            behaviours=np.asarray([row.outcome.behaviour for row in flat], dtype=np.int64),
            verdicts=np.asarray([row.outcome.verdicts for row in flat], dtype=np.int64).reshape(-1, len(Verdict)),
            entropy=np.asarray([row.entropy for row in flat], dtype=np.float64),
            tokens=np.asarray([row.tokens for row in flat], dtype=np.int64),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What running a program told."""

    reward: float
    public: float
    hidden: float
    behaviour: int
    verdicts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    program: str | None
    outcome: _Outcome
    entropy: float
    tokens: int


def _outcome(record: Mapping[str, Any], public_tests: int, behaviours: dict[bytes, int]) -> _Outcome:
    verdicts = record["verdicts"]
    worth = record.get("scores") or [float(verdict == Verdict.PASSED) for verdict in verdicts]
    behaviour = hashlib.sha256("\0".join([*verdicts, *record["outputs"]]).encode()).digest()  # the texts are large
    counts = [0] * len(Verdict)
    for verdict in verdicts:
        counts[_VERDICTS[verdict]] += 1
    return _Outcome(
        reward=sum(worth) / len(worth),
        public=_share(worth[:public_tests]),
        hidden=_share(worth[public_tests:]),
        behaviour=behaviours.setdefault(behaviour, len(behaviours)),
        verdicts=tuple(counts),
    )


def _no_program(public_tests: int) -> _Outcome:
    return _Outcome(0.0, 0.0 if public_tests else np.nan, 0.0, NONE, (0,) * len(Verdict))


def _share(worth: list[float]) -> float:
    return sum(worth) / len(worth) if worth else np.nan


def _numbered(rows: list[_Row]) -> np.ndarray:
    """The programs of one problem's samples as numbers, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.asarray(
        [NONE if row.program is None else numbers.setdefault(row.program, len(numbers)) for row in rows], dtype=np.int64
    )
