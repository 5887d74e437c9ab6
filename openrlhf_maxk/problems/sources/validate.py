"""Running reference solutions against the tests: a problem that its own solutions fail cannot be trained on.

A reference that fails may be one that another judge accepted: the tests expect one of several right answers, or are
wrong. The rule (``--reference_rule``) says how many of those that are run must pass every test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openrlhf_maxk.problems.record import Comparison, Mode, Problem
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.source import Candidate, Rejected, SourceError
from openrlhf_maxk.rewards.verdict import ProgramResult, Verdict

RunMany = Callable[[Sequence[tuple[str, Problem]]], Sequence[ProgramResult]]

ATTEMPTS = 3  # at running a program, before the machine is to blame


@dataclass(frozen=True, slots=True)
class Accepted:
    """A problem that may be kept, with the references that pass."""

    problem: Problem
    references: tuple[str, ...]
    validation: str  # "passed", "passed_leniently", "checker_accepts", "no_reference" or "off"


class Validator:
    """Decides about candidates, many at a time so that all cores have work.

    Args:
        run_many: runs (program, problem) pairs, as ``Executor.run_many`` does; None: validation is off.
    """

    def __init__(self, options: PrepareOptions, run_many: RunMany | None) -> None:
        self.options = options
        self.run_many = run_many

    def __call__(self, candidates: Sequence[Candidate]) -> list[Accepted | Rejected]:
        """One answer for each candidate.

        Raises:
            SourceError: if programs cannot be run. Nothing is decided about their problems.
        """
        if self.run_many is None:
            return [Accepted(c.problem, c.references, "off") for c in candidates]
        answers: list[Accepted | Rejected | None] = [None] * len(candidates)
        for i, candidate in enumerate(candidates):
            if not candidate.references and self.options.unreferenced == "drop":
                answers[i] = Rejected("no_reference")
        self._check_checkers(candidates, answers)
        self._check_references(candidates, answers, [c.problem for c in candidates], "passed")
        again = [i for i, a in enumerate(answers) if isinstance(a, Rejected) and a.reason == "reference_fails"]
        lenient = [i for i in again if candidates[i].lenient is not None]
        second: list[Accepted | Rejected | None] = [None] * len(lenient)
        chosen = [candidates[i] for i in lenient]
        self._check_references(chosen, second, [c.lenient or c.problem for c in chosen], "passed_leniently")
        for i, answer in zip(lenient, second, strict=True):
            if isinstance(answer, Accepted):
                answers[i] = answer
        return [
            a if a is not None else Accepted(c.problem, (), "no_reference")
            for a, c in zip(answers, candidates, strict=True)
        ]

    def _check_references(
        self,
        candidates: Sequence[Candidate],
        answers: list[Accepted | Rejected | None],
        problems: Sequence[Problem],
        name: str,
    ) -> None:
        """Answer for every candidate that has references and no answer yet."""
        jobs = [
            (i, program)
            for i, candidate in enumerate(candidates)
            if answers[i] is None
            for program in candidate.references[: self.options.references]
        ]
        results = self._run([(program, problems[i]) for i, program in jobs])
        by_candidate: dict[int, list[tuple[str, ProgramResult]]] = {}
        for (i, program), result in zip(jobs, results, strict=True):
            by_candidate.setdefault(i, []).append((program, result))
        for i, runs in by_candidate.items():
            passing = tuple(program for program, result in runs if result.all_passed)
            needed = {"any": 1, "majority": len(runs) // 2 + 1, "all": len(runs)}[self.options.reference_rule]
            if len(passing) >= needed:
                answers[i] = Accepted(problems[i], passing, name)
            else:
                answers[i] = Rejected("reference_fails", _first_failure(runs, len(passing)))

    def _check_checkers(self, candidates: Sequence[Candidate], answers: list[Accepted | Rejected | None]) -> None:
        """Where there is a checker and no reference: the checker must accept the expected outputs."""
        jobs: list[tuple[int, Problem]] = []
        for i, candidate in enumerate(candidates):
            problem = candidate.problem
            checked = problem.judge.comparison is Comparison.CHECKER and problem.mode is Mode.STDIN
            if checked and not candidate.references and answers[i] is None:
                jobs += [(i, replace(problem, tests=(test,), public_tests=0)) for test in problem.tests]
        results = self._run([(_prints(problem.tests[0].output), problem) for _, problem in jobs])
        for (i, problem), result in zip(jobs, results, strict=True):
            if result.all_passed:
                answers[i] = answers[i] or Accepted(candidates[i].problem, (), "checker_accepts")
            elif not isinstance(answers[i], Rejected):
                test = candidates[i].problem.tests.index(problem.tests[0]) + 1
                answers[i] = Rejected("checker_fails", f"refuses the expected output of test {test}")

    def _run(self, pairs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        """Run every pair under an id of its own; those that the machine failed to run are tried again."""
        assert self.run_many is not None
        named = [(program, replace(problem, id=f"{problem.id} #{n}")) for n, (program, problem) in enumerate(pairs)]
        results: list[ProgramResult | None] = [None] * len(named)
        for _ in range(ATTEMPTS):
            missing = [i for i, result in enumerate(results) if result is None or not result.scored]
            if not missing:
                break
            for i, result in zip(missing, self.run_many([named[i] for i in missing]), strict=True):
                results[i] = result
        scored = [result for result in results if result is not None and result.scored]
        if len(scored) < len(pairs):
            i = next(i for i, result in enumerate(results) if result is None or not result.scored)
            failed = results[i]
            detail = "" if failed is None else next((t.detail for t in failed.tests if t.detail), "")
            raise SourceError(
                f"the reference of {pairs[i][1].id} could not be run ({detail or 'no result'}). Nothing is lost: mend "
                "the cause and run the command again, or pass --no-validate"
            )
        return scored


def _first_failure(runs: Sequence[tuple[str, ProgramResult]], passing: int) -> str:
    """What went wrong, without times or addresses that differ from run to run."""
    result = next(result for _, result in runs if not result.all_passed)
    number, test = next((n, t) for n, t in enumerate(result.tests, 1) if t.verdict is not Verdict.PASSED)
    return f"{passing} of {len(runs)} references pass; test {number} of {len(result.tests)}: {test.verdict}"


def _prints(text: str) -> str:
    return f"import sys\nsys.stdout.write({text!r})\n"
