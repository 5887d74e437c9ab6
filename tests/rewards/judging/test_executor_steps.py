"""Assert statements as steps: what leaves the sandbox, and what never enters it."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.rewards.judging.steps import StepKind, steps_of_asserts
from openrlhf_maxk.rewards.sandbox.values import encode


@pytest.mark.parametrize(
    ("source", "sent", "expected"),
    [
        ("assert f(2) == 4", "f(2)", 4),
        ("assert f(2) == 4, 'message'", "f(2)", 4),
        ("assert 4 == f(2)", "f(2)", 4),
        ("assert f(2) == (1, [2], {'a': {3}})", "f(2)", (1, [2], {"a": {3}})),
        ("assert f(2) == -1.5", "f(2)", -1.5),
        ("assert f(2) == 1 + 2j", "f(2)", 1 + 2j),
        ("assert sorted(f(2)) == [1]", "sorted(f(2))", [1]),
    ],
)
def test_expected_literals_stay_outside(source: str, sent: str, expected: object) -> None:
    (step,) = steps_of_asserts(source)
    assert (step.kind, step.source, step.expected, step.same) == (StepKind.VALUE, sent, encode(expected), False)


@pytest.mark.parametrize(
    ("source", "sent", "expected"),
    [
        ("assert f(2) is True", "f(2)", True),
        ("assert f(2) is None", "f(2)", None),
        ("assert f(2) == g(2)", "not not f(2) == g(2)", True),
        ("assert f(2)", "not not f(2)", True),
        ("assert not f(2)", "not not (not f(2))", True),
        ("assert f(2) > 3 and f(1) == 1", "not not (f(2) > 3 and f(1) == 1)", True),
        ("assert f(2) != 3", "not not f(2) != 3", True),
        ("assert 1 < f(2) < 3", "not not 1 < f(2) < 3", True),
    ],
)
def test_other_conditions_send_their_truth(source: str, sent: str, expected: object) -> None:
    (step,) = steps_of_asserts(source)
    assert step.kind is StepKind.VALUE
    assert ast.dump(ast.parse(step.source)) == ast.dump(ast.parse(sent))
    assert step.expected is expected
    assert step.same


def test_other_statements_run_where_they_stand() -> None:
    source = "import math\nx = f(1)\nassert x == 1\nfor i in range(3):\n    assert f(i) == i\n"
    kinds = [(step.kind, step.source) for step in steps_of_asserts(source)]
    assert kinds == [
        (StepKind.RUN, "import math"),
        (StepKind.RUN, "x = f(1)"),
        (StepKind.VALUE, "x"),
        (StepKind.RUN, "for i in range(3):\n    assert f(i) == i"),
    ]


@pytest.mark.parametrize("source", ["", "f(2)", "assert (", "x = 1", "assert f(2) == \0", "(" * 10_000])
def test_what_asserts_nothing_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"Python|asserts nothing"):
        steps_of_asserts(source)


@given(st.lists(st.integers() | st.text(max_size=5) | st.booleans() | st.none(), max_size=4))
def test_no_literal_of_a_comparison_is_sent(expected: list[object]) -> None:
    (step,) = steps_of_asserts(f"assert f(2) == {expected!r}")
    assert step.source == "f(2)"
    assert step.expected == encode(expected)
