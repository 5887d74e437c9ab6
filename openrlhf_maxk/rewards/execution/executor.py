"""Run programs on the tests of their problems: every test in a sandboxed process of its own, every verdict kept.

    with Executor(cores=8) as executor:
        result = executor.run(program, problem)                 # one program
        results = executor.run_many([(program, problem), ...])  # many, in the order given

An executor owns one lane (a fork server and a thread that waits for it) for each core, so that no more programs run at
once than there are cores. It may be used from several threads.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from openrlhf_maxk.problems.record import Comparison, Problem
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.lanes import doubtful, run_job, start_lane
from openrlhf_maxk.rewards.execution.runner import Runner, SandboxUnavailableError
from openrlhf_maxk.rewards.execution.scheduling import Admission, ProgramRun, Queue
from openrlhf_maxk.rewards.judging import jobs
from openrlhf_maxk.rewards.judging.judge import failure_of, judge_by_checker, judge_output, judge_values, result
from openrlhf_maxk.rewards.sandbox.lane import Job, Lane, LaneError, Outcome
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS, Stage

MODULES = (
    "bisect collections copy functools heapq io itertools json math operator random re string sys threading typing"
)
"""Imported before any program runs, so that programs need not: what most programs use. Each makes every fork dearer."""


class Executor(Runner):
    """Runs programs in sandboxed processes.

    Args:
        cores: how many programs may run at once; the cores this process may use unless given.
        modules: more modules that programs may import (``numpy``), imported beforehand.
        warm_up: source that each fork server runs once, after importing: what it caches, programs need not compute.
        layers: the layers of protection to use where they can be had; all, unless one is to be tested without another.
        unsafe: run even where programs cannot be locked down. They can then read, write and send what this user can.
    Raises:
        SandboxUnavailableError: neither namespaces nor Landlock with seccomp can be had, and ``unsafe`` is false.
        ModuleNotFoundError: one of ``modules`` is not installed.
    """

    lane: type[Lane] = Lane  # what starts and talks to a fork server

    def __init__(
        self,
        cores: int | None = None,
        *,
        modules: Sequence[str] = (),
        warm_up: str = "",
        layers: Sequence[str] = LAYERS,
        unsafe: bool = False,
    ) -> None:
        if unknown := set(layers) - set(LAYERS):
            raise ValueError(f"unknown layers {sorted(unknown)}; known are {', '.join(LAYERS)}")
        cores = len(os.sched_getaffinity(0)) if cores is None else cores
        if cores < 1:
            raise ValueError(f"cores must be at least 1, not {cores}")
        paths = sorted({_where(name) for name in modules} - {None, sysconfig.get_path("stdlib")}, key=str)
        self._unsafe = unsafe
        self._process = os.getpid()
        self._prepare = jobs.PreparedProblems()
        self._queue = Queue()
        self._admission = Admission()
        imported, places = [*MODULES.split(), *modules], [str(path) for path in paths]
        self._lanes = [self.lane(layers, imported, places, warm_up) for _ in range(cores)]
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name="executor", daemon=True) for lane in self._lanes
        ]
        self.missing = self._start_all()
        """The layers that this machine lacks, or that were not asked for, and why."""
        for thread in self._threads:
            thread.start()

    def _start_all(self) -> Mapping[str, str]:
        try:
            with ThreadPoolExecutor(len(self._lanes)) as pool:
                missing = list(pool.map(lambda lane: start_lane(lane, self._unsafe), self._lanes))
            return missing[0]
        except BaseException as error:
            for lane in self._lanes:
                lane.stop()
            if isinstance(error, LaneError):
                raise SandboxUnavailableError(str(error)) from error
            raise

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
            ValueError: the problem cannot be run, whatever the program; the message names its id.
            RuntimeError: the executor is closed, or was made by another process.
        """
        if not isinstance(program, str):
            raise TypeError(f"a program is text, not {type(program).__name__}")
        if os.getpid() != self._process:
            raise RuntimeError("an executor cannot be used in a fork of the process that made it")
        run = ProgramRun(problem.whole(program), self._prepare(problem))
        self._queue.put(run)
        return run.future

    def check(self, problem: Problem) -> None:
        """As :meth:`Runner.check`; what is found is kept for :meth:`submit`."""
        self._prepare(problem)

    def _work(self, lane: Lane) -> None:
        run: ProgramRun | None = None
        while True:
            task = self._queue.get(run)
            if task is None:
                return
            run, index = task
            try:
                tested = self._test(lane, run, index)
            except Exception as error:  # ours, or the machine's: never the program's
                tested = TestResult(Verdict.INFRASTRUCTURE_ERROR, detail=f"{type(error).__name__}: {error}")
            run.finish(index, tested)

    def _test(self, lane: Lane, run: ProgramRun, index: int) -> TestResult:
        problem, steps, nonce = run.prepared.problem, run.prepared.steps[index], secrets.token_hex(16)
        outcome = self._run(lane, jobs.job(run.prepared, index, run.program, run.code, nonce))
        if outcome.stage == Stage.COMPILED and outcome.code:
            run.code = outcome.code
        failure = failure_of(outcome, problem.limits)
        if failure is not None:
            tested = result(*failure, outcome)
            if outcome.stage in (Stage.COMPILE_ERROR, Stage.NOTHING) and failure[0] is not Verdict.INFRASTRUCTURE_ERROR:
                self._queue.skip(run, tested)  # not a line of it has run: all tests end like this
            return tested
        if steps is not None:
            return judge_values(outcome, problem, steps, nonce)
        test, checker = problem.tests[index], problem.judge.checker
        if problem.judge.comparison is not Comparison.CHECKER:
            return judge_output(outcome, problem, test)
        assert checker is not None
        return judge_by_checker(outcome, problem, self._run(lane, jobs.checker_job(checker, test, outcome.stdout)))

    def _run(self, lane: Lane, job: Job) -> Outcome:
        """Run a job; once more, alone, if the machine and not the program may have ended it."""
        with self._admission.shared():
            outcome = run_job(lane, job, self._unsafe)
        if doubtful(outcome, job):
            with self._admission.alone():
                outcome = run_job(lane, job, self._unsafe)
        return outcome


def _where(module: str) -> str | None:
    """The directory that a module is found in. Raises ModuleNotFoundError."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        raise ModuleNotFoundError(f"no module named {module!r}")
    if spec.submodule_search_locations:
        return os.path.dirname(next(iter(spec.submodule_search_locations)))
    return os.path.dirname(spec.origin) if spec.has_location and spec.origin else None
