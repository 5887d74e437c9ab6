"""What running a program tells: a verdict for every test, and what a reward is made of.

A failure of the machinery is a verdict of its own. It is never a wrong answer and never a reward of 0: a program with
such a verdict has no score (``None``), and the group it belongs to goes on without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of one program on one test."""

    PASSED = "passed"
    WRONG = "wrong"
    CRASHED = "crashed"
    CPU_TIMEOUT = "cpu_timeout"
    WALL_TIMEOUT = "wall_timeout"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_MUCH_OUTPUT = "too_much_output"
    INFRASTRUCTURE_ERROR = "infrastructure_error"


@dataclass(frozen=True, slots=True)
class TestResult:
    """One program on one test."""

    __test__ = False  # not a pytest class

    verdict: Verdict
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    detail: str = ""  # for people: the last line of a traceback, the signal, what differed
    output: bytes = b""  # what was printed, cut to a few hundred bytes; the signature of the behaviour
    answer: bytes = b""  # a digest of all that it printed or returned, the same for equal ones; empty if it ended badly


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """One program on all tests of its problem, in the tests' order."""

    tests: tuple[TestResult, ...]

    @property
    def scored(self) -> bool:
        """Whether every test was really run."""
        return bool(self.tests) and all(t.verdict is not Verdict.INFRASTRUCTURE_ERROR for t in self.tests)

    @property
    def fraction(self) -> float | None:
        """The share of tests passed, in [0, 1] (the paper's *continuous* reward); None if not scored."""
        return _share(self.tests) if self.scored else None

    @property
    def all_passed(self) -> float | None:
        """1.0 if every test passed, else 0.0 (the paper's *binary* reward); None if not scored."""
        return None if self.fraction is None else float(self.fraction == 1.0)


def _share(tests: Sequence[TestResult]) -> float:
    return sum(t.verdict is Verdict.PASSED for t in tests) / len(tests)
