"""The code reward: the share of a problem's tests that the program in a completion passes."""

from __future__ import annotations

from collections import Counter

from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.rewards.executor import Executor
from openrlhf_maxk.rewards.extraction import extract_program
from openrlhf_maxk.rewards.request import Reward, RewardRequest
from openrlhf_maxk.rewards.verdict import ProgramResult, Verdict


class CodeScorer:
    """Runs the programs of a group against the tests of the problem that the label names."""

    def __init__(self, problems: str, cores: int) -> None:
        self._problems = ProblemStore(problems)
        self._executor = Executor(cores=cores).__enter__()

    def __call__(self, request: RewardRequest) -> list[Reward]:
        problem = self._problems[request.label]
        programs = [extract_program(completion) for completion in request.completions]
        found = [program for program in programs if program is not None]
        results = iter(self._executor.run_many([(program, problem) for program in found]))
        return [NO_PROGRAM if program is None else reward_of(next(results)) for program in programs]


NO_PROGRAM = Reward(0.0, 0.0, {"no_program": 1.0})


def reward_of(result: ProgramResult) -> Reward:
    """The paper's continuous reward, with the binary one as a log; None for a program that could not be run."""
    shares = Counter(test.verdict for test in result.tests)
    logs = {f"tests_{verdict}": shares[verdict] / len(result.tests) for verdict in Verdict}
    if result.fraction is not None:
        logs["all_passed"] = result.all_passed or 0.0
    return Reward(result.fraction, result.fraction, {**logs, "no_program": 0.0})
