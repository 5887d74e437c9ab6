"""What a problem is: the one record that every source of problems is turned into.

A record says how programs are run and judged. It never holds a reference solution: those are kept apart
(:class:`ReferenceSolution`), so that a training or evaluation job cannot leak one into a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """How a program meets its tests."""

    STDIN = "stdin"  # a whole program: reads standard input, writes standard output
    FUNCTION = "function"  # a function or a method of ``class Solution``, called with JSON arguments
    ASSERTS = "asserts"  # a module that the tests' assert statements are run against
    ANSWER = "answer"  # no program: the answer in a completion is compared with the expected one


class Comparison(StrEnum):
    """How printed (or returned) output is compared with the expected one."""

    EXACT = "exact"  # byte for byte, but for one trailing newline
    TOKENS = "tokens"  # the same whitespace-separated tokens
    NUMERIC = "numeric"  # tokens; floats within tolerance, integers exactly
    CASE_INSENSITIVE = "case_insensitive"  # tokens, ignoring case
    UNORDERED_LINES = "unordered_lines"  # the same lines, in any order
    CHECKER = "checker"  # the problem's own checker program decides
    SCORE = "score"  # FUNCTION: the number from 0 to 1 that is returned is the score, whatever is expected
    MATH = "math"  # ANSWER: equal to the expected one, as math-verify sees it
    REASONING_GYM = "reasoning_gym"  # ANSWER: the score that the task's verifier gives


@dataclass(frozen=True, slots=True)
class Test:
    """One test, scored on its own.

    ``STDIN``: text for standard input and the expected standard output.
    ``FUNCTION``: ``input`` is a JSON list of positional arguments, ``output`` the JSON of the expected return value.
    ``ASSERTS``: ``input`` is Python source of one or more assert statements, ``output`` is empty.
    ``ANSWER``: ``output`` is the expected answer; ``input`` is what the comparison needs besides, as JSON, or empty.
    """

    __test__ = False  # not a pytest class

    input: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a program (one test) may use."""

    cpu_seconds: float = 4.0
    memory_bytes: int = 512 * 2**20  # address space beyond what the bare interpreter maps
    output_bytes: int = 2**20  # standard output and standard error, each


@dataclass(frozen=True, slots=True)
class Judge:
    """How outputs are judged. ``checker`` is Python source, used only with ``Comparison.CHECKER``."""

    comparison: Comparison = Comparison.TOKENS
    tolerance: float = 1e-6  # relative and absolute, for NUMERIC
    checker: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, from any source."""

    id: str  # unique over all sources, e.g. "codecontests/1575_A. Another Sorting Problem"
    statement: str
    tests: tuple[Test, ...]
    mode: Mode = Mode.STDIN
    entry_point: str | None = None  # FUNCTION: the name to call ("solve" or "Solution.solve")
    setup_code: str = ""  # FUNCTION, ASSERTS: runs before the program (imports, helper classes)
    starter_code: str = ""  # shown in the prompt
    program_prefix: str = ""  # completion tasks: the given beginning of the program
    limits: Limits = field(default_factory=Limits)
    judge: Judge = field(default_factory=Judge)
    public_tests: int = 0  # the first so many tests may be shown to a model or used to select among its samples
    source: str = ""  # "mini", "codecontests", …
    difficulty: str = ""  # as the source grades it
    provenance: Mapping[str, Any] = field(default_factory=dict)  # revision, split, original fields worth keeping

    def whole(self, program: str) -> str:
        """The program to run: with the given beginning put before one that goes on from it instead of repeating it."""
        if not self.program_prefix or program.startswith(self.program_prefix):
            return program
        return f"{self.program_prefix}\n{program}"


@dataclass(frozen=True, slots=True)
class ReferenceSolution:
    """A program that is known to solve the problem. Never part of a prompt or of a problem record."""

    problem_id: str
    program: str
