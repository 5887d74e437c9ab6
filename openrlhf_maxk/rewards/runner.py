"""What runs programs, and the one place that opens it by name.

===================  =============================================================================
``sandbox``          this machine's sandbox (:mod:`.executor`)
``bubblewrap``       the same, in containers of bubblewrap's making (:mod:`.bubblewrap`)
``http(s)://…``      one or more services that speak SandboxFusion's ``run_code`` (:mod:`.remote`)
===================  =============================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.rewards.verdict import ProgramResult

SANDBOX, BUBBLEWRAP = "sandbox", "bubblewrap"
REMOTE_REQUESTS = 4  # at once for each core: a service has cores of its own


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


def is_remote(name: str) -> bool:
    """Whether ``name`` is one or more URLs."""
    return all(url.startswith(("http://", "https://")) for url in name.split(","))


def check_name(name: str) -> str:
    """``name``, if it names a runner. Raises ValueError."""
    if name in (SANDBOX, BUBBLEWRAP) or is_remote(name):
        return name
    raise ValueError(
        f"{name!r} runs no programs: choose {SANDBOX}, {BUBBLEWRAP}, or a service's URL (http://…/run_code)"
    )


def open_runner(name: str, cores: int, *, modules: Sequence[str] = (), unsafe: bool = False) -> Runner:
    """The runner of that name, for ``cores`` programs at once; a service is sent a few times as many requests.

    ``modules`` that programs may import, and ``unsafe`` (run where programs cannot be locked down), are for this
    machine; a service decides both for itself.
    Raises:
        SandboxUnavailableError: it cannot be had here, or a service does not answer as it should; the message says why.
        ValueError: ``name`` is none of those above.
    """
    check_name(name)
    if is_remote(name):
        from openrlhf_maxk.rewards.remote import RemoteRunner

        return RemoteRunner(name.split(","), REMOTE_REQUESTS * cores)
    if name == BUBBLEWRAP:
        from openrlhf_maxk.rewards.bubblewrap import BubblewrapExecutor

        return BubblewrapExecutor(cores, modules=modules, unsafe=unsafe)
    from openrlhf_maxk.rewards.executor import Executor

    return Executor(cores, modules=modules, unsafe=unsafe)
