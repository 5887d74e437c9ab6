"""Reading assert statements: which function is called, with which values, and what it should return."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from openrlhf_maxk.problems.sources.conversion.expressions import NotAValue, dotted, evaluate
from openrlhf_maxk.problems.sources.source import Rejected

WRAPPERS = ("list", "tuple", "str", "int", "float", "bool", "round")  # done to the result before it is printed


class Form(StrEnum):
    """What an assert says of the result."""

    EQUAL = "equal"  # f(x) == value
    TRUTH = "truth"  # f(x), not f(x)
    SET = "set"  # set(f(x)) == values: what it contains, in any order
    ITEMS = "items"  # sorted(f(x)) == values: what it contains and how often, in any order
    CLOSE = "close"  # math.isclose(f(x), value), abs(f(x) - value) < tolerance


@dataclass(frozen=True)
class Case:
    """One call and what it should give."""

    function: str
    positional: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    form: Form
    expected: Any
    wrapper: str = ""  # "round", "list" …: applied to the result
    digits: int | None = None  # of round
    tolerance: float = 1e-9  # of CLOSE


def read_cases(source: str, functions: Mapping[str, str], names: dict[str, Any]) -> list[Case]:
    """The cases in the source of one test.

    Args:
        functions: what the reference solution defines: name to "function" or "class".
        names: values of variables; assignments before an assert are added.
    Raises:
        Rejected: with the reason why this is not a call and a value.
    """
    cases: list[Case] = []
    for statement in parse(source, "test").body:
        match statement:
            case ast.Assert(test):
                cases += _Reader(functions, names).read(test)
            case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant()):
                pass
            case ast.Assign():
                assign(statement, names)
            case _:
                raise Rejected("not_an_assert", f"a statement of kind {type(statement).__name__}")
    if not cases:
        raise Rejected("not_an_assert", "no assert statement")
    return cases


def parse(source: str, what: str) -> ast.Module:
    """Parsed source.

    Raises:
        Rejected: "not_python".
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        line = f", line {e.lineno}" if isinstance(e, SyntaxError) and e.lineno else ""
        raise Rejected("not_python", f"{what}: {type(e).__name__}{line}") from None


def assign(statement: ast.Assign, names: dict[str, Any]) -> None:
    """Remember what a statement assigns; what is not a plain value is forgotten."""
    for target in statement.targets:
        if isinstance(target, ast.Name):
            try:
                names[target.id] = evaluate(statement.value, names)
            except NotAValue:
                names.pop(target.id, None)


def defined(module: ast.Module) -> dict[str, str]:
    """What a module defines at its top level: name to "function" or "class"."""
    found: dict[str, str] = {}
    for statement in module.body:
        match statement:
            case ast.FunctionDef(name):
                found[name] = "function"
            case ast.ClassDef(name):
                found[name] = "class"
            case ast.Assign(targets, ast.Lambda()):
                found.update({target.id: "function" for target in targets if isinstance(target, ast.Name)})
    return found


