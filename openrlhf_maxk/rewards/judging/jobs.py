"""From a problem's test to what the sandbox runs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from openrlhf_maxk.problems.record import Comparison, Limits, Mode, Problem, Test
from openrlhf_maxk.rewards.judging.steps import Step, StepKind, steps_of_asserts
from openrlhf_maxk.rewards.judging.values import encoded_json
from openrlhf_maxk.rewards.sandbox.lane import Job
from openrlhf_maxk.rewards.sandbox.messages import Request
from openrlhf_maxk.rewards.sandbox.protocol import pack_job

CHECKER_LIMITS = Limits(cpu_seconds=10.0, memory_bytes=2**30, output_bytes=2**16)
_PROBLEMS_KEPT = 64
_FIRST_FILE = 6  # the descriptor of a job's first file: those before are the streams


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem that can be run, with the steps of each test (None: a whole program on standard input)."""

    problem: Problem
    steps: tuple[tuple[Step, ...] | None, ...]


def prepare(problem: Problem) -> Prepared:
    """Refuse a problem that cannot be run, whatever the program.

    Raises:
        ValueError: naming the problem's id, the test and what is wrong.
    """
    if not problem.tests:
        raise ValueError(f"problem {problem.id!r} has no tests")
    limits = problem.limits
    for name, value in (("cpu_seconds", limits.cpu_seconds), ("memory_bytes", limits.memory_bytes)):
        if not 0 < value < 2**40:
            raise ValueError(f"problem {problem.id!r}: limits.{name} must be positive and below 2**40, not {value!r}")
    if not 0 <= limits.output_bytes < 2**40:
        raise ValueError(
            f"problem {problem.id!r}: limits.output_bytes must be in 0 … 2**40, not {limits.output_bytes!r}"
        )
    if problem.judge.comparison is Comparison.CHECKER and not problem.judge.checker:
        raise ValueError(f"problem {problem.id!r}: judge.comparison is checker, but judge.checker is empty")
    if problem.judge.comparison is Comparison.CHECKER and problem.mode is not Mode.STDIN:
        raise ValueError(f"problem {problem.id!r}: judge.comparison checker needs mode stdin, not {problem.mode}")
    if problem.mode is Mode.ANSWER:
        raise ValueError(
            f"problem {problem.id!r}: mode answer asks for an answer, which is no program that could be run"
        )
    if problem.mode is Mode.FUNCTION and not problem.entry_point:
        raise ValueError(f"problem {problem.id!r}: mode function needs an entry_point")
    steps = []
    for number, test in enumerate(problem.tests, 1):
        try:
            steps.append(_steps(problem, test))
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r}, test {number}: {error}") from error
    return Prepared(problem, tuple(steps))


class PreparedProblems:
    """Prepares a problem once while it is in use: groups of programs come with the same one."""

    def __init__(self) -> None:
        self._known: dict[int, Prepared] = {}

    def __call__(self, problem: Problem) -> Prepared:
        """Raises as :func:`prepare` does."""
        known = self._known.get(id(problem))
        if known is not None and known.problem is problem:
            return known
        if len(self._known) >= _PROBLEMS_KEPT:
            self._known.clear()
        return self._known.setdefault(id(problem), prepare(problem))


def _steps(problem: Problem, test: Test) -> tuple[Step, ...] | None:
    if problem.mode is Mode.STDIN:
        return None
    if problem.mode is Mode.ASSERTS:
        return steps_of_asserts(test.input)
    assert problem.entry_point is not None
    if not isinstance(_json("input", test.input), list):
        raise ValueError("input must be a JSON list of arguments")
    _json("output", test.output)
    return (Step(StepKind.CALL, problem.entry_point, test.input, encoded_json(test.output)),)


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from error


def job(prepared: Prepared, index: int, program: str, code: bytes, nonce: str) -> Job:
    """What a lane runs for one test. ``code`` is the program compiled by an earlier test, or empty.

    ``nonce`` is the word that proves that a result is the harness's; a test on standard input needs none.
    """
    problem, test, steps = prepared.problem, prepared.problem.tests[index], prepared.steps[index]
    return Job(
        payload=pack_job(
            program,
            setup=problem.setup_code,
            code=code,
            keep_code=not code and len(problem.tests) > 1,
            steps=None if steps is None else [(str(step.kind), step.source, step.argument) for step in steps],
            nonce=nonce,
        ),
        stdin=text_bytes(test.input) if steps is None else b"",
        request=request(problem.limits),
        output_bytes=problem.limits.output_bytes,
        with_results=steps is not None,
    )


def checker_job(checker: str, test: Test, output: bytes) -> Job:
    """A run of a problem's checker: ``checker.py INPUT EXPECTED OUTPUT``, three files."""
    files = (text_bytes(test.input), text_bytes(test.output), output)
    names = [f"/proc/self/fd/{_FIRST_FILE + i}" for i in range(len(files))]
    payload = pack_job(checker, arguments=["checker.py", *names])
    return Job(payload, b"", request(CHECKER_LIMITS), CHECKER_LIMITS.output_bytes, files=files)


def text_bytes(text: str) -> bytes:
    """Any text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def request(limits: Limits) -> Request:
    """Idle and wall limits follow from the CPU limit: they only end programs that it cannot end."""
    idle = max(0.25, limits.cpu_seconds)
    wall = 10 * (limits.cpu_seconds + idle)
    return Request(int(limits.cpu_seconds * 1e9), int(idle * 1e9), int(wall * 1e9), int(limits.memory_bytes))
