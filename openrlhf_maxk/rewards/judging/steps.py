"""Turning a test's assert statements into steps, so that values are compared outside the sandbox.

``assert f(2) == [1, 2]`` becomes "send the value of ``f(2)``", and ``[1, 2]`` stays here: the program never meets it,
and a class that equals everything is of no use to it. So do ``!=``, ``is None``, ``math.isclose(f(x), 0.5)``,
``abs(f(x) - 0.5) < 1e-6``, and each part of an ``and``. Two values that are both computed are both sent. HumanEval's
``def check(candidate): …`` with ``check(f)`` is taken apart into its statements. What has another form runs in the
sandbox as it stands.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from openrlhf_maxk.rewards.judging.constants import NotConstantError, constant, dotted
from openrlhf_maxk.rewards.sandbox.values import UnknownTypeError, encode


class StepKind(StrEnum):
    """What the sandbox does with a step's source."""

    CALL = "call"  # call the function of that name with JSON arguments, and send what it returns
    VALUE = "value"  # evaluate the expression, and send its value
    EQUAL = "equal"  # evaluate two expressions, and send both values
    RUN = "run"  # execute the statements


class Relation(StrEnum):
    """What must hold between a value that was sent and the expected one."""

    EQUAL = "equal"
    UNEQUAL = "unequal"
    SAME = "same"  # that very value: None, True, False
    CLOSE = "close"  # within tolerances


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a test. ``expected`` is an encoded value, which a sent one must have ``relation`` to.

    ``CLOSE`` is ``|a - e| <= max(relative * max(|a|, |e|), absolute)`` as of ``math.isclose``, or ``<`` if ``strict``.
    """

    kind: StepKind
    source: str
    argument: str = ""
    expected: Any = None
    relation: Relation = Relation.EQUAL
    relative: float = 0.0
    absolute: float = 0.0
    strict: bool = False

    @property
    def sends(self) -> bool:
        return self.kind is not StepKind.RUN


@lru_cache(maxsize=4096)
def steps_of_asserts(source: str) -> tuple[Step, ...]:
    """The steps of a test's source. Raises ValueError if it is not Python or asserts nothing."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"its source is not Python: {error}") from error
    if not any(isinstance(node, ast.Assert) for statement in body for node in ast.walk(statement)):
        raise ValueError("it asserts nothing")
    return tuple(step for statement in _without_check(body) for step in _steps(statement))


def _without_check(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, with functions of one argument that are defined here and called once taken apart."""
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef) and _can_be_taken_apart(node)}
    calls = [node for node in ast.walk(ast.Module(list(body), [])) if isinstance(node, ast.Name)]
    once = {name for name in functions if sum(node.id == name for node in calls) == 1}
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) if name in once and any(_called(other) == name for other in body):
                continue
            case ast.Expr(ast.Call(ast.Name(name), [argument], [])) if name in once:
                yield from _taken_apart(functions[name], argument)
            case _:
                yield statement


def _called(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Expr(ast.Call(ast.Name(name), [_], [])):
            return name
    return None


def _can_be_taken_apart(function: ast.FunctionDef) -> bool:
    """Whether its statements may stand outside of it: no branches out, no names that belong to an inner scope."""
    arguments = function.args
    plain = len(arguments.args) == 1 and not (arguments.vararg or arguments.kwonlyargs or arguments.kwarg)
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Return, ast.Yield, ast.YieldFrom)
    scoped = (*inner, ast.Global, ast.Nonlocal, ast.Await)
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    asserts = any(isinstance(node, ast.Assert) for node in nodes)
    return plain and asserts and not function.decorator_list and not any(isinstance(node, scoped) for node in nodes)


def _taken_apart(function: ast.FunctionDef, argument: ast.expr) -> Iterator[ast.stmt]:
    """The statements of a call. Its own names get others, so that the program's stay as they are."""
    parameter = function.args.args[0].arg
    stored = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))
    }
    known = {name: f"_{function.name}_{name}" for name in stored | {parameter}}
    if isinstance(argument, ast.Name) and parameter not in stored:
        known[parameter] = argument.id
    else:
        yield ast.Assign([ast.Name(known[parameter], ast.Store())], argument, lineno=0)
    for statement in function.body:
        yield _Renamed(known).visit(statement)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._names.get(node.id, node.id), node.ctx)


