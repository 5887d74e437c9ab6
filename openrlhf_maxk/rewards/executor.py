"""Run programs on the tests of their problems: every test in a sandboxed process of its own, every verdict kept.

    with Executor(cores=8) as executor:
        result = executor.run(program, problem)          # one program
        results = executor.run_many([(program, problem), ...])  # many, in the order given

An executor owns one lane (a fork server and a thread that waits for it) for each core, so that no more programs run at
once than there are cores. It may be used from several threads.
"""

from __future__ import annotations

import marshal
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from openrlhf_maxk.problems.record import Limits, Mode, Problem
from openrlhf_maxk.rewards.judging import judge
from openrlhf_maxk.rewards.sandbox.lane import Lane, LaneError, Outcome
from openrlhf_maxk.rewards.sandbox.protocol import KilledBy, Request, Stage
from openrlhf_maxk.rewards.verdict import ProgramResult, TestResult, Verdict

_ATTEMPTS = 3
MODULES = (
    "array",
    "bisect",
    "cmath",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "sys",
    "threading",
    "time",
    "traceback",
    "typing",
)
"""Imported before any program runs, so that programs need not."""


class Executor:
    """Runs programs in sandboxed processes.

    Args:
        cores: how many programs may run at once; the cores this process may use unless given.
        modules: more modules to import beforehand (``numpy``).
    """

    def __init__(self, cores: int | None = None, *, modules: Sequence[str] = ()) -> None:
        self._queue = _Queue()
        self._admission = _Admission()
        self._lanes = [Lane([*MODULES, *modules]) for _ in range(cores or len(os.sched_getaffinity(0)))]
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in self._lanes]
        for lane in self._lanes:
            lane.start()
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was submitted, then end all processes. May be called twice."""
        self._queue.close()
        for thread in self._threads:
            thread.join()
        for lane in self._lanes:
            lane.stop()

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """Start running ``program`` on all tests of ``problem``. The future never fails: trouble is a verdict.

        Raises:
            ValueError: the problem cannot be run at all; the message names its id.
            RuntimeError: the executor is closed.
        """
        _check(problem)
        run = _Run(program, problem)
        self._queue.put(run)
        return run.future

    def run(self, program: str, problem: Problem) -> ProgramResult:
        """Run ``program`` on all tests of ``problem``. Raises as :meth:`submit` does."""
        return self.submit(program, problem).result()

    def run_many(self, pairs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        """Run many programs; results in the order of ``pairs``. Equal (program, problem id) pairs are run once."""
        for _, problem in pairs:
            _check(problem)
        futures: dict[tuple[str, str], Future[ProgramResult]] = {}
        for program, problem in pairs:
            key = (program, problem.id)
            if key not in futures:
                futures[key] = self.submit(program, problem)
        return [futures[program, problem.id].result() for program, problem in pairs]

    def _work(self, lane: Lane) -> None:
        run: _Run | None = None
        while True:
            task = self._queue.get(run)
            if task is None:
                return
            run, index = task
            try:
                result = self._test(lane, run, index)
            except Exception as error:
                result = TestResult(Verdict.INFRASTRUCTURE_ERROR, detail=f"{type(error).__name__}: {error}")
            run.finish(index, result)

    def _test(self, lane: Lane, run: _Run, index: int) -> TestResult:
        problem, test = run.problem, run.problem.tests[index]
        with self._admission.shared():
            outcome = self._attempt(lane, run, test.input)
        if _uncertain(outcome):
            with self._admission.alone():
                outcome = self._attempt(lane, run, test.input)
        return judge(outcome, problem, test)

    def _attempt(self, lane: Lane, run: _Run, stdin: str) -> Outcome:
        request = _request(run.problem.limits)
        data = stdin.encode("utf-8", "surrogatepass")
        for attempt in range(_ATTEMPTS):
            try:
                if not lane.running:
                    lane.start()
                job = run.job()
                outcome = lane.run(job, data, request, run.problem.limits.output_bytes)
            except LaneError:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            if outcome.stage == Stage.COMPILED and outcome.code:
                run.code = outcome.code
            return outcome
        raise AssertionError("unreachable")


def _check(problem: Problem) -> None:
    if not problem.tests:
        raise ValueError(f"problem {problem.id!r} has no tests")
    if problem.mode is not Mode.STDIN:
        raise ValueError(f"problem {problem.id!r}: mode {problem.mode!r} is not supported")


def _request(limits: Limits) -> Request:
    """Idle and wall limits follow from the CPU limit: they only end programs that it cannot end."""
    idle = max(1.0, limits.cpu_seconds)
    wall = 10 * (limits.cpu_seconds + idle)
    return Request(int(limits.cpu_seconds * 1e9), int(idle * 1e9), int(wall * 1e9), limits.memory_bytes)


def _uncertain(outcome: Outcome) -> bool:
    """Whether a busy machine may have ended the run."""
    late = outcome.reply.killed_by in (KilledBy.IDLE_LIMIT, KilledBy.WALL_LIMIT)
    return late and (not outcome.reply.certain or outcome.starved)


class _Run:
    """One program on its way through its tests."""

    def __init__(self, program: str, problem: Problem) -> None:
        self.program = program
        self.problem = problem
        self.code = b""  # compiled in the sandbox by the first test, used by the others
        self.future: Future[ProgramResult] = Future()
        self.results: list[TestResult | None] = [None] * len(problem.tests)
        self.next = 0
        self._left = len(problem.tests)
        self._lock = threading.Lock()

    def job(self) -> bytes:
        """What the sandboxed child needs to know, marshalled."""
        return marshal.dumps(
            {
                "setup": "" if self.code else self.problem.setup_code,
                "program": "" if self.code else self.program,
                "code": self.code,
                "keep_code": not self.code and len(self.problem.tests) > 1,
                "arguments": [""],
            }
        )

    def finish(self, index: int, result: TestResult) -> None:
        self.results[index] = result
        with self._lock:
            self._left -= 1
            done = self._left == 0
        if done:
            self.future.set_result(ProgramResult(tuple(r for r in self.results if r is not None)))


class _Queue:
    """Tests waiting for a lane. A lane stays with its program, then takes a fresh one, then helps with any."""

    def __init__(self) -> None:
        self._fresh: deque[_Run] = deque()
        self._started: deque[_Run] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, run: _Run) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the executor is closed")
            self._fresh.append(run)
            self._changed.notify_all()

    def get(self, current: _Run | None) -> tuple[_Run, int] | None:
        """The next test for a lane that last worked on ``current``; waits for one. None when there are no more."""
        with self._changed:
            while True:
                if current is None or current.next >= len(current.problem.tests):
                    current = self._another()
                if current is not None:
                    index, current.next = current.next, current.next + 1
                    return current, index
                if self._closed:
                    return None
                self._changed.wait()

    def _another(self) -> _Run | None:
        if self._fresh:
            run = self._fresh.popleft()
            self._started.append(run)
            return run
        while self._started:
            if self._started[0].next < len(self._started[0].problem.tests):
                return self._started[0]
            self._started.popleft()
        return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Admission:
    """Many lanes run at once, or one runs alone."""

    def __init__(self) -> None:
        self._running = 0
        self._wanting_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._wanting_alone)
            self._running += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._wanting_alone += 1
            self._changed.wait_for(lambda: not self._running)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._wanting_alone -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
