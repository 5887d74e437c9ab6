"""The third stage: from the logs of a run to the rewards of every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.execute import NO_OUTPUT, first_samples
from openrlhf_maxk.evaluation.statistics.diversity import NONE
from openrlhf_maxk.evaluation.statistics.metrics import NO_ANSWER, UNKNOWN
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores, offsets_of
from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.scoring.health import Ailment, Health, ailment

_VERDICTS = {str(verdict): v for v, verdict in enumerate(Verdict)}


def score(run: RunFolder, problems: ProblemSet, samples: int, health: Health) -> Scores:
    """The scores of the first ``samples`` samples of each problem, with all details.

    A sample whose program has not been executed is left out and counted in ``Scores.unscored``. A completion without a
    program has reward 0. What ails them is counted in ``health``.
    """
    facts = {problem.id: _Facts.of(problem) for problem in problems}
    outcomes: dict[tuple[str, str], _Outcome] = {}
    numbers: dict[str, _Numbers] = {}
    details: dict[str, str] = {}  # each kept once
    for record in run.results:
        problem = record["problem"]
        if problem in facts:
            told = _outcome(record, facts[problem], numbers.setdefault(problem, _Numbers()), details)
            outcomes.setdefault((problem, record["program"]), told)
    program_of = {(record["problem"], record["index"]): record["program"] for record in run.programs}

    rows: dict[str, list[_Row]] = {problem: [] for problem in problems.ids}
    unscored = dict.fromkeys(problems.ids, 0)
    for sample in first_samples(run, problems, samples):
        problem, index = sample["problem"], sample["index"]
        digest = program_of.get((problem, index), "")
        outcome = _no_program(facts[problem]) if digest is None else outcomes.get((problem, digest))
        if outcome is None:
            unscored[problem] += 1
            continue
        health.add(outcome.ailment, f"{problem}, sample {index}", sample["completion"], outcome.detail)
        entropy = np.nan if sample["logprob"] is None else -sample["logprob"] / max(sample["tokens"], 1)
        rows[problem].append(_Row(index, digest, outcome, entropy, sample["tokens"]))
    for of_problem in rows.values():
        of_problem.sort(key=lambda row: row.index)

    flat = [row for of_problem in rows.values() for row in of_problem]
    return Scores(
        ids=problems.ids,
        sources=tuple(facts[problem].source for problem in problems.ids),
        difficulties=tuple(facts[problem].difficulty for problem in problems.ids),
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
            answers=np.concatenate([_answers(of_problem) for of_problem in rows.values()] or [np.empty(0, np.int64)]),
            verdicts=np.asarray([row.outcome.verdicts for row in flat], dtype=np.int64).reshape(-1, len(Verdict)),
            entropy=np.asarray([row.entropy for row in flat], dtype=np.float64),
            tokens=np.asarray([row.tokens for row in flat], dtype=np.int64),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is needed of a problem."""

    tests: int
    public_tests: int
    printed: bool  # programs answer by what they print
    source: str
    difficulty: str

    @classmethod
    def of(cls, problem: Problem) -> _Facts:
        return cls(
            len(problem.tests), problem.public_tests, problem.mode is Mode.STDIN, problem.source, problem.difficulty
        )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of what a problem's programs do, in order of first appearance."""

    behaviours: dict[bytes, int] = field(default_factory=dict)
    told: dict[bytes, int] = field(default_factory=dict)
    printed: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What running a program told."""

    reward: float
    public: float
    hidden: float
    behaviour: int
    told: int  # its answer
    printed: int
    verdicts: tuple[int, ...]
    ailment: Ailment | None
    detail: str  # of an ailment


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    program: str | None
    outcome: _Outcome
    entropy: float
    tokens: int


def _outcome(record: Mapping[str, Any], facts: _Facts, numbers: _Numbers, details: dict[str, str]) -> _Outcome:
    verdicts = record["verdicts"]
    worth = record.get("scores") or [float(verdict == Verdict.PASSED) for verdict in verdicts]
    behaviour = _digest([*verdicts, *record["outputs"]])
    counts = [0] * len(Verdict)
    for verdict in verdicts:
        counts[_VERDICTS[verdict]] += 1
    detail = record["detail"]
    found = ailment(verdicts, all(output == NO_OUTPUT for output in record["outputs"]), detail)
    return _Outcome(
        reward=sum(worth) / len(worth),
        public=_share(worth[: facts.public_tests]),
        hidden=_share(worth[facts.public_tests :]),
        behaviour=numbers.behaviours.setdefault(behaviour, len(numbers.behaviours)),
        told=_answer(record, record.get("answers"), numbers.told),
        printed=_answer(record, _printed(record) if facts.printed else None, numbers.printed),
        verdicts=tuple(counts),
        ailment=found,
        detail="" if found is None else details.setdefault(detail, detail),
    )


def _answer(record: Mapping[str, Any], answers: list[str] | None, numbers: dict[bytes, int]) -> int:
    """The number of what a vote goes by: a program's answers to the tests' inputs, "" where it ended badly, whatever is
    expected. NO_ANSWER where it ended badly on all of them; UNKNOWN without ``answers``."""
    verdicts = record["verdicts"]
    if not any(verdict in (Verdict.PASSED, Verdict.WRONG) for verdict in verdicts):
        return NO_ANSWER
    if answers is None:
        return UNKNOWN
    digest = _digest([answer or verdict for answer, verdict in zip(answers, verdicts, strict=True)])
    return numbers.setdefault(digest, len(numbers))


def _printed(record: Mapping[str, Any]) -> list[str]:
    """What was printed as answers: all that is known where the runner told none."""
    ended_well = (verdict in (Verdict.PASSED, Verdict.WRONG) for verdict in record["verdicts"])
    return [output if well else "" for output, well in zip(record["outputs"], ended_well, strict=True)]


def _answers(rows: list[_Row]) -> np.ndarray:
    """The answers of one problem's samples as numbers: those told, or what was printed if some were not told."""
    told = np.asarray([row.outcome.told for row in rows], dtype=np.int64)
    return np.asarray([row.outcome.printed for row in rows], dtype=np.int64) if np.any(told == UNKNOWN) else told


def _digest(texts: list[str]) -> bytes:
    """Short, since the texts are large."""
    return hashlib.sha256("\0".join(texts).encode()).digest()


def _no_program(facts: _Facts) -> _Outcome:
    failed = [False] * facts.tests
    public, hidden = _share(failed[: facts.public_tests]), _share(failed[facts.public_tests :])
    verdicts = (0,) * len(Verdict)
    return _Outcome(0.0, public, hidden, NONE, NO_ANSWER, NO_ANSWER, verdicts, Ailment.NO_PROGRAM, "")


def _share(worth: Sequence[float]) -> float:
    return sum(worth) / len(worth) if worth else np.nan


def _numbered(rows: list[_Row]) -> np.ndarray:
    """The programs of one problem's samples as numbers, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.asarray(
        [NONE if row.program is None else numbers.setdefault(row.program, len(numbers)) for row in rows], dtype=np.int64
    )