def _steps(statement: ast.stmt) -> Iterator[Step]:
    if isinstance(statement, ast.Assert):
        yield from _asserted(statement.test)
    elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
        yield Step(StepKind.RUN, ast.unparse(ast.fix_missing_locations(statement)))


def _asserted(test: ast.expr) -> Iterator[Step]:
    """The steps of a condition: one for each part of an ``and``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for part in test.values:
            yield from _asserted(part)
        return
    step = _comparison(test) or _closeness(test)
    if step is not None:
        yield step
    elif not _is_true(test):
        truth = ast.unparse(ast.UnaryOp(ast.Not(), ast.UnaryOp(ast.Not(), test)))
        yield Step(StepKind.VALUE, truth, expected=True, relation=Relation.SAME)


def _is_true(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def _comparison(test: ast.expr) -> Step | None:
    """``expression == constant``, either way round, ``!=``, ``is None`` (True, False), or ``expression == other``."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    left, right, operator = test.left, test.comparators[0], test.ops[0]
    if isinstance(operator, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
        return Step(StepKind.VALUE, ast.unparse(left), expected=right.value, relation=Relation.SAME)
    if not isinstance(operator, (ast.Eq, ast.NotEq)):
        return None
    relation = Relation.EQUAL if isinstance(operator, ast.Eq) else Relation.UNEQUAL
    for read in (_literal, constant):  # a function may be called sum: ``3 == sum(x)`` is about its value
        for expression, other in ((left, right), (right, left)):
            try:
                expected = encode(read(other))
            except (NotConstantError, UnknownTypeError, RecursionError):
                continue
            return Step(StepKind.VALUE, ast.unparse(expression), expected=expected, relation=relation)
    if relation is Relation.EQUAL:
        return Step(StepKind.EQUAL, ast.unparse(left), ast.unparse(right))
    return None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise NotConstantError(str(error)) from error


def _closeness(test: ast.expr) -> Step | None:
    """``math.isclose(expression, number)``, ``abs(expression - number) < tolerance`` and the like."""
    match test:
        case ast.Call(function, [left, right], keywords) if dotted(function) in ("math.isclose", "isclose"):
            tolerances = {keyword.arg: _number(keyword.value) for keyword in keywords}
            if None in tolerances.values() or not tolerances.keys() <= {"rel_tol", "abs_tol"}:
                return None
            return _close(left, right, tolerances.get("rel_tol", 1e-9), tolerances.get("abs_tol", 0.0), strict=False)
        case ast.Compare(ast.Call() as distance, [ast.Lt() | ast.LtE() as operator], [bound]):
            return _distance(distance, bound, isinstance(operator, ast.Lt))
        case ast.Compare(bound, [ast.Gt() | ast.GtE() as operator], [ast.Call() as distance]):
            return _distance(distance, bound, isinstance(operator, ast.Gt))
    return None


def _distance(distance: ast.Call, bound: ast.expr, strict: bool) -> Step | None:
    match distance:
        case ast.Call(function, [ast.BinOp(left, ast.Sub(), right)], []) if dotted(function) in ("abs", "math.fabs"):
            return _close(left, right, 0.0, _number(bound), strict)
    return None


def _close(left: ast.expr, right: ast.expr, relative: Any, absolute: Any, strict: bool) -> Step | None:
    if relative is None or absolute is None:
        return None
    for expression, other in ((left, right), (right, left)):
        expected = _number(other)
        if expected is not None:
            tolerances = {"relative": relative, "absolute": absolute, "strict": strict}
            return Step(
                StepKind.VALUE, ast.unparse(expression), expected=expected, relation=Relation.CLOSE, **tolerances
            )
    return None


def _number(node: ast.expr) -> float | None:
    try:
        value = constant(node)
    except NotConstantError:
        return None
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and abs(value) < 1e300 and math.isfinite(value) else None
