"""Which test runs next, in which lane: no more at once than there are lanes, and one alone when that is asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from openrlhf_maxk.problems.verdict import ProgramResult, TestResult
from openrlhf_maxk.rewards.judging.jobs import Prepared


class ProgramRun:
    """One program on its way through its tests."""

    def __init__(self, program: str, prepared: Prepared) -> None:
        self.program = program
        self.prepared = prepared
        self.future: Future[ProgramResult] = Future()
        self.future.set_running_or_notify_cancel()  # cannot be cancelled: its tests may have begun
        self.code = b""  # compiled in the sandbox by the first test, used by the others
        self._next = 0
        self._results: dict[int, TestResult] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether a test has not been taken yet."""
        return self._next < len(self.prepared.steps)

    def take(self) -> int:
        """The index of the next test. The queue's lock is held."""
        index, self._next = self._next, self._next + 1
        return index

    def finish(self, index: int, result: TestResult) -> None:
        """Note a result; the future is done with the last one."""
        with self._lock:
            self._results[index] = result
            if len(self._results) < len(self.prepared.steps):
                return
        self.future.set_result(ProgramResult(tuple(self._results[i] for i in range(len(self._results)))))

    def finish_all(self, result: TestResult) -> None:
        """Give ``result`` to every test that has none and is not running: it would be the same."""
        while self.waiting:
            self.finish(self.take(), result)


class Queue:
    """Programs waiting for a lane. A lane stays with its program, then takes a fresh one, then helps with any."""

    def __init__(self) -> None:
        self._fresh: deque[ProgramRun] = deque()
        self._started: deque[ProgramRun] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, run: ProgramRun) -> None:
        """Raises RuntimeError if the queue is closed."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the executor is closed")
            self._fresh.append(run)
            self._changed.notify_all()

    def get(self, current: ProgramRun | None) -> tuple[ProgramRun, int] | None:
        """The next test for a lane that last worked on ``current``; waits for one. None when there are no more."""
        with self._changed:
            while True:
                run = current if current is not None and current.waiting else self._another()
                if run is not None:
                    return run, run.take()
                if self._closed:
                    return None
                current = None
                self._changed.wait()

    def _another(self) -> ProgramRun | None:
        if self._fresh:
            run = self._fresh.popleft()
            self._started.append(run)
            return run
        while self._started and not self._started[0].waiting:
            self._started.popleft()
        return self._started[0] if self._started else None

    def skip(self, run: ProgramRun, result: TestResult) -> None:
        """Give ``result`` to the tests of ``run`` that have not been taken."""
        with self._changed:
            run.finish_all(result)

    def close(self) -> None:
        """Let the lanes end when nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Admission:
    """Many lanes run at once, or one runs alone."""

    def __init__(self) -> None:
        self._running = 0
        self._wanting_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others, once nobody wants to run alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanting_alone)
            self._running += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run when nobody else does."""
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
