"""Expressions of a test that are constants: literals, and what builtin types and arithmetic make of them."""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

_LARGEST = 10**6  # characters, members, or bits of what arithmetic makes
_MADE_BY: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (set, frozenset, list, tuple, dict, sorted, float, int, str, bool, complex, bytes)},
    **{f.__name__: f for f in (Counter, Decimal, Fraction, abs, round, min, max, sum, len)},
    "math.sqrt": math.sqrt,
}
_NAMES = {"math.pi": math.pi, "math.e": math.e, "math.inf": math.inf, "math.nan": math.nan}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class NotConstantError(ValueError):
    """The expression depends on the program, or is none that is understood here."""


def constant(node: ast.expr) -> Any:
    """The value of a constant expression. Raises NotConstantError."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    try:
        return _value(node)
    except NotConstantError:
        raise
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NotConstantError(str(error)) from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.List(items):
            return [_value(item) for item in items]
        case ast.Tuple(items):
            return tuple(_value(item) for item in items)
        case ast.Set(items):
            return {_value(item) for item in items}
        case ast.Dict(keys, items) if None not in keys:
            return {_value(key): _value(item) for key, item in zip(keys, items, strict=True) if key is not None}
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand)
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATORS:
            return _computed(type(operation), _value(left), _value(right))
        case ast.Call(function, arguments, []) if dotted(function) in _MADE_BY:
            return _MADE_BY[dotted(function)](*[_value(argument) for argument in arguments])
        case ast.Attribute() if dotted(node) in _NAMES:
            return _NAMES[dotted(node)]
    raise NotConstantError(f"{type(node).__name__} is no constant")


def _computed(operation: type, left: Any, right: Any) -> Any:
    if operation is ast.Pow and isinstance(left, int) and abs(right) * left.bit_length() > _LARGEST:
        raise NotConstantError("too large a power")
    if operation is ast.Mult and _product_size(left, right) > _LARGEST:
        raise NotConstantError("too large a product")
    if operation is ast.Mod and isinstance(left, (str, bytes)):
        raise NotConstantError("a format")
    return _OPERATORS[operation](left, right)


def _product_size(left: Any, right: Any) -> int:
    """The bits of a product of integers, or the members of a repetition."""
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length()
    for repeated, times in ((left, right), (right, left)):
        if hasattr(repeated, "__len__") and isinstance(times, int):
            return len(repeated) * max(0, times)
    return 0


def dotted(node: ast.expr) -> str:
    """A name, or a module and a name with a dot between; empty for anything else."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(module), name):
            return f"{module}.{name}"
    return ""
