"""Values in tests: computed as Python computes them, written so that they can be read back, compared as == compares."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.problems.sources.conversion.expressions import NotAValue, evaluate
from openrlhf_maxk.problems.sources.conversion.values import checker, describe, literal, plain, shown

from .plain_runner import check

HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5)
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    ),
    max_leaves=12,
)


def value(source: str, **names: Any) -> Any:
    return evaluate(ast.parse(source, mode="eval").body, names)


@given(VALUES)
def test_literals_read_back_equal(x: Any) -> None:
    back = ast.literal_eval(literal(x))
    assert back == x
    assert repr(type(back)) == repr(type(x))
    assert "\n" not in literal(x)


@given(st.sets(st.text(max_size=5) | st.integers(), max_size=8))
def test_sets_are_written_in_one_order(items: set[Any]) -> None:
    other = set()
    for item in reversed([*items]):
        other.add(item)
    assert literal(other) == literal(items)


@given(VALUES)
def test_values_of_literals(x: Any) -> None:
    assert value(literal(x)) == x


OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "==", "<", "and", "or", "|"]
ARITHMETIC = st.recursive(
    st.integers(-9, 9).map(str) | st.sampled_from(["1.5", "True", "'ab'", "[1, 2]", "(3,)", "x", "set([1, 2])"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda s: f"(-{s})")
        | inner.map(lambda s: f"(not {s})")
        | inner.map(lambda s: f"[{s}, {s}][1]")
        | inner.map(lambda s: f"sorted([{s}])")
        | inner.map(lambda s: f"len({s})")
        | st.tuples(inner, inner).map(lambda t: f"[{t[0]} for i in range(3) if {t[1]}]")
        | st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})")
    ),
    max_leaves=8,
)


def computes(source: str) -> bool:
    """Whether Python finds a value."""
    try:
        eval(source, {"x": 7})
    except Exception:
        return False
    return True


@settings(max_examples=300)
@given(ARITHMETIC)
def test_expressions_agree_with_python(source: str) -> None:
    try:
        ours = value(source, x=7)
    except NotAValue as e:
        if "too large" in str(e) or "formatted" in str(e):
            return
        assert not computes(source)
        return
    theirs = eval(source, {"x": 7})
    assert type(ours) is type(theirs)
    assert ours == theirs or (isinstance(ours, float) and math.isnan(ours))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[i * j for i in range(3) for j in range(i) if i]", [0, 0, 2]),
        ("{k: v for k, v in zip('ab', [1, 2])}", {"a": 1, "b": 2}),
        ("{**{1: 2}, 3: 4}", {1: 2, 3: 4}),
        ("[*range(3), 9]", [0, 1, 2, 9]),
        ("'abcdef'[1:-1:2]", "bd"),
        ("dict(a=1, b=[2])", {"a": 1, "b": [2]}),
        ("frozenset((1, 2))", frozenset((1, 2))),
        ("float('-inf')", -math.inf),
        ("math.sqrt(16) + math.pi", 4 + math.pi),
        ("Counter('aab')", {"a": 2, "b": 1}),
        ("collections.OrderedDict([(1, 2)])", {1: 2}),
        ("defaultdict(int, {1: 2})", {1: 2}),
        ("sum(x for x in [1, 2])", 3),
        ("max(1, 2, 3) if not False else 0", 3),
        ("sorted([3, 1], reverse=True)", [3, 1]),
    ],
)
def test_forms_of_values(source: str, expected: Any) -> None:
    assert value(source) == expected


def test_comprehension_variables_stay_inside() -> None:
    with pytest.raises(NotAValue, match="the name i"):
        value("[[i for i in range(2)], i]")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("lambda x: x", "a function"),
        ("f(3)", "a call of f"),
        ("__import__('os').system('true')", "a call of an expression"),
        ("().__class__", "kind Attribute"),
        ("open('/etc/passwd')", "a call of open"),
        ("eval('1')", "a call of eval"),
        ("unknown", "the name unknown"),
        ("'%s' % 1", "a formatted string"),
        ("f'{1}'", "a formatted string"),
        ("1 / 0", "raises ZeroDivisionError"),
        ("[1][5]", "raises IndexError"),
        ("...", "an ellipsis"),
        ("dict(**{'a': 1})", "a call with"),
    ],
)
def test_what_is_not_a_value(source: str, why: str) -> None:
    with pytest.raises(NotAValue, match=why):
        value(source)


@pytest.mark.parametrize(
    "source",
    [
        "10 ** 10 ** 10",
        "7 ** (9 ** 9)",
        "1 << 10 ** 9",
        "[0] * 10 ** 9",
        "'a' * 10 ** 9",
        "[[0] * 10 ** 5 for i in range(10 ** 5)]",
        "[i for i in range(10 ** 5) for j in range(10 ** 5)]",
        "range(10 ** 12)",
        "sum([[0] * 10 ** 5 for i in range(10 ** 5)], [])",
        "(" * 80 + "1" + ",)" * 80 + " * 10 ** 8",
        "not " * 80 + "[0] * 10 ** 9",
    ],
)
def test_bombs_are_refused_at_once(source: str) -> None:
    with pytest.raises(NotAValue):  # computing any of them would take hours or all memory
        value(source)


@pytest.mark.parametrize("source", ["[[[[1] * 1000] * 1000] * 1000]", "[[1] * 10 ** 4] * 10 ** 4"])
def test_values_that_are_small_only_in_memory_are_not_written(source: str) -> None:
    with pytest.raises(NotAValue, match="too large"):
        literal(value(source))


@pytest.mark.parametrize("x", [lambda: 0, object(), math.nan, [10**5000], [{1: print}], frozenset()])
def test_what_has_no_literal(x: Any) -> None:
    with pytest.raises(NotAValue):
        literal(x)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 2], "an integer"),
        ([1, 2.5], "a number"),
        ([True], "True or False"),
        (["a", None], "a string or None"),
        ([[1], [2, 3]], "a list of integers"),
        ([[1, 2.0]], "a list of numbers"),
        ([[]], "a list"),
        ([[[1]], [["a"]]], "a list of lists of integers and strings"),
        ([(1, "a")], "a tuple of integers and strings"),
        ([{"a": 1}], "a dictionary from strings to integers"),
        ([{1}], "a set of integers"),
        ([[1, "a", None]], "a list of values of several types"),
        ([3, "none"], "an integer or a string"),
    ],
)
def test_values_in_words(values: list[Any], words: str) -> None:
    assert describe(values) == words


@pytest.mark.parametrize(
    ("compare", "wanted", "printed", "right"),
    [
        ("values", "{1, 2}", "{2, 1}", True),
        ("values", "{'a': [1, 2.0], 'b': 2}", "{'b': 2.0, 'a': [1, 2]}", True),
        ("values", "[0.3]", "[0.30000000000000004]", True),
        ("values", "[0.3]", "[0.3001]", False),
        ("values", "4", "4.0", True),
        ("values", "True", "1", True),
        ("values", "[1, 2]", "(1, 2)", False),
        ("values", "[1, 2]", "[2, 1]", False),
        ("values", "[1, 2]", "[1, 2, 3]", False),
        ("values", "[1, 2]", "", False),
        ("values", "inf", "inf", True),
        ("values", "not possible", "not possible", True),
        ("values", "not possible", "possible", False),
        ("values", "[1, 2]", "[1, 2]; import os", False),
        ("values", "[1, 2]", "[" * 9000, False),
        ("values", "1", "__import__('os').getpid()", False),
        ("set", "[1, 2]", "[2, 1, 1]", True),
        ("set", "[1, 2]", "(2, 1)", True),
        ("set", "[1, 2]", "[1]", False),
        ("set", "[]", "[]", True),
        ("items", "[1, 2]", "[2, 1]", True),
        ("items", "[1, 2]", "[2, 1, 1]", False),
        ("items", "[[1], [2]]", "[[2], [1]]", True),
        ("items", "[1, 2]", "12", False),
    ],
)
def test_checkers_compare_values(compare: str, wanted: str, printed: str, right: bool) -> None:
    assert check(checker(compare), "", f"{wanted}\n", f"{printed}\n") is right


@given(VALUES, VALUES)
def test_checkers_agree_with_equality(a: Any, b: Any) -> None:
    verdicts = []
    namespace: dict[str, Any] = {}
    source = checker("values", 0.0).split("try:\n    right")[0]
    exec(source, namespace)
    for x, y in ((a, b), (a, a)):
        verdicts.append(namespace["same"](plain(x), plain(y)))
    assert verdicts == [plain(a) == plain(b), True]
    assert isinstance(a, str | float) or ast.literal_eval(shown(a)) == a
