"""Taking a test program apart: ``check(candidate)`` and loops over inputs and results become single asserts.

Nothing is run: statements are rewritten. evalplus' ``for i, (inp, exp) in enumerate(zip(inputs, results)):
assertion(f(*inp), exp, 0)`` becomes one ``assert f(…) == …`` for each pair, whose expected value the judge compares
outside the sandbox. What has another form stays whole, as a test of its own.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from openrlhf_maxk.problems.sources.conversion.asserts import parse
from openrlhf_maxk.problems.sources.source import Rejected

EVALPLUS_TOLERANCE = 1e-6  # of evalplus' ``assertion`` for floats where none is stated
MAX_UNROLLED = 20_000  # asserts of one loop


@dataclass(frozen=True)
class Comparisons:
    """The tests in a test program, each a source that asserts something."""

    tests: tuple[str, ...]
    entry_point: str
    tolerance: float = 0.0  # that floats are compared with; 0: exactly


def comparisons(source: str, entry_point: str) -> Comparisons:
    """The tests in a test program.

    Args:
        source: with a function of one parameter that asserts, which is called or not; or a script that asserts.
        entry_point: what that function is called with; empty: as the source calls it.
    Raises:
        Rejected: "not_python", "no_tests", or "missing_field" if nothing says what is tested.
    """
    body = parse(source, "test").body
    check = next((s for s in reversed(body) if isinstance(s, ast.FunctionDef) and _is_check(s)), None)
    if check is None:
        taker = _Taker(body, [], "", "", _has_assertion(body))
        tests = tuple(taker.tests(body))
        outer_name = entry_point
    else:
        outer_name = entry_point or _called_with(body, check.name)
        if not outer_name:
            raise Rejected("missing_field", "entry_point")
        outer = [s for s in body if s is not check and not _calls_check(s, check.name)]
        taker = _Taker(outer, outer, check.args.args[0].arg, outer_name, _has_assertion(body))
        tests = tuple(taker.tests(check.body))
    if not tests:
        raise Rejected("no_tests", "test: it asserts nothing")
    return Comparisons(tests, outer_name, taker.tolerance)


def _is_check(function: ast.FunctionDef) -> bool:
    one = len(function.args.args) == 1 and not (function.args.vararg or function.args.kwonlyargs)
    return one and function.name.startswith("check") and _asserts(function)


def _asserts(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Assert)
        or (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "assertion")
        for part in ast.walk(node)
    )


def _has_assertion(body: Sequence[ast.stmt]) -> bool:
    """Whether evalplus' comparison is defined: result, expected, tolerance."""
    return any(isinstance(s, ast.FunctionDef) and s.name == "assertion" and len(s.args.args) == 3 for s in body)


def _called_with(body: Sequence[ast.stmt], check: str) -> str:
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Call(ast.Name(name), [ast.Name(given)], []) if name == check:
                    return given
    return ""


def _calls_check(statement: ast.stmt, check: str) -> bool:
    """Whether a statement only starts the tests: it calls the check, or a function (test_check) that does."""
    if not isinstance(statement, ast.Expr | ast.FunctionDef | ast.If):
        return False
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return check in names or f"test_{check}" in names


