"""What runs programs, whatever it is: this machine's sandbox, bubblewrap's, or a service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult


class SandboxUnavailableError(RuntimeError):
    """What is there offers too little to lock programs down; the message says what is missing."""


class Runner(ABC):
    """Runs programs on the tests of their problems. May be used from several threads."""

    @abstractmethod
    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """Start running ``program`` on all tests of ``problem``. The future never fails: trouble is a verdict.

        Raises:
            ValueError: the problem cannot be run, whatever the program; the message names its id.
            RuntimeError: the runner is closed.
        """

    @abstractmethod
    def check(self, problem: Problem) -> None:
        """Raise ValueError, naming its id, if the problem cannot be run, whatever the program."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was submitted, then let go of everything. May be called twice."""

    def run(self, program: str, problem: Problem) -> ProgramResult:
        """Run ``program`` on all tests of ``problem``. Raises as :meth:`submit` does."""
        return self.submit(program, problem).result()

    def run_many(self, pairs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        """Run many programs; results in the order of ``pairs``. Equal (program, problem id) pairs are run once.

        Raises as :meth:`submit` does, before anything is run.
        """
        distinct = {(program, problem.id): problem for program, problem in pairs}
        for problem in distinct.values():
            self.check(problem)
        futures = {key: self.submit(key[0], problem) for key, problem in distinct.items()}
        return [futures[program, problem.id].result() for program, problem in pairs]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
