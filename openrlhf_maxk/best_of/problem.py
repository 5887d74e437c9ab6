"""A problem as its user gives it: a JSON record, or a text with examples. Only tests that may be seen are in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openrlhf_maxk.best_of.examples import examples_in
from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test

MOST_TESTS = 1000
MOST_SECONDS = 60.0  # CPU time of a test
MOST_MEGABYTES = 4096.0
FIELDS = (
    *("tests", "public_tests", "entry_point", "setup_code", "starter_code", "program_prefix"),
    *("comparison", "tolerance", "checker", "cpu_seconds", "memory_mb"),
)
"""What a record may hold besides its statement (and, in a file, an id)."""


class ProblemError(ValueError):
    """A problem that cannot be used; the message names the field and the fix."""


def problem_of(record: Mapping[str, Any], statement: str, name: str = "problem") -> Problem:
    """The problem that the fields of ``record`` describe, with the tests that a choice may be made by.

    ``tests`` are objects with ``input`` and ``output`` (texts; with ``entry_point`` the arguments as a list and the
    value), or texts of assert statements. ``public_tests`` says how many of the first ones may be seen, or holds them
    itself. Without both, the examples in ``statement`` are the tests.

    Raises:
        ProblemError: a field of another kind, or no tests.
    """
    entry_point = _text(record, "entry_point") or None
    mode, tests = _tests(record, entry_point)
    if not tests:
        if record.get("tests") is not None or record.get("public_tests") is not None:
            raise ProblemError("tests: there are none that may be seen, so nothing can choose among samples")
        mode, tests = examples_in(statement)
    if not tests:
        raise ProblemError(
            "tests: there are none, and no examples in the statement (lines Input and Output under a line Example, "
            'or >>> and a value): give a list of {"input": …, "output": …}, or of assert statements'
        )
    if len(tests) > MOST_TESTS:
        raise ProblemError(f"tests: {len(tests)} are more than {MOST_TESTS}: give fewer")
    return Problem(
        id=name,
        statement=statement,
        tests=tests,
        mode=mode,
        entry_point=entry_point,
        setup_code=_text(record, "setup_code"),
        starter_code=_text(record, "starter_code"),
        program_prefix=_text(record, "program_prefix"),
        limits=_limits(record),
        judge=_judge(record),
        public_tests=len(tests),
    )


def problem_in(content: str) -> Problem:
    """The problem that a file holds: a JSON object with ``statement`` and the fields of :func:`problem_of`, else text.

    Raises:
        ProblemError: a record without a statement, with an unknown field or one of another kind; no tests.
    """
    if not content.lstrip().startswith("{"):
        return problem_of({}, content)
    try:
        record = json.loads(content)
    except ValueError as error:
        raise ProblemError(f"it begins as a JSON object and is none: {error}") from None
    statement = record.get("statement")
    if not isinstance(statement, str) or not statement.strip():
        raise ProblemError("statement: it must be a text that is not empty")
    if unknown := sorted(record.keys() - {"id", "statement", *FIELDS}):
        raise ProblemError(f"{unknown[0]}: there is no such field; known are id, statement, {', '.join(FIELDS)}")
    return problem_of(record, statement, _text(record, "id") or "problem")


def _tests(record: Mapping[str, Any], entry_point: str | None) -> tuple[Mode, tuple[Test, ...]]:
    name, public = "tests", record.get("public_tests")
    if isinstance(public, list):
        name, public = "public_tests", None
    found = record.get(name)
    if found is None:
        if public is not None:
            raise ProblemError("public_tests: it says how many of tests may be seen, and there are no tests")
        return Mode.STDIN, ()
    if not isinstance(found, list):
        raise ProblemError(f"{name}: it must be a list, not {type(found).__name__}")
    if public is not None:
        if isinstance(public, bool) or not isinstance(public, int) or not 0 <= public <= len(found):
            raise ProblemError(f"public_tests: it must be a list, or a number up to {len(found)}, not {public!r}")
        found = found[:public]
    if found and all(isinstance(test, str) for test in found):
        return Mode.ASSERTS, tuple(map(Test, found))
    mode = Mode.STDIN if entry_point is None else Mode.FUNCTION
    return mode, tuple(_test(f"{name}[{number}]", test, mode) for number, test in enumerate(found))


def _test(name: str, test: Any, mode: Mode) -> Test:
    if not isinstance(test, Mapping) or test.keys() != {"input", "output"}:
        raise ProblemError(f"{name}: it must be an object with input and output (all tests, or all texts of asserts)")
    if mode is Mode.STDIN:
        for part in ("input", "output"):
            if not isinstance(test[part], str):
                raise ProblemError(
                    f"{name}.{part}: it must be a text, not {type(test[part]).__name__}: what is read and printed "
                    "(entry_point names a function, if one is to be called)"
                )
        return Test(test["input"], test["output"])
    if not isinstance(test["input"], list):
        raise ProblemError(f"{name}.input: it must be the list of arguments, not {type(test['input']).__name__}")
    return Test(json.dumps(test["input"]), json.dumps(test["output"]))


def _judge(record: Mapping[str, Any]) -> Judge:
    checker = _text(record, "checker") or None
    usual = Comparison.CHECKER if checker else Comparison.TOKENS
    given = usual if record.get("comparison") is None else record["comparison"]
    if given not in list(Comparison):
        raise ProblemError(f"comparison: it must be one of {', '.join(Comparison)}, not {given!r}")
    return Judge(Comparison(given), _number(record, "tolerance", 1e-6, 1e9), checker)


def _limits(record: Mapping[str, Any]) -> Limits:
    usual = Limits()
    megabytes = _number(record, "memory_mb", usual.memory_bytes / 2**20, MOST_MEGABYTES)
    seconds = _number(record, "cpu_seconds", usual.cpu_seconds, MOST_SECONDS)
    return Limits(seconds, max(1, int(megabytes * 2**20)), usual.output_bytes)


def _text(record: Mapping[str, Any], name: str) -> str:
    found = record.get(name)
    if found is not None and not isinstance(found, str):
        raise ProblemError(f"{name}: it must be a text, not {type(found).__name__}")
    return found or ""


def _number(record: Mapping[str, Any], name: str, default: float, most: float) -> float:
    found = record.get(name)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= most:
        raise ProblemError(f"{name}: it must be a number above 0, up to {most:g}, not {found!r}")
    return float(found)
