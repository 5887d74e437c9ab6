"""The code reward: the share of a problem's tests that the program in a completion passes."""

from __future__ import annotations

from collections import Counter

from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import ProgramResult, Verdict
from openrlhf_maxk.rewards.execution.backends import open_runner
from openrlhf_maxk.rewards.execution.once import RunOnce
from openrlhf_maxk.rewards.request import BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.extraction import extract_program
from openrlhf_maxk.rewards.scoring.health import Ailment, ailment_of, as_metrics


class CodeScorer:
    """Runs the programs of a group against the tests of the problem that the label names.

    ``kind`` continuous is the share of tests passed, binary 1 for all of them, else 0.
    """

    def __init__(self, spec: RewardSpec, cores: int) -> None:
        assert spec.problems is not None
        self._problems = ProblemStore(spec.problems)
        self._binary = spec.kind == "binary"
        self._programs = RunOnce(open_runner(spec.runner, cores))

    def __call__(self, request: RewardRequest) -> list[Reward]:
        if request.label not in self._problems:
            raise BadLabel(f"label {request.label!r} is not the id of a problem in {self._problems.path}")
        problem = self._problems[request.label]
        programs = [extract_program(completion, bool(problem.program_prefix)) for completion in request.completions]
        running = [None if program is None else self._programs.submit(program, problem) for program in programs]
        return [NO_PROGRAM if run is None else reward_of(run.result(), self._binary) for run in running]

    def close(self) -> None:
        """Finish what was submitted."""
        self._programs.close()


NO_PROGRAM = Reward(0.0, 0.0, as_metrics(Ailment.NO_PROGRAM))


def reward_of(result: ProgramResult, binary: bool = False) -> Reward:
    """The paper's continuous reward or its binary one, with both as logs; None for a program that could not be run."""
    shares = Counter(test.verdict for test in result.tests)
    logs = {f"tests_{verdict}": shares[verdict] / len(result.tests) for verdict in Verdict}
    logs |= as_metrics(ailment_of(result))
    if result.fraction is None or result.all_passed is None:
        return Reward(None, None, logs)
    reward = result.all_passed if binary else result.fraction
    return Reward(reward, reward, {**logs, "all_passed": result.all_passed, "fraction": result.fraction})
