"""Reading a row's fields: the value in the type that is wanted, or a rejection that names the field."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from openrlhf_maxk.problems.sources.source import Rejected


def text(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A string with Unix line ends.

    Raises:
        Rejected: "missing_field" (only without a default), "wrong_type" or "not_unicode".
    """
    value = _get(row, name, default)
    if not isinstance(value, str):
        raise Rejected("wrong_type", f"{name}: expected text, found {type(value).__name__}")
    return clean(value, name)


def clean(value: str, name: str) -> str:
    """Unix line ends, and nothing that cannot be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise Rejected("not_unicode", f"{name}: a lone surrogate at character {e.start}") from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


def day(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """The day of a date, as YYYY-MM-DD ("" only with a default); files hold dates as text or as timestamps.

    Raises:
        Rejected: "missing_field" (only without a default) or "wrong_type".
    """
    value = _get(row, name, default)
    value = value.isoformat() if isinstance(value, datetime.date) else text(row, name, default).strip()
    if not value and default is None:
        raise Rejected("missing_field", name)
    if value and not re.match(r"\d{4}-\d\d-\d\d(?!\d)", value):
        raise Rejected("wrong_type", f"{name}: expected YYYY-MM-DD, found {value[:10]!r}")
    return value[:10]


def integer(row: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number (also one that was stored as a float)."""
    value = _get(row, name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Rejected("wrong_type", f"{name}: expected a whole number, found {_show(value)}")
    return value


def number(row: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number."""
    value = _get(row, name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise Rejected("wrong_type", f"{name}: expected a number, found {_show(value)}")
    return float(value)


def listing(row: Mapping[str, Any], name: str, default: Sequence[Any] | None = None) -> Sequence[Any]:
    """A list."""
    value = _get(row, name, default)
    if not isinstance(value, list | tuple):
        raise Rejected("wrong_type", f"{name}: expected a list, found {_show(value)}")
    return value


def texts(row: Mapping[str, Any], name: str, default: Sequence[str] | None = None) -> list[str]:
    """A list of strings."""
    values = listing(row, name, default)
    return [text({f"{name}[{i}]": value}, f"{name}[{i}]") for i, value in enumerate(values)]


def mapping(row: Mapping[str, Any], name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A mapping; JSON text of one is read."""
    value = _get(row, name, default)
    if isinstance(value, str):
        value = from_json(value, name)
    if not isinstance(value, Mapping):
        raise Rejected("wrong_type", f"{name}: expected a mapping, found {_show(value)}")
    return value


def from_json(value: str, name: str) -> Any:
    """What JSON text holds.

    Raises:
        Rejected: "invalid_json".
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as e:
        raise Rejected("invalid_json", f"{name}: {json_fault(e)}") from None


def json_fault(error: Exception) -> str:
    """What was wrong with JSON text, in words that do not depend on the depth of the stack."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def pairs(row: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """(input, output) of tests, kept as a mapping of two lists or as a list of mappings. Absent: none.

    Raises:
        Rejected: "unequal_tests" if there are more inputs than outputs or the other way round; and as :func:`text`.
    """
    value = row.get(name)
    if value is None:
        return []
    if isinstance(value, Mapping):
        inputs, outputs = texts(value, "input", []), texts(value, "output", [])
        if len(inputs) != len(outputs):
            raise Rejected("unequal_tests", f"{name}: {len(inputs)} inputs, {len(outputs)} outputs")
        return list(zip(inputs, outputs, strict=True))
    found = []
    for i, test in enumerate(listing(row, name)):
        if not isinstance(test, Mapping):
            raise Rejected("wrong_type", f"{name}[{i}]: expected a mapping, found {_show(test)}")
        found.append((text(test, "input"), text(test, "output")))
    return found


def _get(row: Mapping[str, Any], name: str, default: Any) -> Any:
    value = row.get(name)
    if value is None:
        if default is None:
            raise Rejected("missing_field", name)
        return default
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _show(value: Any) -> str:
    if isinstance(value, bool | float):
        return repr(value)
    return type(value).__name__
