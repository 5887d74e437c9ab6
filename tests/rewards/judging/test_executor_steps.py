"""Assert statements as steps: what leaves the sandbox, and what never enters it."""

from __future__ import annotations

import ast
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.judging.constants import NotConstantError, constant
from openrlhf_maxk.rewards.judging.judge import judge_values
from openrlhf_maxk.rewards.judging.steps import Relation, StepKind, steps_of_asserts
from openrlhf_maxk.rewards.sandbox.lane import Outcome
from openrlhf_maxk.rewards.sandbox.messages import KilledBy, Reply
from openrlhf_maxk.rewards.sandbox.protocol import Stage
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
        ("assert set(f(2)) == {1, 2}", "set(f(2))", {1, 2}),
        ("assert set(f(2)) == set([1, 2])", "set(f(2))", {1, 2}),
        ("assert f(2) == set()", "f(2)", set()),
        ("assert f(2) == 2 ** 10 - 1", "f(2)", 1023),
        ("assert f(2) == float('1.5')", "f(2)", 1.5),
        ("assert f(2) == [0] * 3", "f(2)", [0, 0, 0]),
        ("assert 3 == sum([1, 2])", "sum([1, 2])", 3),
    ],
)
def test_expected_literals_stay_outside(source: str, sent: str, expected: object) -> None:
    (step,) = steps_of_asserts(source)
    assert (step.kind, step.source, step.expected, step.relation) == (
        StepKind.VALUE,
        sent,
        encode(expected),
        Relation.EQUAL,
    )


@pytest.mark.parametrize(
    ("source", "sent", "expected"),
    [
        ("assert f(2) is True", "f(2)", True),
        ("assert f(2) is None", "f(2)", None),
        ("assert f(2)", "not not f(2)", True),
        ("assert not f(2)", "not not (not f(2))", True),
        ("assert 1 < f(2) < 3", "not not 1 < f(2) < 3", True),
    ],
)
def test_other_conditions_send_their_truth(source: str, sent: str, expected: object) -> None:
    (step,) = steps_of_asserts(source)
    assert step.kind is StepKind.VALUE
    assert ast.dump(ast.parse(step.source)) == ast.dump(ast.parse(sent))
    assert step.expected is expected
    assert step.relation is Relation.SAME


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


def test_parts_of_an_and_are_sent_one_by_one() -> None:
    steps = steps_of_asserts("assert f(1) == 1 and f(2) == 2 and f(3)")
    assert [(step.source, step.expected) for step in steps] == [("f(1)", 1), ("f(2)", 2), ("not not f(3)", True)]


def test_two_computed_values_are_both_sent() -> None:
    (step,) = steps_of_asserts("assert f(2) == g(2)")
    assert (step.kind, step.source, step.argument) == (StepKind.EQUAL, "f(2)", "g(2)")


def test_unequal_to_a_literal() -> None:
    (step,) = steps_of_asserts("assert f(2) != 3")
    assert (step.source, step.expected, step.relation) == ("f(2)", 3, Relation.UNEQUAL)


@pytest.mark.parametrize(
    ("source", "expected", "relative", "absolute", "strict"),
    [
        ("assert math.isclose(f(2), 0.5)", 0.5, 1e-9, 0.0, False),
        ("assert isclose(0.5, f(2), rel_tol=0.001)", 0.5, 0.001, 0.0, False),
        ("assert math.isclose(f(2), 1, abs_tol=0.01)", 1.0, 1e-9, 0.01, False),
        ("assert abs(f(2) - 0.5) < 1e-6", 0.5, 0.0, 1e-6, True),
        ("assert abs(0.5 - f(2)) <= 1e-6", 0.5, 0.0, 1e-6, False),
        ("assert 1e-6 > math.fabs(f(2) - math.pi)", 3.141592653589793, 0.0, 1e-6, True),
    ],
)
def test_numbers_that_are_to_be_near(
    source: str, expected: float, relative: float, absolute: float, strict: bool
) -> None:
    (step,) = steps_of_asserts(source)
    assert (step.source, step.expected, step.relation) == ("f(2)", expected, Relation.CLOSE)
    assert (step.relative, step.absolute, step.strict) == (relative, absolute, strict)


