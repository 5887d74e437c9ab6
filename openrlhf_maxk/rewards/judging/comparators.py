"""Comparing what a program printed with what was expected.

Everything works on bytes and on whole token lists: nothing is zipped, so a prefix never passes, and no token is turned
into a Python number except by a strict pattern of ASCII digits. The time is linear in the size of both sides.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

from openrlhf_maxk.problems.record import Comparison

_FLOAT = re.compile(rb"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_EXACTLY = Context(prec=800, Emax=MAX_EMAX, Emin=MIN_EMIN)  # digits of a finite float, and of one near it
_SHOWN = 60


def difference(actual: bytes, expected: str, comparison: Comparison, tolerance: float) -> str | None:
    """None if the output is right, else a short account of what differs, for people.

    ``EXACT`` ignores one trailing newline on each side. The others split at ASCII white space. ``NUMERIC`` allows
    ``|a - e| <= tolerance * max(1, |e|)`` where the expected token is a finite float, written with a point or an
    exponent, and the other a finite number. Where an integer is expected, a float may differ by ``tolerance`` itself,
    however large the integer, and an integer not at all, but for a sign of zero or a plus.
    ``CASE_INSENSITIVE`` ignores the case of ASCII letters. ``UNORDERED_LINES`` compares the lines that are not blank,
    as token lists, with their multiplicities.
    Raises ValueError for the others, which are not comparisons of two texts.
    """
    wanted = expected.encode("utf-8", "surrogatepass")
    if comparison is Comparison.EXACT:
        return _differ_exactly(_chomp(actual), _chomp(wanted))
    if comparison is Comparison.TOKENS:
        return _differ(actual.split(), wanted.split())
    if comparison is Comparison.CASE_INSENSITIVE:
        return _differ(actual.lower().split(), wanted.lower().split())
    if comparison is Comparison.NUMERIC:
        return _differ(actual.split(), wanted.split(), tolerance)
    if comparison is Comparison.UNORDERED_LINES:
        return _differ_in_lines(_lines(actual), _lines(wanted))
    raise ValueError(f"{comparison} does not compare two texts")


def canonical(output: bytes, comparison: Comparison) -> bytes:
    """One text for all outputs that :func:`difference` finds equal, tolerances aside; others count as ``TOKENS``."""
    if comparison is Comparison.EXACT:
        return _chomp(output)
    if comparison is Comparison.UNORDERED_LINES:
        return b"\n".join(sorted(_lines(output).elements()))
    return b" ".join((output.lower() if comparison is Comparison.CASE_INSENSITIVE else output).split())


def _chomp(text: bytes) -> bytes:
    return text.removesuffix(b"\n").removesuffix(b"\r")


def _differ_exactly(actual: bytes, expected: bytes) -> str | None:
    return None if actual == expected else f"expected {_show(expected)}, got {_show(actual)}"


def _differ(actual: list[bytes], expected: list[bytes], tolerance: float | None = None) -> str | None:
    if len(actual) != len(expected):
        return f"expected {len(expected)} tokens, got {len(actual)}"
    for position, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if a != e and not (tolerance is not None and _close(a, e, tolerance)):
            return f"token {position + 1}: expected {_show(e)}, got {_show(a)}"
    return None


def _close(actual: bytes, expected: bytes, tolerance: float) -> bool:
    wants_float, is_float = _FLOAT.fullmatch(expected), _FLOAT.fullmatch(actual)
    if not (is_float or _INTEGER.fullmatch(actual)) or not (wants_float or _INTEGER.fullmatch(expected)):
        return False
    if not (wants_float or is_float):
        return _unsigned(actual) == _unsigned(expected)
    a, e = float(actual), float(expected)
    if not (math.isfinite(a) and math.isfinite(e)):
        return False
    if wants_float:
        return abs(a - e) <= tolerance * max(1.0, abs(e))
    if abs(a - e) > 1.0 + tolerance * abs(e):  # far apart: not worth the digits
        return False
    gap = _EXACTLY.subtract(Decimal(actual.decode()), Decimal(expected.decode()))
    return abs(gap) <= Decimal(tolerance)


def _unsigned(integer: bytes) -> bytes:
    """An integer without a plus, and zeros without any sign. Leading zeros stay: digits may be a text."""
    return integer if integer.startswith(b"-") and integer.strip(b"-0") else integer.lstrip(b"+-")


def _lines(text: bytes) -> Counter[bytes]:
    lines = (b" ".join(line.split()) for line in text.split(b"\n"))
    return Counter(line for line in lines if line)


def _differ_in_lines(actual: Counter[bytes], expected: Counter[bytes]) -> str | None:
    if actual == expected:
        return None
    for line in expected - actual:
        return f"the line {_show(line)} is missing"
    for line in actual - expected:
        return f"the line {_show(line)} is not expected"
    return None


def _show(text: bytes) -> str:
    shown = text[:_SHOWN].decode("utf-8", "backslashreplace")
    return repr(shown) + ("…" if len(text) > _SHOWN else "")
