"""From how a run ended to its verdict. Runs outside the sandbox, on data that a program may have chosen."""

from __future__ import annotations

import os
import signal

from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.rewards.comparators import difference
from openrlhf_maxk.rewards.sandbox.lane import Outcome
from openrlhf_maxk.rewards.sandbox.protocol import KilledBy, Stage
from openrlhf_maxk.rewards.verdict import TestResult, Verdict

SHOWN_BYTES = 300


def judge(outcome: Outcome, problem: Problem, test: Test) -> TestResult:
    """The verdict of one test, from the outcome of its run."""
    failure = _failure(outcome, problem)
    if failure is not None:
        return result(*failure, outcome)
    differs = difference(outcome.stdout, test.output, problem.judge.comparison, problem.judge.tolerance)
    return result(Verdict.PASSED if differs is None else Verdict.WRONG, differs or "", outcome)


def result(verdict: Verdict, detail: str, outcome: Outcome) -> TestResult:
    """A test result with the measurements of ``outcome``."""
    return TestResult(
        verdict=verdict,
        cpu_seconds=outcome.reply.cpu_ns / 1e9,
        wall_seconds=outcome.reply.wall_ns / 1e9,
        detail=detail,
        output=outcome.stdout[:SHOWN_BYTES],
    )


def _failure(outcome: Outcome, problem: Problem) -> tuple[Verdict, str] | None:
    """Why the run did not end well, if it did not; printed output counts for nothing then."""
    reply, limits = outcome.reply, problem.limits
    if outcome.stage == Stage.NOT_CONFINED:
        return Verdict.INFRASTRUCTURE_ERROR, f"the program could not be locked down: {outcome.message}"
    if outcome.overflow:
        return Verdict.TOO_MUCH_OUTPUT, f"printed more than {limits.output_bytes} bytes"
    if reply.killed_by is KilledBy.CPU_LIMIT or reply.cpu_ns >= limits.cpu_seconds * 1e9:
        return Verdict.CPU_TIMEOUT, f"used {reply.cpu_ns / 1e9:.2f} of {limits.cpu_seconds:g} CPU seconds"
    times = f"{reply.wall_ns / 1e9:.2f} s, of which it used a core for {reply.cpu_ns / 1e9:.2f} s"
    if reply.killed_by is KilledBy.IDLE_LIMIT:
        return Verdict.WALL_TIMEOUT, f"slept or waited: still there after {times}"
    if reply.killed_by is KilledBy.WALL_LIMIT:
        return Verdict.INFRASTRUCTURE_ERROR, f"the machine is too busy to run it: still there after {times}"
    if reply.status == 0:
        return None
    last = _last_line(outcome.stderr)
    if os.WIFSIGNALED(reply.status):
        return Verdict.CRASHED, f"killed by {_signal_name(os.WTERMSIG(reply.status))}"
    if last.startswith("MemoryError"):
        return Verdict.OUT_OF_MEMORY, last
    return Verdict.CRASHED, last or f"exit code {os.WEXITSTATUS(reply.status)}"


def _last_line(stderr: bytes) -> str:
    lines = stderr[-2000:].decode("utf-8", "backslashreplace").strip().splitlines()
    return lines[-1][:SHOWN_BYTES] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