@pytest.mark.parametrize("source", ["assert math.isclose(f(2), g(2))", "assert abs(f(2)) < 1e-6", "assert f(2) < 1"])
def test_other_inequalities_are_the_programs_word(source: str) -> None:
    (step,) = steps_of_asserts(source)
    assert step.relation is Relation.SAME


@pytest.mark.parametrize(
    ("source", "lenient"),
    [
        ("assert f(2) == 1.0", True),
        ("assert f(2) == g(2)", True),
        ("assert f(2) in [1.0]", False),
        ("assert not f(2) != g(2)", False),
        ("assert f(2) == 1.0 == g(2)", False),
        ("assert f(2) == 1.0 or f(2) == 2.0", False),
        ("for i in [1.0]:\n    assert f(2) == i", False),
        ("if True:\n    assert f(2) == 1.0", False),
        ("assert math.isclose(f(2), 1.0)", False),
    ],
)
def test_the_comparison_has_a_say_where_values_leave_the_sandbox_and_nowhere_else(source: str, lenient: bool) -> None:
    """f(2) is 1.0000001; what the sandbox would send is made here."""
    namespace = {"f": lambda x: 1.0000001, "g": lambda x: 1.0, "math": math}
    steps = steps_of_asserts(source)
    sent = []
    for step in steps:
        if step.kind is StepKind.RUN:
            with pytest.raises(AssertionError):
                exec(step.source, namespace)
            sent.append({"failed": ""})
        elif step.kind is StepKind.EQUAL:
            sent.append({"both": [eval(step.source, namespace), eval(step.argument, namespace)]})
        else:
            sent.append(encode(eval(step.source, namespace)))
    lines = [*sent, *([] if {"failed": ""} in sent else [{"done": True}])]
    results = "".join(f"nonce {json.dumps(line)}\n" for line in lines).encode()
    outcome = Outcome(Stage.COMPILED, Reply(0, KilledBy.NOBODY, True, 0, 0), b"", b"", results, False)
    for comparison, passes in ((Comparison.TOKENS, False), (Comparison.NUMERIC, lenient)):
        problem = Problem("p", "", (Test(source),), Mode.ASSERTS, judge=Judge(comparison, 1e-6))
        verdict = judge_values(outcome, problem, steps, "nonce").verdict
        assert verdict is (Verdict.PASSED if passes else Verdict.WRONG)


def test_check_is_taken_apart() -> None:
    source = """
METADATA = {"author": "x"}

def check(candidate):
    \"\"\"Text.\"\"\"
    x = 3
    assert candidate(x) == 4, "first"
    assert abs(candidate(2) - 1.5) < 1e-6
    assert True, "always"
    for i in range(2):
        assert candidate(i) == i

check(f)
"""
    steps = steps_of_asserts(source)
    assert [(step.kind, step.source, step.expected) for step in steps] == [
        (StepKind.RUN, "METADATA = {'author': 'x'}", None),
        (StepKind.RUN, "_check_x = 3", None),
        (StepKind.VALUE, "f(_check_x)", 4),
        (StepKind.VALUE, "f(2)", 1.5),
        (StepKind.RUN, "for _check_i in range(2):\n    assert f(_check_i) == _check_i", None),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)\ncheck(g)",
        "def check(candidate):\n    if not candidate:\n        return\n    assert candidate(1) == 1\ncheck(f)",
        "def check(candidate):\n    assert (lambda x: candidate(x))(1) == 1\ncheck(f)",
        "def check(candidate, other):\n    assert candidate(1) == 1\ncheck(f, g)",
    ],
)
def test_what_cannot_be_taken_apart_is_run_as_it_stands(source: str) -> None:
    assert {step.kind for step in steps_of_asserts(source)} == {StepKind.RUN}


@pytest.mark.parametrize(
    "text", ["2 ** 10 ** 9", "'a' * 10 ** 9", "[0] * 10 ** 9", "'%0999999999d' % 1", "1 / 0", "f(1)"]
)
def test_constants_stay_small(text: str) -> None:
    with pytest.raises(NotConstantError):
        constant(ast.parse(text, mode="eval").body)