class _Reader:
    def __init__(self, functions: Mapping[str, str], names: Mapping[str, Any]) -> None:
        self.functions = functions
        self.names = names

    def read(self, test: ast.expr) -> list[Case]:
        match test:
            case ast.BoolOp(ast.And(), values):
                return [case for value in values for case in self.read(value)]
            case ast.UnaryOp(ast.Not(), operand):
                return [replace(self.truth(operand), expected=False)]
            case ast.Compare(left, [ast.Eq() | ast.Is()], [right]):
                return [self.equality(left, right)]
            case ast.Compare(ast.Call(ast.Name("abs"), [ast.BinOp(left, ast.Sub(), right)]), [op], [bound]) if (
                isinstance(op, ast.Lt | ast.LtE)
            ):
                return [self.close(left, right, {"abs_tol": bound})]
            case ast.Call(function, [left, right], keywords) if dotted(function) in ("math.isclose", "isclose"):
                return [self.close(left, right, {k.arg: k.value for k in keywords if k.arg})]
            case ast.Compare():
                raise Rejected("not_an_equality", _short(test))
        return [self.truth(test)]

    def truth(self, node: ast.expr) -> Case:
        if not isinstance(node, ast.Call) or not self.calls(node):
            reason = "unsupported_wrapper" if self.calls(node) else "no_call"
            raise Rejected(reason, _short(node))
        return replace(self.subject(node), form=Form.TRUTH, expected=True)

    def equality(self, left: ast.expr, right: ast.expr) -> Case:
        case, other = self.sides(left, right)
        expected = self.value(other, "expected_not_a_value")
        if case.form is Form.SET and not isinstance(expected, set | frozenset):
            raise Rejected("never_true", f"a set compared with {_short(other)}")
        if case.form is Form.ITEMS and not isinstance(expected, list):
            raise Rejected("never_true", f"a sorted list compared with {_short(other)}")
        return replace(case, expected=expected)

    def close(self, left: ast.expr, right: ast.expr, tolerances: Mapping[str, ast.expr]) -> Case:
        case, other = self.sides(left, right)
        expected = self.value(other, "expected_not_a_value")
        given = [self.value(node, "expected_not_a_value") for node in tolerances.values()]
        if isinstance(expected, bool) or not all(isinstance(x, int | float) for x in (expected, *given)):
            raise Rejected("expected_not_a_value", f"not a number: {_short(other)}")
        return replace(case, form=Form.CLOSE, expected=float(expected), tolerance=float(max(given, default=1e-9)))

    def sides(self, left: ast.expr, right: ast.expr) -> tuple[Case, ast.expr]:
        """The side that calls the function under test, and the other."""
        if self.calls(left) and self.calls(right):
            raise Rejected("both_sides_call", f"{_short(left)} and {_short(right)}")
        if self.calls(right):
            left, right = right, left
        if not self.calls(left):
            raise Rejected("no_call", _short(left))
        return self.subject(left), right

    def calls(self, node: ast.expr) -> bool:
        """Whether anything that the solution defines is named in an expression."""
        return any(isinstance(part, ast.Name) and part.id in self.functions for part in ast.walk(node))

    def subject(self, node: ast.expr) -> Case:
        """A call of the function under test, bare or in one known function."""
        if not isinstance(node, ast.Call):
            raise Rejected("unsupported_wrapper", _short(node))
        name = dotted(node.func)
        if name in self.functions:
            return self.call(name, node)
        if name in ("set", "frozenset", "sorted") and len(node.args) == 1 and not node.keywords:
            return replace(self.bare(node.args[0]), form=Form.ITEMS if name == "sorted" else Form.SET)
        if name == "round" and len(node.args) == 2 and not node.keywords:
            digits = self.value(node.args[1], "unsupported_wrapper")
            if type(digits) is int:
                return replace(self.bare(node.args[0]), wrapper=name, digits=digits)
        if name in WRAPPERS and len(node.args) == 1 and not node.keywords:
            return replace(self.bare(node.args[0]), wrapper=name)
        raise Rejected("unsupported_wrapper", _short(node))

    def bare(self, node: ast.expr) -> Case:
        if isinstance(node, ast.Call) and dotted(node.func) in self.functions:
            return self.call(dotted(node.func), node)
        raise Rejected("unsupported_wrapper", _short(node))

    def call(self, name: str, node: ast.Call) -> Case:
        if self.functions[name] == "class":
            raise Rejected("tests_an_object", f"of class {name}")
        positional: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                positional += self.value(argument.value, "argument_not_a_value")
            else:
                positional.append(self.value(argument, "argument_not_a_value"))
        if any(keyword.arg is None for keyword in node.keywords):
            raise Rejected("argument_not_a_value", "arguments with **")
        keywords = tuple((k.arg or "", self.value(k.value, "argument_not_a_value")) for k in node.keywords)
        return Case(name, tuple(positional), keywords, Form.EQUAL, None)

    def value(self, node: ast.expr, reason: str) -> Any:
        try:
            return evaluate(node, self.names)
        except NotAValue as e:
            raise Rejected(reason, f"{e}: {_short(node)}") from None


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
