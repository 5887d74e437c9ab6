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
from openrlhf_maxk.problems.verdict import ProgramResult, Verdict

RunMany = Callable[[Sequence[tuple[str, Problem]]], Sequence[ProgramResult]]

ATTEMPTS = 3  # at running a program, before the machine is to blame


@dataclass(frozen=True, slots=True)
class Accepted:
    """A problem that may be kept, with the references that pass."""

    problem: Problem
    references: tuple[str, ...]
    validation: str  # "passed", "passed_leniently", "checker_accepts", "no_reference" or "off"


@dataclass
class Run:
    """A reference solution on its way through the tests."""

    problem: Problem
    program: str
    failed_test: int | None = None  # from 1
    verdict: Verdict = Verdict.PASSED  # of that test


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
        answers: list[Accepted | Rejected | None] = [None] * len(candidates)
        for i, candidate in enumerate(candidates):
            if not candidate.references and self.options.unreferenced == "drop":
                answers[i] = Rejected("no_reference")
        if self.run_many is None:
            return [a or Accepted(c.problem, c.references, "off") for a, c in zip(answers, candidates, strict=True)]
        self._check_checkers(candidates, answers)
        referenced = [i for i, c in enumerate(candidates) if answers[i] is None and c.references]
        strict = [(candidates[i].problem, candidates[i].references) for i in referenced]
        for i, answer in zip(referenced, self._check_references(strict, "passed"), strict=True):
            answers[i] = answer
        again = [i for i in referenced if isinstance(answers[i], Rejected) and candidates[i].lenient is not None]
        lenient = [(candidates[i].lenient or candidates[i].problem, candidates[i].references) for i in again]
        for i, answer in zip(again, self._check_references(lenient, "passed_leniently"), strict=True):
            answers[i] = answer if isinstance(answer, Accepted) else answers[i]
        return [
            a if a is not None else Accepted(c.problem, (), "no_reference")
            for a, c in zip(answers, candidates, strict=True)
        ]

    def _check_references(
        self, problems: Sequence[tuple[Problem, tuple[str, ...]]], name: str
    ) -> list[Accepted | Rejected]:
        """One answer for each (problem, references), named so where it is accepted."""
        runs = [
            [Run(problem, program) for program in references[: self.options.references]]
            for problem, references in problems
        ]
        self._run_in_rounds([run for of_problem in runs for run in of_problem])
        answers: list[Accepted | Rejected] = []
        for (problem, _), of_problem in zip(problems, runs, strict=True):
            passing = [run.program for run in of_problem if run.failed_test is None]
            total = len(of_problem)
            needed = {"any": 1, "majority": total // 2 + 1, "all": total}[self.options.reference_rule]
            if len(passing) >= needed:
                answers.append(Accepted(problem, tuple(passing), name))
                continue
            first = next(run for run in of_problem if run.failed_test is not None)
            where = f"test {first.failed_test} of {len(problem.tests)}: {first.verdict}"
            answers.append(Rejected("reference_fails", f"{len(passing)} of {total} references pass; {where}"))
        return answers

    def _run_in_rounds(self, runs: Sequence[Run]) -> None:
        """Run programs on the first test, then on the next four, sixteen, …; those that have failed go no further.

        The answer is that of running everything, but a program that is too slow costs a few time limits instead of
        one for every test.
        """
        start, count = 0, 1
        while runs := [run for run in runs if run.failed_test is None and len(run.problem.tests) > start]:
            parts = [replace(r.problem, tests=r.problem.tests[start : start + count], public_tests=0) for r in runs]
            results = self._run([(run.program, part) for run, part in zip(runs, parts, strict=True)])
            for run, result in zip(runs, results, strict=True):
                for number, test in enumerate(result.tests, start + 1):
                    if test.verdict is not Verdict.PASSED:
                        run.failed_test, run.verdict = number, test.verdict
                        break
            start, count = start + count, count * 4

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
            try:
                again = self.run_many([named[i] for i in missing])
            except ValueError as e:
                raise SourceError(f"{e}: a problem that cannot be run should have been rejected. Report it") from None
            for i, result in zip(missing, again, strict=True):
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


def _prints(text: str) -> str:
    return f"import sys\nsys.stdout.write({text!r})\n"
