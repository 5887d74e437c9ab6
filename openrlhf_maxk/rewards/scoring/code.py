"""The reward of problems: the share of tests that the program in a completion passes, or what its answer is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import ProgramResult, Verdict
from openrlhf_maxk.rewards.execution.once import RunOnce
from openrlhf_maxk.rewards.request import BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.answers import answer_to, marked_answers, open_attempts
from openrlhf_maxk.rewards.scoring.extraction import extract_program, fenced_programs


class CodeScorer:
    """Runs the programs of a group against the tests of the problem that the label names, or judges their answers.

    ``kind`` continuous is the share of tests passed or the score of the answer, binary 1 for all of it, else 0.
    """

    def __init__(self, spec: RewardSpec, cores: int) -> None:
        assert spec.problems is not None
        self._problems = ProblemStore(spec.problems)
        self._binary = spec.kind == "binary"
        self._programs = RunOnce(open_attempts(self._problems.ways(), spec.runner, cores))

    def __call__(self, request: RewardRequest) -> list[Reward]:
        if request.label not in self._problems:
            raise BadLabel(f"label {request.label!r} is not the id of a problem in {self._problems.path}")
        problem = self._problems[request.label]
        programs = [_attempt(problem, completion) for completion in request.completions]
        running = [None if program is None else self._programs.submit(program, problem) for program in programs]
        return [NO_PROGRAM if run is None else reward_of(run.result(), self._binary) for run in running]

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


NO_PROGRAM = Reward(0.0, 0.0, {"no_program": 1.0})


def reward_of(result: ProgramResult, binary: bool = False) -> Reward:
    """The paper's continuous reward or its binary one, with both as logs; None for a program that could not be run."""
    shares = Counter(test.verdict for test in result.tests)
    logs = {f"tests_{verdict}": shares[verdict] / len(result.tests) for verdict in Verdict}
    logs["no_program"] = 0.0
    if result.fraction is None or result.all_passed is None:
        return Reward(None, None, logs)
    reward = result.all_passed if binary else result.fraction
    return Reward(reward, reward, {**logs, "all_passed": result.all_passed, "fraction": result.fraction})
