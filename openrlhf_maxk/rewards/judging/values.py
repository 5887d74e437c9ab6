"""Comparing values that a program returned (:mod:`..sandbox.values` says how they are written) with expected ones.

Nothing here builds a set or a dictionary from what a program chose, nor hashes it: time is linear in its size, but for
sorting the members of sets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from openrlhf_maxk.problems.record import Comparison
from openrlhf_maxk.rewards.sandbox.values import encode

_LARGEST_EXPONENT = 400  # of decimals that are turned into exact fractions
_LONGEST_FRACTION = 10_000  # hexadecimal digits of each part


class MalformedError(ValueError):
    """Not a value as the sandbox writes it: the program has written it itself."""


def loads(text: bytes) -> Any:
    """Read an encoded value. Raises MalformedError."""
    try:
        return json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedError("what it returned cannot be read") from error


def _integer(digits: str) -> int:
    if len(digits) > 20:  # larger ones come as hexadecimal text; reading decimal digits takes quadratic time
        raise ValueError("a long integer")
    return int(digits)


def json_view(encoded: Any) -> Any:
    """What the value would be after a trip through JSON: tuples are lists, keys are strings. Raises MalformedError."""
    with _malformed():
        return _json_view(encoded)


def same(actual: Any, expected: Any, comparison: Comparison, tolerance: float) -> bool:
    """Whether two encoded values are equal, as Python's ``==`` would say of the values themselves.

    ``NUMERIC``: two numbers, one of them a float, may differ by ``tolerance * max(1, |expected|)``.
    ``CASE_INSENSITIVE``: ASCII letters in strings. ``UNORDERED_LINES``: the members of an outermost list or tuple.
    Raises MalformedError.
    """
    with _malformed():
        if comparison is Comparison.NUMERIC:
            return _close(actual, expected, tolerance)
        return _text(actual, comparison) == _text(expected, comparison)


def canonical(encoded: Any, comparison: Comparison) -> str:
    """One text for all values that are :func:`same`, tolerances aside. Raises MalformedError."""
    with _malformed():
        return _text(encoded, comparison)


def _text(encoded: Any, comparison: Comparison) -> str:
    unordered = _unordered(encoded) if comparison is Comparison.UNORDERED_LINES else encoded
    return _canonical(unordered, comparison is Comparison.CASE_INSENSITIVE)


def close(actual: Any, expected: float, relative: float, absolute: float, strict: bool) -> bool:
    """Whether a number that was sent is near ``expected``, as ``math.isclose`` says; ``strict``: nearer than that.

    Raises MalformedError.
    """
    with _malformed():
        if not _is_number(actual):
            return False
        try:
            value = float(_number(actual))  # type: ignore[arg-type]
        except (OverflowError, TypeError):
            return False
        bound = max(relative * max(abs(value), abs(expected)), absolute)
        gap = abs(value - expected)
        return math.isfinite(value) and (gap < bound if strict else gap <= bound)


@contextmanager
def _malformed() -> Iterator[None]:
    """Whatever a made-up value breaks is its own fault."""
    try:
        yield
    except RecursionError as error:
        raise MalformedError("what it returned is nested too deeply") from error
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise MalformedError("what it returned cannot be read") from error


def encoded_json(text: str) -> Any:
    """JSON of a data set, encoded. Raises ValueError if it is not JSON."""
    return encode(json.loads(text))


def _json_view(encoded: Any) -> Any:
    if isinstance(encoded, list):
        return [_json_view(item) for item in encoded]
    if isinstance(encoded, dict):
        name, content = _tagged(encoded)
        if name == "tuple":
            return [_json_view(item) for item in content]
        if name == "dict":
            return {"dict": [[_key(key), _json_view(item)] for key, item in _pairs(content)]}
    return encoded


def _tagged(encoded: dict[str, Any]) -> tuple[str, Any]:
    if len(encoded) != 1:
        raise MalformedError("what it returned cannot be read")
    return next(iter(encoded.items()))


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    return [(key, item) for key, item in content]


def _key(key: Any) -> str:
    """A dictionary key as JSON writes it."""
    if isinstance(key, str):
        return key
    return json.dumps(key if isinstance(key, bool) or not _is_number(key) else _number(key))


def _unordered(encoded: Any) -> Any:
    members = encoded if isinstance(encoded, list) else encoded.get("tuple") if isinstance(encoded, dict) else None
    return encoded if members is None else sorted(members, key=lambda item: _canonical(item, False))


def _canonical(encoded: Any, fold: bool) -> str:
    """One text for all values that are equal, and only for those."""
    if encoded is None:
        return "null"
    if isinstance(encoded, str):
        return json.dumps(_fold(encoded) if fold else encoded)
    if isinstance(encoded, list):
        return "[" + ",".join(_canonical(item, fold) for item in encoded) + "]"
    if _is_number(encoded):
        return _number_text(_number(encoded))
    name, content = _tagged(encoded)
    if name == "tuple":
        return "(" + ",".join(_canonical(item, fold) for item in content) + ")"
    if name == "set":
        return "{" + ",".join(sorted({_canonical(item, fold) for item in content})) + "}"
    if name == "dict":
        items = {_canonical(key, fold): _canonical(item, fold) for key, item in _pairs(content)}
        return "{:" + ",".join(f"{key}:{item}" for key, item in sorted(items.items())) + "}"
    if name == "bytes":
        return f"b{bytes.fromhex(content).hex()}"
    raise MalformedError("what it returned cannot be read")


def _fold(text: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def _is_number(encoded: Any) -> bool:
    if isinstance(encoded, (bool, int, float)):
        return True
    return isinstance(encoded, dict) and len(encoded) == 1 and next(iter(encoded)) in _NUMBERS


def _number(encoded: Any) -> int | float | complex | Fraction | Decimal:
    if isinstance(encoded, (bool, int, float)):
        return int(encoded) if isinstance(encoded, bool) else encoded
    name, content = _tagged(encoded)
    return _NUMBERS[name](content)


def _decimal(text: Any) -> Decimal | Fraction:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise MalformedError("what it returned cannot be read") from error
    exact = value.is_finite() and abs(value.adjusted()) < _LARGEST_EXPONENT and len(text) < 2 * _LARGEST_EXPONENT
    return Fraction(value) if exact else value


def _fraction(content: Any) -> Fraction:
    if len(content) != 2 or max(len(part) for part in content) > _LONGEST_FRACTION:
        raise MalformedError("what it returned is too long a fraction")  # reducing it takes quadratic time
    return Fraction(int(content[0], 16), int(content[1], 16))


_NUMBERS: dict[str, Callable[[Any], int | complex | Fraction | Decimal]] = {
    "int": lambda content: int(content, 16),
    "complex": lambda content: complex(float(content[0]), float(content[1])),
    "fraction": _fraction,
    "decimal": _decimal,
}


def _number_text(value: Any) -> str:
    if isinstance(value, complex):
        if value.imag:
            return f"c{_number_text(value.real)},{_number_text(value.imag)}"
        value = value.real
    if isinstance(value, Decimal):
        return f"d{value}" if value.is_finite() else _number_text(float(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        value = Fraction(value)
    if isinstance(value, Fraction):
        return f"{value.numerator:x}" + (f"/{value.denominator:x}" if value.denominator != 1 else "")
    return f"{value:x}"


def _close(actual: Any, expected: Any, tolerance: float) -> bool:
    if _is_number(actual) and _is_number(expected):
        a, e = _number(actual), _number(expected)
        if isinstance(a, float) or isinstance(e, float):
            try:
                a, e = float(a), float(e)  # type: ignore[arg-type]
            except (OverflowError, TypeError):
                return False
            if math.isfinite(a) and math.isfinite(e):
                return abs(a - e) <= tolerance * max(1.0, abs(e))
        return _number_text(a) == _number_text(e)
    for kind in (None, "tuple"):
        a, e = _members(actual, kind), _members(expected, kind)
        if a is not None and e is not None:
            return len(a) == len(e) and all(_close(x, y, tolerance) for x, y in zip(a, e, strict=True))
    a, e = _members(actual, "dict"), _members(expected, "dict")
    if a is not None and e is not None:
        wanted = {_canonical(key, False): item for key, item in _pairs(e)}
        found = {_canonical(key, False): item for key, item in _pairs(a)}
        return wanted.keys() == found.keys() and all(_close(found[key], wanted[key], tolerance) for key in wanted)
    return _canonical(actual, False) == _canonical(expected, False)


def _members(encoded: Any, kind: str | None) -> Any:
    if kind is None:
        return encoded if isinstance(encoded, list) else None
    return encoded.get(kind) if isinstance(encoded, dict) else None
