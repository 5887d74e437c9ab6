"""The one record that rows of every format become, and the documented format of one's own problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Test
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.source import Message, Rejected

COLUMNS = (
    *("id", "statement", "messages", "tests", "public_tests", "entry_point", "setup_code", "starter_code"),
    *("program_prefix", "time_limit", "memory_limit_mb", "comparison", "tolerance", "checker", "references"),
    *("split", "difficulty"),
)


@dataclass(frozen=True, slots=True)
class Record:
    """A problem as its file states it: before limits are scaled, tests checked and an id made unique."""

    tests: tuple[Test, ...]
    mode: Mode = Mode.STDIN
    statement: str = ""
    messages: tuple[Message, ...] = ()  # the prompt, word for word; else it is made of the statement
    narrative: str = ""  # what near-duplicates are found by, if it is not the statement
    id: str = ""  # empty: a hash of the statement
    public_tests: int = 0  # the first so many
    entry_point: str = ""
    setup_code: str = ""
    starter_code: str = ""
    program_prefix: str = ""
    seconds: float = 0.0  # 0: no limit is stated
    memory_bytes: float = 0.0
    judge: Judge | None = None  # None: by the kind of the tests
    references: tuple[str, ...] = ()
    other_tests: tuple[Test, ...] = ()  # another reading of the tests, if references fail the first
    split: str = ""  # empty: as the file is named
    difficulty: str = ""
    origin: str = ""


def read_record(row: Mapping[str, Any]) -> Record:
    """A row of the documented format.

    Raises:
        Rejected: naming the field.
    """
    entry_point = fields.text(row, "entry_point", "").strip()
    mode, tests = read_tests(row, "tests", entry_point)
    public: Any = row.get("public_tests")
    if isinstance(public, list | str):
        public_mode, shown = read_tests(row, "public_tests", entry_point)
        if tests and shown and public_mode is not mode:
            raise Rejected("mixed_test_types", "public_tests and tests are of different kinds")
        tests, number = tuple(dict.fromkeys((*shown, *tests))), len(dict.fromkeys(shown))
    else:
        number = fields.integer(row, "public_tests", 0)
    if not 0 <= number <= len(tests):
        raise Rejected("wrong_value", f"public_tests: {number} of {len(tests)} tests")
    return Record(
        tests=tests,
        mode=mode,
        statement=fields.text(row, "statement", ""),
        messages=messages(row, "messages"),
        id=identifier(row, "id"),
        public_tests=number,
        entry_point=entry_point,
        setup_code=fields.text(row, "setup_code", ""),
        starter_code=fields.text(row, "starter_code", ""),
        program_prefix=fields.text(row, "program_prefix", ""),
        seconds=_positive(row, "time_limit"),
        memory_bytes=_positive(row, "memory_limit_mb") * 2**20,
        judge=_judge(row, mode),
        references=programs(row, "references"),
        split=fields.text(row, "split", ""),
        difficulty=scalar(row, "difficulty"),
    )


def read_tests(row: Mapping[str, Any], name: str, entry_point: str) -> tuple[Mode, tuple[Test, ...]]:
    """Tests in one of three kinds: texts with asserts, calls (with an entry point), input and output.

    A mapping of two lists is read as a list of mappings, and JSON text as what it holds.
    """
    value = row.get(name)
    if isinstance(value, str):
        value = [value] if "assert" in value and value.lstrip()[:1] not in "[{" else fields.from_json(value, name)
    if value is None:
        if name == "tests" and isinstance(row.get("public_tests"), list | str):
            return Mode.STDIN, ()
        raise Rejected("missing_field", name)
    if isinstance(value, Mapping):
        inputs, outputs = fields.listing(value, "input"), fields.listing(value, "output")
        if len(inputs) != len(outputs):
            raise Rejected("unequal_tests", f"{name}: {len(inputs)} inputs, {len(outputs)} outputs")
        value = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    cases = fields.listing({name: value}, name)
    if not cases:
        raise Rejected("no_tests", f"{name}: an empty list")
    if all(isinstance(case, str) for case in cases):
        return Mode.ASSERTS, tuple(Test(fields.text({f"{name}[{i}]": c}, f"{name}[{i}]")) for i, c in enumerate(cases))
    found = []
    for i, case in enumerate(cases):
        where = f"{name}[{i}]"
        if not isinstance(case, Mapping):
            raise Rejected("wrong_type", f"{where}: expected input and output, found {type(case).__name__}")
        for key in ("input", "output"):
            if key not in case:
                raise Rejected("missing_field", f"{where}.{key} (there are: {', '.join(map(str, case))})")
        if entry_point:
            found.append(call(case["input"], case["output"], where))
        else:
            pair = [fields.text({f"{where}.{k}": case[k]}, f"{where}.{k}") for k in ("input", "output")]
            found.append(Test(*pair))
    return Mode.FUNCTION if entry_point else Mode.STDIN, tuple(found)


def call(given: Any, wanted: Any, where: str) -> Test:
    """A function call: a list of arguments and the value, or JSON texts of both."""
    if isinstance(given, str):
        given = fields.from_json(given, f"{where}.input")
        wanted = fields.from_json(wanted, f"{where}.output") if isinstance(wanted, str) else wanted
    if not isinstance(given, list):
        raise Rejected("wrong_type", f"{where}.input: expected a list of arguments, found {type(given).__name__}")
    return Test(as_json(given, f"{where}.input"), as_json(wanted, f"{where}.output"))


def as_json(value: Any, where: str) -> str:
    """JSON text of a value."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as e:
        raise Rejected("wrong_type", f"{where}: not JSON ({type(e).__name__})") from None


