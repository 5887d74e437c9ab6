"""Equal programs for the same problem run once, also when they come with different groups of a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult
from openrlhf_maxk.rewards.execution.runner import Runner

KEPT = 1024  # programs: a batch has some hundreds of groups, and a group's own duplicates come close together


class RunOnce:
    """In front of a runner: remembers the last programs, running or done. May be used from several threads.

    A program that could not be run is forgotten, so that the next one like it is.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._runs: OrderedDict[tuple[str, str], Future[ProgramResult]] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """As :meth:`Runner.submit`."""
        key = (problem.id, program)
        with self._lock:
            run = self._runs.get(key)
            if run is None or (run.done() and not run.result().scored):
                run = self._runs[key] = self._runner.submit(program, problem)
            self._runs.move_to_end(key)
            if len(self._runs) > KEPT:
                self._runs.popitem(last=False)
        return run

    def close(self) -> None:
        """Finish what was submitted."""
        self._runner.close()
