"""Tests as inputs and outputs: APPS and TACO, verl's Parquet (PRIME's too), DeepCoder, open-r1's verification_info.

All are variations of two shapes: a mapping of two lists (``inputs``, ``outputs``, and ``fn_name`` where a function is
called), and a list of cases. Programs are called with JSON lines or with lists, and results may stand in a list of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.problems.record import Mode, Test
from openrlhf_maxk.problems.sources.conversion.cases import LEETCODE_SETUP
from openrlhf_maxk.problems.sources.formats.record import (
    Record,
    as_json,
    identifier,
    last_request,
    messages,
    programs,
    scalar,
)
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.source import Rejected

SIZES = {"kilobytes": 2**10, "kb": 2**10, "megabytes": 2**20, "mb": 2**20, "gigabytes": 2**30, "gb": 2**30, "bytes": 1}


@dataclass(frozen=True)
class Tests:
    """What the tests of a row are."""

    __test__ = False  # not a pytest class

    mode: Mode
    tests: tuple[Test, ...]
    function: str = ""
    other: tuple[Test, ...] = ()  # with the results as they stand, where the first reading takes them out of a list


def apps(row: Mapping[str, Any]) -> Record:
    """APPS and TACO: ``question``, ``input_output``, ``solutions``."""
    tests = read(fields.mapping(row, "input_output"), "input_output")
    starter, references = fields.text(row, "starter_code", ""), programs(row, "solutions")
    return _record(
        tests,
        starter,
        references,
        statement=fields.text(row, "question"),
        id=identifier(row, "problem_id", "id", "name"),
        seconds=_quantity(row, "time_limit", {"seconds": 1, "second": 1, "s": 1, "ms": 0.001}),
        memory_bytes=_quantity(row, "memory_limit", SIZES),
        difficulty=scalar(row, "difficulty"),
        origin=fields.text(row, "source", ""),
    )


def verl(row: Mapping[str, Any]) -> Record:
    """verl's Parquet: ``prompt`` (messages), ``reward_model.ground_truth``, ``extra_info``; PRIME's data is so too."""
    model = fields.mapping(row, "reward_model")
    truth, name = model.get("ground_truth"), "reward_model.ground_truth"
    extra = fields.mapping(row, "extra_info", {})
    if isinstance(truth, str) and truth.lstrip()[:1] in ("{", "["):
        truth = fields.from_json(truth, name)
    if not isinstance(truth, Mapping | list):
        raise Rejected("not_code", f"{name}: expected inputs and outputs, or a list of tests; only code is prepared")
    prompt = row.get("prompt")
    chat = () if isinstance(prompt, str) else messages(row, "prompt")
    statement = prompt if isinstance(prompt, str) else last_request(chat)
    return _record(
        read(truth, name),
        statement,
        programs(extra, "solution") or programs(extra, "reference"),
        statement=statement,
        messages=chat,
        id=identifier(extra, "id", "index"),
        split=fields.text(extra, "split", ""),
        origin=fields.text(row, "data_source", ""),
    )


def deepcoder(row: Mapping[str, Any]) -> Record:
    """DeepCoder: ``problem`` and ``tests`` (JSON), in all its four subsets."""
    tests: Any = row.get("tests")
    if isinstance(tests, str):
        tests = fields.from_json(tests, "tests")
    starter = fields.text(row, "starter_code", "")
    metadata = fields.mapping(row, "metadata", {})
    return _record(
        read(tests, "tests", fields.text(metadata, "func_name", "")),
        starter,
        programs(row, "solutions"),
        statement=fields.text(row, "problem"),
        id=identifier(row, "id", "problem_id"),
    )


def open_r1(row: Mapping[str, Any]) -> Record:
    """open-r1 and SYNTHETIC-1: ``prompt`` and ``verification_info`` with ``language`` and ``test_cases``."""
    info = fields.mapping(row, "verification_info")
    language = fields.text(info, "language", "python").lower()
    if language not in ("python", "python3", "py"):
        raise Rejected("not_python", f"verification_info.language: {language[:40]!r}")
    cases: Any = info.get("test_cases")
    if isinstance(cases, str):
        cases = fields.from_json(cases, "verification_info.test_cases")
    prompt = row.get("problem") if row.get("prompt") is None else row.get("prompt")
    chat = () if isinstance(prompt, str) else messages({"prompt": prompt}, "prompt")
    statement = prompt if isinstance(prompt, str) else last_request(chat)
    return _record(
        read(cases, "verification_info.test_cases", fields.text(info, "fn_name", "")),
        statement,
        programs(row, "gold_standard_solution"),
        statement=statement,
        messages=chat,
        id=identifier(row, "problem_id", "in_source_id"),
        origin=fields.text(row, "source", ""),
    )


def _record(tests: Tests, starter: str, references: tuple[str, ...], **others: Any) -> Record:
    """A record; a function is a method where the given code or a reference has it in ``class Solution``."""
    entry_point, setup = tests.function, ""
    if tests.mode is Mode.FUNCTION:
        setup = LEETCODE_SETUP
        if "class Solution" in starter or any("class Solution" in program for program in references):
            entry_point = f"Solution.{entry_point}"
    code = starter if starter != others.get("statement") else ""
    return Record(
        tests=tests.tests,
        other_tests=tests.other,
        mode=tests.mode,
        entry_point=entry_point,
        setup_code=setup,
        starter_code=code,
        references=references,
        **others,
    )


def read(value: Any, name: str, function: str = "") -> Tests:
    """Tests in any of the shapes.

    Args:
        function: what is called, where the tests themselves do not say.
    Raises:
        Rejected: naming the field.
    """
    if isinstance(value, Mapping) and "assert_case" in value:
        value = fields.texts(value, "assert_case")
    if isinstance(value, Mapping):
        function = fields.text(value, "fn_name", function)
        inputs, outputs = fields.listing(value, "inputs"), fields.listing(value, "outputs")
        if len(inputs) != len(outputs):
            raise Rejected("unequal_tests", f"{name}: {len(inputs)} inputs, {len(outputs)} outputs")
        return _calls(inputs, outputs, function, name) if function else _programs(inputs, outputs, name)
    cases = fields.listing({name: value}, name)
    if not cases:
        raise Rejected("no_tests", name)
    if all(isinstance(case, str) for case in cases):
        return Tests(Mode.ASSERTS, tuple(Test(source) for source in fields.texts({name: value}, name)))
    inputs, outputs, kinds, functions = [], [], set(), set()
    for i, case in enumerate(cases):
        if not isinstance(case, Mapping) or "input" not in case or "output" not in case:
            raise Rejected("wrong_type", f"{name}[{i}]: expected input and output")
        metadata = fields.mapping(case, "metadata", {})
        called = fields.text(case, "fn_name", "") or fields.text(metadata, "func_name", "")
        kind = str(case.get("type") or case.get("testtype") or "")
        kinds.add(kind in ("functional", "function_call") or bool(called))
        functions.add(called or function)
        inputs.append(case["input"])
        outputs.append(case["output"])
    if len(kinds) > 1 or (kinds == {True} and len(functions) > 1):
        raise Rejected("mixed_test_types", f"{name}: programs and functions, or several functions")
    if kinds == {True}:
        called = functions.pop()
        if not called:
            raise Rejected("missing_field", f"{name}[0].fn_name")
        return _calls(inputs, outputs, called, name)
    return _programs(inputs, outputs, name)


def _programs(inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> Tests:
    given = [_lines(text, f"{name}.inputs[{i}]") for i, text in enumerate(inputs)]
    wanted = [_lines(text, f"{name}.outputs[{i}]") for i, text in enumerate(outputs)]
    return Tests(Mode.STDIN, tuple(map(Test, given, wanted)))


def _lines(value: Any, name: str) -> str:
    """Text, or a list of its lines."""
    if isinstance(value, list):
        return "\n".join(_lines(line, name) for line in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return fields.text({name: value}, name)


def _calls(inputs: Sequence[Any], outputs: Sequence[Any], function: str, name: str) -> Tests:
    """Calls. A result that stands in a list of one everywhere is taken out of it, if references agree."""
    arguments, results = [], []
    for i, (given, wanted) in enumerate(zip(inputs, outputs, strict=True)):
        if isinstance(given, str):  # one argument a line, and the result, as JSON
            where = f"{name}.inputs[{i}]"
            given = [fields.from_json(line, where) for line in given.split("\n") if line.strip()]
            wanted = fields.from_json(wanted, f"{name}.outputs[{i}]") if isinstance(wanted, str) else wanted
        if not isinstance(given, list):
            raise Rejected("wrong_type", f"{name}.inputs[{i}]: expected a list of arguments")
        arguments.append(as_json(given, f"{name}.inputs[{i}]"))
        results.append(wanted)
    in_lists = all(isinstance(result, list) and len(result) == 1 for result in results)
    readings = [[r[0] for r in results], results] if in_lists else [results]
    first, *more = (
        tuple(Test(a, as_json(r, f"{name}.outputs")) for a, r in zip(arguments, reading, strict=True))
        for reading in readings
    )
    return Tests(Mode.FUNCTION, first, function, more[0] if more else ())


def _quantity(row: Mapping[str, Any], name: str, units: Mapping[str, float]) -> float:
    """ "2.0 seconds" or "256 megabytes" as a number; 0 where there is none that can be read."""
    value = row.get(name)
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)", value.lower()) if isinstance(value, str) else None
    return float(match[1]) * units.get(match[2], 0) if match else 0.0
