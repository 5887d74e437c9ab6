"""Turning raw inputs and outputs into tests: repeated ones dropped, sizes kept in bounds, limits scaled for Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Test
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.reading.fields import from_json, text
from openrlhf_maxk.problems.sources.reading.unpickle import unpack
from openrlhf_maxk.problems.sources.source import Rejected

MIB = 2**20
ANY_CASE = re.compile(
    r"\b(letters?|characters?|string|answer|yes|no|it|them)\b[^.]{0,40}"
    r"\bin (any|either|arbitrary) (letter )?(case|register)\b"
    r"|\bcase[- ]insensitive|\bin any case \((upper|lower)",
    re.IGNORECASE,
)
DECIMAL = re.compile(r"\d\.\d|\d[eE][-+]?\d")

# What solutions written for LeetCode expect to be there.
LEETCODE_SETUP = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect, bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, groupby, pairwise, permutations, product
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, prod, sqrt
from typing import *
"""


def stdin_tests(parts: Iterable[Sequence[tuple[str, str]]], options: PrepareOptions) -> tuple[Test, ...]:
    """Tests from (input, output) pairs; of several with one input the first counts.

    Raises:
        Rejected: "no_tests", "empty_outputs", or "absurd_size" with what is too large.
    """
    outputs: dict[str, str] = {}
    for part in parts:
        for given, wanted in part:
            outputs.setdefault(given, wanted)
    tests = tuple(Test(given, wanted) for given, wanted in outputs.items())
    if tests and not any(test.output.strip() for test in tests):
        raise Rejected("empty_outputs", f"none of {len(tests)} tests expects any output")
    check_sizes(tests, options)
    return tests


def check_sizes(tests: Sequence[Test], options: PrepareOptions) -> None:
    """Refuse no tests, too many, and too large ones."""
    if not tests:
        raise Rejected("no_tests")
    if len(tests) > options.max_tests:
        raise Rejected("absurd_size", f"{len(tests)} tests")
    sizes = [len(t.input.encode()) + len(t.output.encode()) for t in tests]
    if max(sizes) > options.max_test_mb * MIB:
        raise Rejected("absurd_size", f"a test of {max(sizes)} bytes")
    if sum(sizes) > options.max_tests_mb * MIB:
        raise Rejected("absurd_size", f"tests of {sum(sizes)} bytes")


def check_statement(statement: str, options: PrepareOptions) -> str:
    """The statement without blank ends.

    Raises:
        Rejected: "empty_statement", "absurd_size".
    """
    if len(statement) > options.max_statement_chars:
        raise Rejected("absurd_size", f"a statement of {len(statement)} characters")
    if not statement.strip():
        raise Rejected("empty_statement")
    return statement.strip()


def scaled_limits(
    options: PrepareOptions, tests: Sequence[Test], seconds: float = 0, memory_bytes: float = 0
) -> Limits:
    """Limits for Python from a problem's own, and enough output for its tests.

    Args:
        seconds: the original time limit; 0: none is stated.
        memory_bytes: the original memory limit; 0: none is stated.
    """
    cpu = (seconds or options.cpu_seconds) * options.time_scale
    memory = max(int(memory_bytes * options.memory_scale), options.memory_mb * MIB)
    output = max((len(test.output.encode()) for test in tests), default=0)
    return Limits(
        cpu_seconds=min(max(cpu, 1.0), options.max_cpu_seconds),
        memory_bytes=min(memory, 8 * 1024 * MIB),
        output_bytes=max(MIB, 2 * output),
    )


def contest_judge(statement: str, tests: Sequence[Test]) -> Judge:
    """How a contest compares outputs: by tokens, numbers with tolerance; letters of any case where it says so."""
    if ANY_CASE.search(statement) and not any(DECIMAL.search(t.output) for t in tests):
        return Judge(Comparison.CASE_INSENSITIVE)
    return Judge(Comparison.NUMERIC)


def packed_cases(row: Any, name: str, options: PrepareOptions) -> list[Any]:
    """The test cases of LiveCodeBench and LiveBench: a list, JSON text of one, or base64 of a packed JSON text.

    Raises:
        Rejected: with the step that failed.
    """
    value = row.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        if len(value) > options.max_decoded_mb * MIB:
            raise Rejected("unpacks_too_large", f"{name}: {len(value)} characters")
        if not value.lstrip().startswith("["):
            value = unpack(value, options.max_decoded_mb * MIB)
        value = from_json(value, name)
    if not isinstance(value, list):
        raise Rejected("wrong_type", f"{name}: expected a list, found {type(value).__name__}")
    return value


def typed_tests(public: list[Any], private: list[Any], options: PrepareOptions) -> tuple[Mode, tuple[Test, ...], int]:
    """Mode, tests and number of public tests, from cases with ``input``, ``output`` and ``testtype``.

    Raises:
        Rejected: "unknown_test_type", "mixed_test_types", "bad_function_test", and as :func:`stdin_tests`.
    """
    types = set()
    pairs: list[list[tuple[str, str]]] = []
    for name, cases in (("public", public), ("private", private)):
        found = []
        for i, case in enumerate(cases):
            if not isinstance(case, dict):
                raise Rejected("wrong_type", f"{name} test {i}: expected a mapping, found {type(case).__name__}")
            types.add(text(case, "testtype"))
            found.append((text(case, "input"), text(case, "output")))
        pairs.append(found)
    if not types:
        raise Rejected("no_tests")
    if unknown := types - {"stdin", "functional"}:
        raise Rejected("unknown_test_type", min(unknown)[:40])
    if len(types) > 1:
        raise Rejected("mixed_test_types")
    if types == {"stdin"}:
        tests = stdin_tests(pairs, options)
        return Mode.STDIN, tests, len(dict(pairs[0]))
    calls = [[_function_test(given, wanted) for given, wanted in part] for part in pairs]
    unique = {t.input: t for part in reversed(calls) for t in reversed(part)}
    ordered = tuple(unique[given] for given in dict.fromkeys(t.input for part in calls for t in part))
    check_sizes(ordered, options)
    return Mode.FUNCTION, ordered, len({t.input for t in calls[0]})


def _function_test(given: str, wanted: str) -> Test:
    """LeetCode's form, one JSON argument a line, as one JSON list."""
    arguments = [line for line in given.split("\n") if line.strip()]
    for part in (*arguments, wanted):
        try:
            from_json(part, "")
        except Rejected:
            raise Rejected("bad_function_test", f"not JSON: {part[:60]!r}") from None
    return Test(f"[{', '.join(arguments)}]", wanted.strip())