@dataclass
class _Taker:
    """Makes tests of statements.

    ``outer`` is what stands around the check, ``parameter`` its parameter ("" for a script) and ``subject`` what is
    tested.
    """

    module: Sequence[ast.stmt]
    outer: Sequence[ast.stmt]
    parameter: str
    subject: str
    evalplus: bool
    tolerance: float = 0.0
    before: list[ast.stmt] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)

    def tests(self, body: Sequence[ast.stmt]) -> Iterator[str]:
        for statement in body:
            definition = isinstance(statement, ast.FunctionDef | ast.ClassDef)
            if definition or not _asserts(statement):
                if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
                    self.remember(statement)
                continue
            for single in self.apart(statement):
                if not (isinstance(single, ast.Assert) and isinstance(single.test, ast.Constant) and single.test.value):
                    yield self.source(single)

    def remember(self, statement: ast.stmt) -> None:
        self.before.append(statement)
        match statement:
            case ast.Assign([ast.Name(name)], value):
                self.constants[name] = value

    def apart(self, statement: ast.stmt) -> list[ast.stmt]:
        """The asserts of a loop over what is written out; any other statement as it is."""
        if isinstance(statement, ast.For) and not statement.orelse:
            items = self.elements(statement.iter)
            plain = all(isinstance(s, ast.Assert) or self.assertion(s) is not None for s in statement.body)
            if items is not None and plain and len(items) * len(statement.body) <= MAX_UNROLLED:
                bindings = [self.bound(statement.target, item) for item in items]
                if None not in bindings:
                    return [
                        self.equality(_Substitute(binding).visit(copy.deepcopy(inner)))
                        for binding in bindings
                        if binding is not None
                        for inner in statement.body
                    ]
        return [self.equality(statement)]

    def equality(self, statement: ast.stmt) -> ast.stmt:
        """evalplus' ``assertion(a, b, tolerance)`` as ``assert a == b``."""
        found = self.assertion(statement)
        if found is None:
            return statement
        actual, expected, tolerance = found
        if not tolerance and _is_floats(expected):
            tolerance = EVALPLUS_TOLERANCE
        self.tolerance = max(self.tolerance, tolerance)
        return ast.Assert(ast.Compare(actual, [ast.Eq()], [expected]), None)

    def assertion(self, statement: ast.stmt) -> tuple[ast.expr, ast.expr, float] | None:
        match statement:
            case ast.Expr(
                ast.Call(ast.Name("assertion"), [actual, expected, ast.Constant(float() | int() as bound)], [])
            ):
                return (actual, expected, float(bound)) if self.evalplus else None
        return None

    def elements(self, node: ast.expr) -> Sequence[ast.expr] | None:
        """What a loop goes over, if it is written out."""
        match node:
            case ast.Name(name) if name in self.constants:
                return self.elements(self.constants[name])
            case ast.List(elts) | ast.Tuple(elts) if not any(isinstance(e, ast.Starred) for e in elts):
                return elts
            case ast.Call(ast.Name("enumerate"), [inner], []):
                items = self.elements(inner)
                return items and [ast.Tuple([ast.Constant(i), e], ast.Load()) for i, e in enumerate(items)]
            case ast.Call(ast.Name("zip"), [left, right], []):
                first, second = self.elements(left), self.elements(right)
                if first is None or second is None:
                    return None
                return [ast.Tuple([a, b], ast.Load()) for a, b in zip(first, second, strict=False)]
        return None

    def bound(self, target: ast.expr, item: ast.expr) -> dict[str, ast.expr] | None:
        match target:
            case ast.Name(name):
                return {name: item}
            case ast.Tuple(targets) | ast.List(targets):
                parts = self.elements(item)
                if parts is None or len(parts) != len(targets):
                    return None
                found: dict[str, ast.expr] = {}
                for inner, part in zip(targets, parts, strict=True):
                    one = self.bound(inner, part)
                    if one is None:
                        return None
                    found |= one
                return found
        return None

    def source(self, statement: ast.stmt) -> str:
        """A test: the statement, after what it needs of what stands before it."""
        statement = _Substitute({n: ast.parse(f"float('{n}')", mode="eval").body for n in ("inf", "nan")}).visit(
            statement
        )
        whole = not isinstance(statement, ast.Assert)
        used = _names([statement])
        local = list(self.before) if whole or used & _stored(self.before) else []
        around = _needed(self.outer, used | _names(local))
        if not self.parameter:
            local = _needed(self.before, used) if not whole else local
            return _text([*local, statement])
        if not local and not whole:
            renamed = _Substitute({self.parameter: ast.Name(self.subject, ast.Load())}).visit(statement)
            return _text([*around, renamed])
        arguments = ast.arguments([], [ast.arg(self.parameter)], None, [], [], None, [])
        check = ast.FunctionDef("check", arguments, [*local, statement], [], None)
        call = ast.Expr(ast.Call(ast.Name("check", ast.Load()), [ast.Name(self.subject, ast.Load())], []))
        return _text([*around, check, call])


class _Substitute(ast.NodeTransformer):
    """Puts expressions in the places of names, and the members of a starred list in its place."""

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.names.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        arguments: list[ast.expr] = []
        for argument in node.args:
            match argument:
                case ast.Starred(ast.List(elts) | ast.Tuple(elts)):
                    arguments += elts
                case _:
                    arguments.append(argument)
        node.args = arguments
        return node


def _text(statements: Sequence[ast.stmt]) -> str:
    return ast.unparse(ast.fix_missing_locations(ast.Module(list(statements), [])))


def _names(statements: Sequence[ast.stmt]) -> set[str]:
    return {node.id for s in statements for node in ast.walk(s) if isinstance(node, ast.Name)}


def _stored(statements: Sequence[ast.stmt]) -> set[str]:
    """What statements define."""
    found: set[str] = set()
    for statement in statements:
        for node in ast.walk(statement):
            match node:
                case ast.Name(name, ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.alias(name, other):
                    found.add((other or name).partition(".")[0])
    return found


def _needed(statements: Sequence[ast.stmt], used: set[str]) -> list[ast.stmt]:
    """The statements that define what is used, and what those use in turn."""
    wanted, chosen = set(used), set[int]()
    while True:
        more = {i for i, s in enumerate(statements) if i not in chosen and _stored([s]) & wanted}
        if not more:
            return [s for i, s in enumerate(statements) if i in chosen]
        chosen |= more
        wanted |= _names([statements[i] for i in more])


def _is_floats(node: ast.expr) -> bool:
    """A float, or a list or tuple of nothing else, as evalplus asks it."""
    match node:
        case ast.Constant(float()):
            return True
        case ast.UnaryOp(ast.USub(), inner):
            return _is_floats(inner)
        case ast.List(elts) | ast.Tuple(elts) if elts:
            return all(not isinstance(e, ast.List | ast.Tuple) and _is_floats(e) for e in elts)
    return False
