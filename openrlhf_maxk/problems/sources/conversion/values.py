"""Python values as text: written the same way everywhere, described in words, and compared as ``==`` compares them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from openrlhf_maxk.problems.sources.conversion.expressions import NotAValue

MAX_LITERAL = 1_000_000  # characters

ARTICLES = {int: "an integer", float: "a floating-point number", str: "a string", bool: "True or False"}
PLURALS = {int: "integers", float: "floating-point numbers", str: "strings", bool: "Booleans"}


def literal(value: Any) -> str:
    """The value as ``ast.literal_eval`` reads it back, on one line; sets in sorted order.

    Raises:
        NotAValue: if it has no such form, or is too large.
    """
    budget = [MAX_LITERAL]
    try:
        return _literal(value, budget)
    except RecursionError:
        raise NotAValue("nested too deeply") from None


def _literal(value: Any, budget: list[int]) -> str:
    budget[0] -= 1
    if type(value) in (list, tuple, set, dict):
        if len(value) > budget[0]:
            raise NotAValue("a value that is too large")
        text = _container(value, budget)
    elif value is None or type(value) in (bool, int, str, bytes, complex):
        try:
            text = repr(value)
        except ValueError:
            raise NotAValue("an integer that is too large") from None
    elif type(value) is float:
        if math.isnan(value):
            raise NotAValue("nan")
        text = repr(value).replace("inf", "1e999")
    else:
        raise NotAValue(f"an object of type {type(value).__name__}")
    budget[0] -= len(text)
    if budget[0] < 0:
        raise NotAValue("a value that is too large")
    return text


def _container(value: Any, budget: list[int]) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k, budget)}: {_literal(v, budget)}" for k, v in value.items()) + "}"
    parts = [_literal(part, budget) for part in value]
    if isinstance(value, set):
        return "{" + ", ".join(sorted(parts)) + "}" if parts else "set()"
    if isinstance(value, tuple):
        return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
    return f"[{', '.join(parts)}]"


def plain(value: Any) -> Any:
    """An equal value of the plainest types, inside lists too: a dict for a Counter, a set for a frozenset."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, tuple):
        return tuple(plain(part) for part in value)
    return set(value) if isinstance(value, frozenset) else value


def shown(value: Any) -> str:
    """What ``print(value)`` shows: text as it is, everything else as a literal."""
    return value if isinstance(value, str) else _printed(value)


def _printed(value: Any) -> str:
    return str(value) if isinstance(value, float) else literal(value)


def order_or_rounding_matters(values: Iterable[Any]) -> bool:
    """Whether equal values may print differently: sets, dictionaries, floats in containers, integers among floats."""
    values = list(values)
    kinds = {type(value) for value in values if isinstance(value, int | float | complex)}
    return complex in kinds or kinds >= {int, float} or any(_prints_vary(value, top=True) for value in values)


def _prints_vary(value: Any, top: bool) -> bool:
    match value:
        case set() | frozenset():
            return True
        case dict():
            return len(value) > 1 or any(_prints_vary(v, False) for v in value.values())
        case list() | tuple():
            return any(_prints_vary(part, False) for part in value)
    return isinstance(value, float | complex) and not top


def describe(values: Sequence[Any]) -> str:
    """What values have in common, in words: "a list of integers", "an integer or None"."""
    kinds = dict.fromkeys(_kind(value) for value in values)
    if kinds.keys() == {int, float}:
        return "a number"
    return " or ".join(_describe(kind, [v for v in values if _kind(v) is kind], plural=False) for kind in kinds)


def _describe(kind: type, values: Sequence[Any], plural: bool) -> str:
    if kind in ARTICLES:
        return PLURALS[kind] if plural else ARTICLES[kind]
    if kind is type(None):
        return "None"
    if kind is dict:
        keys, items = [k for v in values for k in v], [i for v in values for i in v.values()]
        inner = f" from {_plural(keys)} to {_plural(items)}" if keys else ""
        return f"{'dictionaries' if plural else 'a dictionary'}{inner}"
    name = kind.__name__
    noun = f"{name}s" if plural else f"a {name}"
    if kind not in (list, tuple, set):
        return noun
    parts = [part for value in values for part in value]
    return f"{noun} of {_plural(parts)}" if parts else noun


def _plural(values: Sequence[Any]) -> str:
    kinds = dict.fromkeys(_kind(value) for value in values)
    if kinds.keys() == {int, float}:
        return "numbers"
    if len(kinds) > 2:
        return "values of several types"
    return " and ".join(_describe(kind, [v for v in values if _kind(v) is kind], plural=True) for kind in kinds)


def _kind(value: Any) -> type:
    for kind in (bool, int, float, str, list, tuple, set, dict):
        if isinstance(value, kind):
            return kind
    return type(value)


# A checker program: argv is the test's input, the expected output and the program's output, each a file's path; prints
# 1 for right and 0 for wrong. Values that are equal are right, however they are printed.
CHECKER = """\
import ast
import math
import sys

COMPARE = {compare!r}  # values, or what is in them: as a set, or as often as it occurs
TOLERANCE = {tolerance!r}  # relative and absolute


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read().strip()
    if text in ("inf", "-inf"):
        return float(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return " ".join(text.split())


def same(a, b):
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, float) and isinstance(b, (int, float)) or isinstance(b, float) and isinstance(a, int):
        return a == b or math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b


def same_items(a, b):
    if not isinstance(a, (list, tuple, set, dict, str)) or not isinstance(b, (list, tuple, set, dict, str)):
        return same(a, b)
    left, right = list(a), list(b)
    if COMPARE == "set":
        return all(any(same(x, y) for y in right) for x in left) and all(any(same(x, y) for x in left) for y in right)
    for x in left:
        match = next((i for i, y in enumerate(right) if same(x, y)), None)
        if match is None:
            return False
        del right[match]
    return not right


try:
    right = (same if COMPARE == "values" else same_items)(read(sys.argv[2]), read(sys.argv[3]))
except (OverflowError, RecursionError):
    right = False
print(int(right))
"""


def checker(compare: str, tolerance: float = 1e-9) -> str:
    """The source of a checker.

    Args:
        compare: "values", "set" or "items".
    """
    return CHECKER.replace("{compare!r}", repr(compare)).replace("{tolerance!r}", repr(tolerance))
