"""The value of a Python expression that needs nothing run: literals, arithmetic, containers, a few pure functions.

Tests of MBPP write values as ``-3``, ``2**10``, ``set([1, 2])``, ``[0] * 5`` or ``[i for i in range(4)]``. They come
from strangers, so nothing is handed to ``eval``: known forms are computed here, within bounds on size and work.
"""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_WORK = 200_000  # nodes, items and digits, in all
MAX_ITEMS = 100_000  # of one list or text
MAX_BITS = 100_000  # of one integer


class NotAValue(Exception):
    """An expression whose value is only known by running code, or is too large."""


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (set, frozenset, list, tuple, dict, sorted, len, sum, min, max, abs, round)},
    **{f.__name__: f for f in (int, float, str, bool, complex, reversed, enumerate, zip, chr, ord)},
    **{
        f"math.{n}": getattr(math, n)
        for n in ("sqrt", "floor", "ceil", "log", "log2", "log10", "sin", "cos", "tan", "exp")
    },
}
CONSTANTS: dict[str, Any] = {f"math.{n}": getattr(math, n) for n in ("pi", "e", "inf", "tau")}
CONTAINERS: dict[str, Callable[..., Any]] = {  # their values are compared as plain ones
    **{f.__name__: f for f in (Counter, OrderedDict, defaultdict, deque)},
    **{f"collections.{f.__name__}": f for f in (Counter, OrderedDict, defaultdict, deque)},
}


def evaluate(node: ast.expr, names: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression.

    Args:
        names: values of variables, e.g. of assignments in the tests' setup code.
    Raises:
        NotAValue: saying what cannot be known or is too large.
    """
    try:
        return _Evaluator(names or {}).value(node)
    except NotAValue:
        raise
    except RecursionError:
        raise NotAValue("nested too deeply") from None
    except Exception as e:  # what the expression itself would raise
        raise NotAValue(f"raises {type(e).__name__}") from None


class _Evaluator:
    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = dict(names)
        self.work = 0

    def value(self, node: ast.expr) -> Any:
        """The value of a node; what it holds counts as work, so that many large values do not add up unseen."""
        value = self.compute(node)
        self.work += 1 + (len(value) if hasattr(value, "__len__") else 0)
        if isinstance(value, int):
            self.work += value.bit_length() // 8
        if self.work > MAX_WORK:
            raise NotAValue("too much work")
        return value

    def compute(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                if value is ...:
                    raise NotAValue("an ellipsis")
                return value
            case ast.Tuple(elts):
                return tuple(self.items(elts))
            case ast.List(elts):
                return self.items(elts)
            case ast.Set(elts):
                return set(self.items(elts))
            case ast.Dict(keys, values):
                return self.dictionary(keys, values)
            case ast.UnaryOp(op, operand):
                return UNARY[type(op)](self.value(operand))
            case ast.BinOp(left, op, right):
                return self.binary(op, self.value(left), self.value(right))
            case ast.BoolOp(op, values):
                return self.boolean(op, values)
            case ast.Compare(left, [op], [right]) if type(op) in COMPARE:
                return COMPARE[type(op)](self.value(left), self.value(right))
            case ast.IfExp(test, body, orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.Subscript(value, index):
                return self.value(value)[self.index(index)]
            case ast.Name(name) if name in self.names:
                return self.names[name]
            case ast.Name() | ast.Attribute() if (path := dotted(node)) in CONSTANTS:
                return CONSTANTS[path]
            case ast.Call(function, arguments, keywords):
                return self.call(dotted(function), arguments, keywords)
            case ast.ListComp(element, generators):
                return list(self.comprehension(element, generators))
            case ast.SetComp(element, generators) | ast.GeneratorExp(element, generators):
                found = list(self.comprehension(element, generators))
                return set(found) if isinstance(node, ast.SetComp) else found
            case ast.DictComp(key, value, generators):
                return dict(self.comprehension(ast.Tuple([key, value], ast.Load()), generators))
            case ast.JoinedStr():
                raise NotAValue("a formatted string")
            case ast.Lambda():
                raise NotAValue("a function")
            case ast.Name(name):
                raise NotAValue(f"the name {name}")
        raise NotAValue(f"an expression of kind {type(node).__name__}")

    def items(self, nodes: Iterable[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found.extend(self.value(node.value))
            else:
                found.append(self.value(node))
        return found

    def dictionary(self, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            if key is None:
                found.update(self.value(value))
            else:
                found[self.value(key)] = self.value(value)
        return found

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if type(op) not in BINARY:
            raise NotAValue(f"the operator {type(op).__name__}")
        _check_growth(op, left, right)
        return BINARY[type(op)](left, right)

    def boolean(self, op: ast.boolop, values: list[ast.expr]) -> Any:
        found: Any = None
        for node in values:
            found = self.value(node)
            if bool(found) == isinstance(op, ast.Or):
                break
        return found

    def index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            return slice(*(None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)))
        return self.value(node)

    def call(self, name: str, arguments: list[ast.expr], keywords: list[ast.keyword]) -> Any:
        if name == "range":
            numbers = range(*self.items(arguments))
            if len(numbers) > MAX_ITEMS:
                raise NotAValue("a range that is too long")
            return list(numbers)
        if name == "defaultdict" or name == "collections.defaultdict":
            arguments = arguments[1:]  # the factory is a type, and no part of the value
            name = "dict"
        function = FUNCTIONS.get(name) or CONTAINERS.get(name)
        if function is None or name in self.names:
            raise NotAValue(f"a call of {name or 'an expression'}")
        if any(keyword.arg is None for keyword in keywords):
            raise NotAValue("a call with **")
        given = self.items(arguments)
        named = {keyword.arg: self.value(keyword.value) for keyword in keywords if keyword.arg}
        value = function(*given, **named)
        return list(value) if name in ("reversed", "enumerate", "zip") else value

    def comprehension(self, element: ast.expr, generators: list[ast.comprehension]) -> Iterable[Any]:
        if not generators:
            yield self.value(element)
            return
        generator, rest = generators[0], generators[1:]
        if generator.is_async:
            raise NotAValue("an asynchronous comprehension")
        outer = dict(self.names)
        for item in self.value(generator.iter):
            self.bind(generator.target, item)
            if all(self.value(condition) for condition in generator.ifs):
                yield from self.comprehension(element, rest)
        self.names = outer

    def bind(self, target: ast.expr, item: Any) -> None:
        match target:
            case ast.Name(name):
                self.names[name] = item
            case ast.Tuple(targets) | ast.List(targets):
                for inner, part in zip(targets, item, strict=True):
                    self.bind(inner, part)
            case _:
                raise NotAValue("an assignment to an expression")


def dotted(node: ast.expr) -> str:
    """The name in ``f`` or ``math.sqrt``; "" for any other expression."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(module), name):
            return f"{module}.{name}"
    return ""


def _check_growth(op: ast.operator, left: Any, right: Any) -> None:
    """Refuse results that are far larger than what they are made from, before they are made."""
    too_large = False
    if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        too_large = right > 0 and left.bit_length() * right > MAX_BITS
    elif isinstance(op, ast.LShift) and isinstance(left, int) and isinstance(right, int):
        too_large = left.bit_length() + right > MAX_BITS
    elif isinstance(op, ast.Mult):
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
                too_large = len(sequence) * times > MAX_ITEMS
        if isinstance(left, int) and isinstance(right, int):
            too_large = left.bit_length() + right.bit_length() > MAX_BITS
    elif isinstance(op, ast.Mod) and isinstance(left, str | bytes):
        raise NotAValue("a formatted string")
    if too_large:
        raise NotAValue("a value that is too large")
