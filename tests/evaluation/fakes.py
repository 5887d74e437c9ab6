"""A model and a runner that are quick, deterministic, and write down what they were asked to do."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from openrlhf_maxk.evaluation.samples.records import Request, Sample
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict

KINDS = 12  # how many different programs the model knows


def note(path: Path | None, line: str) -> None:
    """Append a line in one write, so that killed processes leave whole lines."""
    if path is not None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, (line + "\n").encode())
        os.close(descriptor)


def number_of(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")


def make_problems(folder: Path, count: int = 5, public: int = 2, tests: int = 6, **changes) -> list[Problem]:
    """Problems in a store at ``folder``."""
    problems = [
        Problem(
            id=f"toy/{p:03d}",
            statement=f"problem {p}",
            tests=tuple(Test(f"{p} {t}", "0") for t in range(tests)),
            public_tests=public,
            source="toy" if p % 2 else "game",
            difficulty=str(p % 3),
            **changes,
        )
        for p in range(count)
    ]
    write_problems(folder, problems)
    return problems


class FakeSampler:
    """Completions that follow from prompt and seed alone."""

    def __init__(self, journal: Path | None = None, delay: float = 0.0, name: str = "fake", refuse: int = 0) -> None:
        self.journal, self.delay, self.name, self.refuse = journal, delay, name, refuse
        self.asked = 0

    def identity(self) -> dict[str, str]:
        return {"kind": self.name}

    def available(self, problem: str) -> None:
        return None

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        for request in requests:
            time.sleep(self.delay)
            self.asked += request.count
            batch = []
            for offset in range(request.count):
                kind = number_of(self.name, request.prompt, request.seed + offset) % KINDS
                note(self.journal, f"{request.problem} {request.first + offset}")
                text = "I do not know" if kind == 0 else f"```python\nprint({kind})\n```"
                batch.append(Sample(request.problem, request.first + offset, text, tokens=10, logprob=-kind / 4))
            yield batch[self.refuse :]


def extract(completion: str) -> str | None:
    return completion.split("```python\n")[1].split("```")[0] if "```" in completion else None


def result_of(program: str, problem: Problem) -> ProgramResult:
    """Program number k passes a share of the tests that grows with k."""
    kind = int(program.strip()[6:-1])
    verdicts = [
        Verdict.PASSED if number_of(problem.id, kind, t) % KINDS < kind else Verdict.WRONG
        for t in range(len(problem.tests))
    ]
    return ProgramResult(tuple(TestResult(v, 0.001, output=str(kind // 2).encode()) for v in verdicts))


class FakeRunner:
    """Runs nothing; some programs may be made to fail for infrastructure's sake."""

    def __init__(self, journal: Path | None = None, delay: float = 0.0, broken: frozenset[str] = frozenset()) -> None:
        self.journal, self.delay, self.broken = journal, delay, broken
        self.pool = ThreadPoolExecutor(2)

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        return self.pool.submit(self._run, program, problem)

    def _run(self, program: str, problem: Problem) -> ProgramResult:
        time.sleep(self.delay)
        note(self.journal, f"{problem.id} {program.strip()}")
        if program.strip() in self.broken:
            lost = TestResult(Verdict.INFRASTRUCTURE_ERROR, detail="the lane died")
            return ProgramResult((lost,) * len(problem.tests))
        return result_of(program, problem)

    @contextmanager
    def __call__(self) -> Iterator[FakeRunner]:
        yield self
