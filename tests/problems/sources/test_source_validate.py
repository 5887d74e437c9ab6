"""Deciding by reference solutions: the rule, the lenient judge, and a machine that fails now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Comparison, Judge, Problem, Test
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.preparation.validate import Accepted, Validator
from openrlhf_maxk.problems.sources.source import Candidate, Rejected, SourceError
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict

MARKS = {"+": Verdict.PASSED, "-": Verdict.WRONG, "t": Verdict.CPU_TIMEOUT, "!": Verdict.INFRASTRUCTURE_ERROR}


def candidate(*programs: str, number: int = 0, **changes: Any) -> Candidate:
    """A candidate whose programs are their own verdicts, one mark a test, passing those beyond."""
    problem = Problem(f"p{number}", "Do.", tuple(Test(str(i), "x") for i in range(max(map(len, programs), default=1))))
    return Candidate(problem, programs, **changes)


def by_marks(jobs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
    assert len({problem.id for _, problem in jobs}) == len(jobs)  # an executor runs equal ids once
    return [
        ProgramResult(tuple(TestResult(MARKS[program.ljust(99, "+")[int(t.input)]]) for t in problem.tests))
        for program, problem in jobs
    ]


def decide(*candidates: Candidate, run: Any = by_marks, **options: Any) -> list[Accepted | Rejected]:
    return Validator(PrepareOptions(out="unused", **options), run)(candidates)


@given(
    st.lists(st.lists(st.text("+-t", min_size=1, max_size=3), min_size=1, max_size=6), max_size=5), st.integers(1, 6)
)
def test_the_rule(problems: list[list[str]], most: int) -> None:
    candidates = [candidate(*programs, number=i) for i, programs in enumerate(problems)]
    for rule in ("any", "majority", "all"):
        answers = decide(*candidates, reference_rule=rule, references=most)
        for programs, answer in zip(problems, answers, strict=True):
            passing = [p for p in programs[:most] if set(p) == {"+"}]
            share = len(passing) / len(programs[:most])
            keep = {"any": share > 0, "majority": share > 0.5, "all": share == 1}[rule]
            assert isinstance(answer, Accepted) == keep
            if isinstance(answer, Accepted):
                assert (answer.references, answer.validation) == (tuple(passing), "passed")
            else:
                assert answer.reason == "reference_fails"


def test_the_reason_says_what_went_wrong() -> None:
    (answer,) = decide(candidate("++t", "+++", "-++"))
    assert isinstance(answer, Rejected)
    assert answer.detail == "1 of 3 references pass; test 3 of 3: cpu_timeout"


@given(st.lists(st.text("+-t", min_size=1, max_size=60), min_size=1, max_size=4))
def test_failing_programs_are_not_run_on_and_on(programs: list[str]) -> None:
    """The first failing test is the one of running everything, and no program passes a round that it has failed in."""
    ran: dict[str, int] = dict.fromkeys(programs, 0)

    def run(jobs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        for program, problem in jobs:
            ran[program] += len(problem.tests)
        return by_marks(jobs)

    programs = list(ran)
    answers = decide(*(candidate(p, number=i) for i, p in enumerate(programs)), run=run)
    for program, answer in zip(programs, answers, strict=True):
        failed = next((i for i, mark in enumerate(program, 1) if mark != "+"), None)
        if failed is None:
            assert isinstance(answer, Accepted)
            assert ran[program] == len(program)
        else:
            assert isinstance(answer, Rejected)
            assert f"; test {failed} of {len(program)}: {MARKS[program[failed - 1]]}" in answer.detail
            rounds = [1, 5, 21, 85]
            assert ran[program] == min(next(r for r in rounds if r >= failed), len(program))


def test_problems_without_a_reference() -> None:
    answers = decide(candidate(), candidate("+"))
    assert [a.validation for a in answers if isinstance(a, Accepted)] == ["no_reference", "passed"]
    dropped, kept = decide(candidate(), candidate("+"), unreferenced="drop")
    assert isinstance(dropped, Rejected)
    assert dropped.reason == "no_reference"
    assert isinstance(kept, Accepted)


def test_the_lenient_judge_is_asked_only_if_the_first_refuses() -> None:
    lenient = Judge(Comparison.CHECKER, checker="fair")
    first = candidate("+", number=1)
    strict = candidate("-", number=2)
    hopeless = candidate("t", number=3)
    judged: list[tuple[str, bool]] = []

    def run(jobs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        judged.extend((problem.id.split()[0], problem.judge == lenient) for _, problem in jobs)
        return [
            ProgramResult((TestResult(Verdict.PASSED if p.judge == lenient and m == "-" else MARKS[m]),))
            for m, p in jobs
        ]

    def fair(c: Candidate) -> Candidate:
        p = c.problem
        return Candidate(p, c.references, Problem(p.id, p.statement, p.tests, judge=lenient))

    answers = decide(fair(first), fair(strict), fair(hopeless), run=run)
    assert judged == [("p1", False), ("p2", False), ("p3", False), ("p2", True), ("p3", True)]
    assert isinstance(answers[0], Accepted)
    assert answers[0].validation == "passed"
    assert isinstance(answers[1], Accepted)
    assert (answers[1].validation, answers[1].problem.judge) == ("passed_leniently", lenient)
    assert isinstance(answers[2], Rejected)


def test_a_machine_that_fails_sometimes_is_asked_again() -> None:
    calls = []

    def run(jobs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        calls.append(len(jobs))
        ok = by_marks(jobs)
        return [ProgramResult((TestResult(Verdict.INFRASTRUCTURE_ERROR),)) for _ in jobs[:-1]] + ok[-1:]

    answers = decide(candidate("+", number=1), candidate("-", number=2), candidate("+", number=3), run=run)
    assert calls == [3, 2, 1]
    assert [isinstance(a, Accepted) for a in answers] == [True, False, True]


def test_a_machine_that_fails_always_decides_nothing() -> None:
    with pytest.raises(SourceError, match=r"the reference of p7 could not be run .*--no-validate"):
        decide(candidate("+"), candidate("+!", number=7))


def test_validation_can_be_turned_off() -> None:
    (answer,) = Validator(PrepareOptions(out="unused"), None)([candidate("-")])
    assert answer == Accepted(candidate("-").problem, ("-",), "off")
