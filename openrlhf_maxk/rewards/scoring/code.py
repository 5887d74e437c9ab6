"""The reward of problems: the share of tests that the program in a completion passes, or what its answer is worth.

For selection among samples, the share of the public tests is told as well; for votes, the key of a program is what it
prints or returns on the tests' inputs, whatever is expected. Programs that fail on some of the tests agree in that; one
that ends badly on all of them has answered nothing, and has no vote.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.once import RunOnce
from openrlhf_maxk.rewards.request import PUBLIC_TESTS, BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.answers import answer_to, marked_answers, open_attempts
from openrlhf_maxk.rewards.scoring.extraction import extract_program, fenced_programs
from openrlhf_maxk.rewards.scoring.health import Ailment, ailment_of, as_metrics


class CodeScorer:
    """Runs the programs of a group against the tests of the problem that the label names, or judges their answers.

    ``kind`` continuous is the share of tests passed or the score of the answer, binary 1 for all of it, else 0.
    """

    def __init__(self, spec: RewardSpec, cores: int) -> None:
        assert spec.problems is not None
        self._problems = ProblemStore(spec.problems)
        self._binary = spec.kind == "binary"
        self._needs_public = spec.chosen_by == PUBLIC_TESTS
        self._programs = RunOnce(open_attempts(self._problems.ways(), spec.runner, cores))

    def __call__(self, request: RewardRequest) -> list[Reward]:
        if request.label not in self._problems:
            raise BadLabel(f"label {request.label!r} is not the id of a problem in {self._problems.path}")
        problem = self._problems[request.label]
        if self._needs_public and not problem.public_tests:
            raise BadLabel(f"problem {problem.id!r} has no public tests to select by: leave it out of the data")
        programs = [_attempt(problem, completion) for completion in request.completions]
        running = [None if program is None else self._programs.submit(program, problem) for program in programs]
        public = problem.public_tests
        return [no_program(public) if run is None else reward_of(run.result(), self._binary, public) for run in running]

    def close(self) -> None:
        """Finish what was submitted."""
        self._programs.close()


def _attempt(problem: Problem, completion: str) -> str | None:
    """The program or the answer in a completion."""
    if problem.mode is Mode.ANSWER:
        return answer_to(problem, completion)
    return extract_program(completion, bool(problem.program_prefix))


def marked(spec: RewardSpec) -> Callable[[str], int]:
    """What counts the programs that stand in a completion as they should; answers, where no program is asked for."""
    assert spec.problems is not None
    if any(mode is not Mode.ANSWER for mode, _ in ProblemStore(spec.problems).ways()):
        return fenced_programs
    return lambda completion: len(marked_answers(completion))


def no_program(public_tests: int = 0) -> Reward:
    """The reward of a completion without a program."""
    return Reward(0.0, 0.0, as_metrics(Ailment.NO_PROGRAM) | ({PUBLIC_TESTS: 0.0} if public_tests else {}))


def reward_of(result: ProgramResult, binary: bool = False, public_tests: int = 0) -> Reward:
    """The paper's continuous reward or its binary one, with both as logs; None for a program that could not be run.

    The first ``public_tests`` tests are public.
    """
    shares = Counter(test.verdict for test in result.tests)
    logs = {f"tests_{verdict}": shares[verdict] / len(result.tests) for verdict in Verdict}
    logs |= as_metrics(ailment_of(result))
    if result.fraction is None or result.all_passed is None:
        return Reward(None, None, logs)
    reward = result.all_passed if binary else result.fraction
    logs |= {"all_passed": result.all_passed, "fraction": result.fraction}
    if public_tests:
        shown = result.tests[:public_tests]
        logs[PUBLIC_TESTS] = sum(test.worth for test in shown) / len(shown)
    return Reward(reward, reward, logs, key=key_of(result.tests))


def key_of(tests: Sequence[TestResult]) -> str | None:
    """One text for all programs that answer the same on every test; None for one that answers nothing on any."""
    if not any(test.answer for test in tests):
        return None
    answers = (test.answer.hex() or str(test.verdict) for test in tests)
    return hashlib.sha256("\n".join(answers).encode()).hexdigest()
