"""Turning a test's assert statements into steps, so that values are compared outside the sandbox.

``assert f(2) == [1, 2]`` becomes "send the value of ``f(2)``", and ``[1, 2]`` stays here: the program never meets it,
and a class that equals everything is of no use to it. What has another form runs in the sandbox as it stands.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from openrlhf_maxk.rewards.sandbox.values import UnknownTypeError, encode


class StepKind(StrEnum):
    """What the sandbox does with a step's source."""

    CALL = "call"  # call the function of that name with JSON arguments, and send what it returns
    VALUE = "value"  # evaluate the expression, and send its value
    RUN = "run"  # execute the statements


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a test. ``expected`` is what an encoded value must equal; ``same`` if it must be that very value."""

    kind: StepKind
    source: str
    argument: str = ""
    expected: Any = None
    same: bool = False

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
    return tuple(_step(statement) for statement in body)


def _step(statement: ast.stmt) -> Step:
    if isinstance(statement, ast.Assert):
        step = _comparison(statement.test)
        if step is not None:
            return step
        truth = ast.unparse(ast.UnaryOp(ast.Not(), ast.UnaryOp(ast.Not(), statement.test)))
        return Step(StepKind.VALUE, truth, expected=True, same=True)
    return Step(StepKind.RUN, ast.unparse(statement))


def _comparison(test: ast.expr) -> Step | None:
    """``expression == literal``, either way round, or ``expression is None`` (True, False)."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    left, right, operator = test.left, test.comparators[0], test.ops[0]
    if isinstance(operator, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
        return Step(StepKind.VALUE, ast.unparse(left), expected=right.value, same=True)
    if isinstance(operator, ast.Eq):
        for expression, other in ((left, right), (right, left)):
            try:
                expected = encode(ast.literal_eval(other))
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, UnknownTypeError):
                continue
            return Step(StepKind.VALUE, ast.unparse(expression), expected=expected)
    return None
