"""The second stage: run the program of every sample on all tests of its problem. Equal programs are run once.

A program that the machinery failed to run gets no record: it counts as not executed yet, and the next run tries again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, Protocol

from tqdm import tqdm

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult, Verdict

IN_FLIGHT = 128  # programs handed to the runner and not finished
SECONDS_PER_APPEND = 0.5  # a kill loses the programs in flight and those finished within the last so many seconds
_DETAIL = 300  # characters
_EXAMPLES = 3
_PROBLEMS_IN_MEMORY = 16


class Runner(Protocol):
    """What runs programs: :class:`openrlhf_maxk.rewards.execution.executor.Executor`."""

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """Start running a program; the future never fails."""
        ...


@dataclass
class Execution:
    """What the stage did."""

    executed: int = 0  # programs run now
    failed: int = 0  # programs that could not be run, to be tried again by the next run
    examples: list[str] = field(default_factory=list)  # of failures: problem and detail


def execute(
    run: RunFolder, problems: ProblemSet, runner: Runner, extract: Callable[..., str | None], samples: int
) -> Execution:
    """Run what has not been run of the first ``samples`` samples of each problem. The caller holds the run's lock.

    ``extract`` finds the program in a completion (None: there is none; the sample fails all tests). Where the prompt
    holds the beginning of the program, it is told so by a second argument, True.
    """
    problem_of = lru_cache(_PROBLEMS_IN_MEMORY)(problems.problems.__getitem__)
    taken = {(record["problem"], record["program"]) for record in run.results}  # executed, or in flight
    program_of = {(record["problem"], record["index"]): record["program"] for record in run.programs}
    total = sum(1 for _ in first_samples(run, problems, samples))
    with tqdm(total=total, desc="execute", unit="sample") as bar, _Results(run, bar) as results:
        for sample in first_samples(run, problems, samples):
            problem, index, program = sample["problem"], sample["index"], None
            if (problem, index) not in program_of:
                program = _program(extract, sample["completion"], problem_of(problem))
                digest = None if program is None else program_digest(program)
                results.link(problem, index, digest)
            else:
                digest = program_of[problem, index]
            if digest is not None and (problem, digest) not in taken:
                taken.add((problem, digest))
                program = _program(extract, sample["completion"], problem_of(problem)) if program is None else program
                assert program is not None
                results.expect(problem, digest, runner.submit(program, problem_of(problem)))
            else:
                bar.update()  # the others when their program has been run
        results.finish()
    return results.execution


def _program(extract: Callable[..., str | None], completion: str, problem: Problem) -> str | None:
    return extract(completion, True) if problem.program_prefix else extract(completion)


class _Results:
    """The programs in flight. What they tell is written as they finish, in whatever order."""

    def __init__(self, run: RunFolder, bar: tqdm) -> None:
        self.execution = Execution()
        self._run = run
        self._bar = bar
        self._stack = ExitStack()
        self._finished: SimpleQueue[tuple[str, str, Future[ProgramResult]]] = SimpleQueue()
        self._in_flight = 0
        self._links: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def __enter__(self) -> _Results:
        self._programs_log = self._stack.enter_context(self._run.programs.writer())
        self._results_log = self._stack.enter_context(self._run.results.writer())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def link(self, problem: str, index: int, digest: str | None) -> None:
        """Note which program a sample is."""
        self._links.append({"problem": problem, "index": index, "program": digest})
        self._write_in_time()

    def expect(self, problem: str, digest: str, future: Future[ProgramResult]) -> None:
        """Write the result of ``future`` when it is there; waits while too many are in flight."""
        self._in_flight += 1
        future.add_done_callback(lambda done: self._finished.put((problem, digest, done)))
        while self._in_flight >= IN_FLIGHT or not self._finished.empty():
            self._take()

    def finish(self) -> None:
        """Wait for all programs, and write everything."""
        while self._in_flight:
            self._take()
        self._write()

    def _take(self) -> None:
        problem, digest, future = self._finished.get()
        self._in_flight -= 1
        self._bar.update()
        result = future.result()
        if result.scored:
            self.execution.executed += 1
            self._records.append(_record(problem, digest, result))
        else:
            self.execution.failed += 1
            if len(self.execution.examples) < _EXAMPLES:
                self.execution.examples.append(f"{problem}: {_failure(result)}")
        self._write_in_time()

    def _write_in_time(self) -> None:
        if time.monotonic() - self._written > SECONDS_PER_APPEND:
            self._write()

    def _write(self) -> None:
        self._programs_log.append(self._links)
        self._results_log.append(self._records)
        self._links.clear()
        self._records.clear()
        self._written = time.monotonic()


def program_digest(program: str) -> str:
    """What a program is known by in the logs."""
    return hashlib.sha256(program.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def first_samples(run: RunFolder, problems: ProblemSet, samples: int) -> Iterator[dict[str, Any]]:
    """The records of the first ``samples`` samples of each problem of the set, each sample once."""
    seen = set()
    for record in run.samples:
        key = (record["problem"], record["index"])
        if record["index"] < samples and record["problem"] in problems.inputs and key not in seen:
            seen.add(key)
            yield record


def _record(problem: str, digest: str, result: ProgramResult) -> dict[str, Any]:
    """As a record of the result log: every test's verdict, a signature of what it printed, its answers where the runner
    tells them, why the first one failed."""
    answers = [test.answer.hex()[:24] for test in result.tests]
    return {
        "problem": problem,
        "program": digest,
        "verdicts": [str(test.verdict) for test in result.tests],
        "outputs": [_signature(test.output) for test in result.tests],
        **({"answers": answers} if any(answers) else {}),
        "cpu_seconds": [round(test.cpu_seconds, 4) for test in result.tests],
        "detail": next((t.detail[:_DETAIL] for t in result.tests if t.verdict is not Verdict.PASSED), ""),
    }


def _signature(output: bytes) -> str:
    """Outputs that differ in white space alone count as the same behaviour."""
    return hashlib.sha256(b" ".join(output.split())).hexdigest()[:12]


NO_OUTPUT = _signature(b"")
"""The signature of a program that has printed nothing but white space."""


def _failure(result: ProgramResult) -> str:
    details = [test.detail for test in result.tests if test.verdict is Verdict.INFRASTRUCTURE_ERROR]
    return details[0] if details and details[0] else "the runner gave no result"
