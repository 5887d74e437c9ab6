"""From how a run ended to its verdict. Outside the sandbox, on data that a program may have chosen."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Sequence
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import TestResult, Verdict
from openrlhf_maxk.rewards.judging import comparators, values
from openrlhf_maxk.rewards.judging.comparators import difference
from openrlhf_maxk.rewards.judging.jobs import CHECKER_LIMITS
from openrlhf_maxk.rewards.judging.steps import Relation, Step, StepKind
from openrlhf_maxk.rewards.judging.values import MalformedError, close, json_view, loads, same
from openrlhf_maxk.rewards.sandbox.confinement.limits import THREADS
from openrlhf_maxk.rewards.sandbox.lane import Outcome
from openrlhf_maxk.rewards.sandbox.messages import KilledBy
from openrlhf_maxk.rewards.sandbox.protocol import Stage

SHOWN_BYTES = 300
_ACCEPTED = re.compile(rb"1(\.0*)?")  # a checker's score: 1 is right, any other number is wrong


def result(
    verdict: Verdict, detail: str, outcome: Outcome, answer: bytes = b"", score: float | None = None
) -> TestResult:
    """A test result with the measurements of ``outcome``, the digest of its answer, and its score if it has one."""
    return TestResult(
        verdict=verdict,
        cpu_seconds=outcome.reply.cpu_ns / 1e9,
        wall_seconds=outcome.reply.wall_ns / 1e9,
        detail=detail[:SHOWN_BYTES],
        output=(outcome.stdout or b"")[:SHOWN_BYTES],
        answer=answer,
        score=score,
    )


def judge_output(outcome: Outcome, problem: Problem, test: Test) -> TestResult:
    """The verdict of a run that ended well, from what it printed."""
    differs = difference(outcome.stdout, test.output, problem.judge.comparison, problem.judge.tolerance)
    verdict = Verdict.PASSED if differs is None else Verdict.WRONG
    return result(verdict, differs or "", outcome, _printed(outcome, problem))


def judge_values(outcome: Outcome, problem: Problem, steps: Sequence[Step], nonce: str) -> TestResult:
    """The verdict of a function test that ended well, from the values it sent."""
    lines = _sent(outcome.results, nonce)
    if problem.judge.comparison is Comparison.SCORE:
        return _judge_score(outcome, lines)
    expecting = [step for step in steps if step.sends]
    for number, step in enumerate(expecting):
        if number >= len(lines):
            return result(Verdict.CRASHED, "it ended the process before it returned", outcome)
        differs = _differs(lines[number], step, problem)
        if differs:
            return result(Verdict.WRONG, differs, outcome, _returned(lines, len(expecting), problem))
    answer = _returned(lines, len(expecting), problem)
    last = _object(lines[len(expecting)]) if len(lines) > len(expecting) else {}
    if "failed" in last:
        return result(Verdict.WRONG, f"AssertionError: {last['failed']}", outcome, answer)
    if "done" not in last:
        return result(Verdict.CRASHED, "it ended the process before it returned", outcome)
    return result(Verdict.PASSED, "", outcome, answer)


def _printed(outcome: Outcome, problem: Problem) -> bytes:
    """The digest of what was printed, the same for outputs that are compared as equal."""
    return hashlib.sha256(comparators.canonical(outcome.stdout or b"", problem.judge.comparison)).digest()


def _returned(lines: Sequence[bytes], count: int, problem: Problem) -> bytes:
    """The digest of the first ``count`` values that were sent; none if there are fewer."""
    if len(lines) < count:
        return b""
    texts = []
    for line in lines[:count]:
        try:
            value = loads(line)
            viewed = json_view(value) if problem.mode is Mode.FUNCTION else value
            texts.append(values.canonical(viewed, problem.judge.comparison).encode("utf-8", "surrogatepass"))
        except MalformedError:
            texts.append(line)  # of no type that values are sent as: it is its own text
    return hashlib.sha256(b"\n".join(texts)).digest()


def _judge_score(outcome: Outcome, lines: Sequence[bytes]) -> TestResult:
    """The verdict of a function that returns its score: passed for 1, wrong for less."""
    if len(lines) < 2 or "done" not in _object(lines[1]):
        return result(Verdict.CRASHED, "it ended the process before it returned", outcome)
    try:
        score = loads(lines[0])
    except MalformedError as error:
        return result(Verdict.CRASHED, str(error), outcome)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        shown = lines[0][:100].decode(errors="replace")
        return result(Verdict.CRASHED, f"returned {shown}, which is no score from 0 to 1", outcome)
    return result(Verdict.PASSED if score == 1 else Verdict.WRONG, "", outcome, score=float(score))


def _sent(results: bytes, nonce: str) -> list[bytes]:
    """What the harness sent: lines that do not start with the nonce are not its."""
    start = nonce.encode() + b" "
    return [line[len(start) :] for line in results.split(b"\n") if line.startswith(start)]


def _object(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _differs(line: bytes, step: Step, problem: Problem) -> str:
    """What is wrong with a value that was sent; empty if nothing is."""
    try:
        actual = loads(line)
        if isinstance(actual, dict) and ("unknown" in actual or "failed" in actual):
            return f"returned {actual.get('unknown')}" if "unknown" in actual else f"AssertionError: {actual['failed']}"
        if _holds(actual, step, problem):
            return ""
    except MalformedError as error:
        return str(error)
    shown = "equal values" if step.kind is StepKind.EQUAL else json.dumps(step.expected)
    other = "other than " if step.relation is Relation.UNEQUAL else ""
    return f"expected {other}{shown[:100]}, got {line[:100].decode(errors='replace')}"


def _holds(actual: Any, step: Step, problem: Problem) -> bool:
    """Whether what was sent is as the step wants it. Raises MalformedError."""
    comparison, tolerance = problem.judge.comparison, problem.judge.tolerance
    if step.kind is StepKind.EQUAL:
        both = actual.get("both") if isinstance(actual, dict) else None
        if isinstance(both, list) and len(both) == 2:
            return same(both[0], both[1], comparison, tolerance)
        return actual == {"equal": True}  # values that only the program knows: its word
    if step.relation is Relation.SAME:
        return actual is step.expected
    if step.relation is Relation.CLOSE:
        return close(actual, step.expected, step.relative, step.absolute, step.strict)
    if problem.mode is Mode.FUNCTION:
        return same(json_view(actual), json_view(step.expected), comparison, tolerance)
    return same(actual, step.expected, comparison, tolerance) == (step.relation is Relation.EQUAL)


def judge_by_checker(outcome: Outcome, problem: Problem, checker: Outcome) -> TestResult:
    """The verdict that a problem's checker gave on a run that ended well.

    A checker accepts by printing the number 1 last, and exiting with 0. One that fails has met output that it was not
    written for: that is a wrong answer, since otherwise a program could choose not to be scored.
    """
    answer = _printed(outcome, problem)
    failure = failure_of(checker, CHECKER_LIMITS)
    if failure is not None and failure[0] is Verdict.INFRASTRUCTURE_ERROR:
        return result(Verdict.INFRASTRUCTURE_ERROR, f"the checker: {failure[1]}", outcome)
    if failure is not None:
        return result(Verdict.WRONG, f"the checker: {failure[1]}", outcome, answer)
    words = checker.stdout.split()
    if words and _ACCEPTED.fullmatch(words[-1]):
        return result(Verdict.PASSED, "", outcome, answer)
    said = checker.stdout.strip()[-100:].decode(errors="replace")
    return result(Verdict.WRONG, f"the checker says {said!r}", outcome, answer)


def failure_of(outcome: Outcome, limits: Limits) -> tuple[Verdict, str] | None:
    """Why the run did not end well, if it did not; what was printed counts for nothing then."""
    reply = outcome.reply
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
    if reply.killed_by is KilledBy.THREADS:
        return Verdict.CRASHED, f"started more than {THREADS} threads"
    if reply.status == 0:
        return None
    if os.WIFSIGNALED(reply.status):
        return Verdict.CRASHED, f"killed by {_signal_name(os.WTERMSIG(reply.status))}"
    last = _last_line(outcome.stderr)
    if last.startswith("MemoryError"):
        return Verdict.OUT_OF_MEMORY, last
    return Verdict.CRASHED, last or f"exit code {os.WEXITSTATUS(reply.status)}"


def _last_line(stderr: bytes) -> str:
    lines = stderr[-2000:].decode("utf-8", "backslashreplace").strip().splitlines()
    return lines[-1] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