def messages(row: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    """Chat messages; none where there are none."""
    value: Any = row.get(name)
    if isinstance(value, str):
        value = fields.from_json(value, name)
    found = []
    for i, message in enumerate(fields.listing({name: value}, name, [])):
        if not isinstance(message, Mapping):
            raise Rejected("wrong_type", f"{name}[{i}]: expected role and content, found {type(message).__name__}")
        found.append({key: fields.text({f"{name}[{i}].{key}": message.get(key)}, f"{name}[{i}].{key}")
                      for key in ("role", "content")})  # fmt: skip
    return tuple(found)


def last_request(given: Sequence[Message]) -> str:
    """What the user says last."""
    return next((message["content"] for message in reversed(given) if message["role"] == "user"), "")


def programs(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Reference programs: a text, a list of texts, or JSON text of one; without the fences some data sets keep."""
    value: Any = row.get(name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):  # a program may begin with a bracket
            value = json.loads(value)
    if isinstance(value, str):
        value = [value]
    found = [_unfenced(text) for text in fields.texts({name: value}, name, [])]
    return tuple(text for text in found if text.strip())


def _unfenced(text: str) -> str:
    if not text.lstrip().startswith("```"):
        return text
    return text.lstrip().split("\n", 1)[-1].rpartition("```")[0]


def identifier(row: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that tells rows apart, as text."""
    return next((found for name in names if (found := scalar(row, name).strip())), "")


def scalar(row: Mapping[str, Any], name: str) -> str:
    """A text or a number as text; empty where there is none."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return fields.text(row, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Rejected("wrong_type", f"{name}: expected text or a number, found {type(value).__name__}")
    return str(value)


def _positive(row: Mapping[str, Any], name: str) -> float:
    value = fields.number(row, name, 0.0)
    if value < 0 or (row.get(name) is not None and not value):
        raise Rejected("wrong_value", f"{name}: must be above 0")
    return value


def _judge(row: Mapping[str, Any], mode: Mode) -> Judge | None:
    comparison, checker = fields.text(row, "comparison", ""), fields.text(row, "checker", "")
    tolerance = fields.number(row, "tolerance", 1e-6)
    if checker and comparison in ("", "checker"):
        if mode is not Mode.STDIN:
            raise Rejected("wrong_value", "checker: only for tests with input and output as text")
        return Judge(Comparison.CHECKER, checker=checker)
    if comparison not in ("", *Comparison) or comparison == "checker":
        known = ", ".join(c for c in Comparison if c != "checker")
        raise Rejected("wrong_value", f"comparison: {comparison!r:.40}; known are {known} (or give a checker)")
    if tolerance < 0:
        raise Rejected("wrong_value", "tolerance: must be at least 0")
    if comparison or row.get("tolerance") is not None:
        return Judge(Comparison(comparison or "numeric"), tolerance)
    return None
