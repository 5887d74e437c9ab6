"""Values that leave the sandbox: encoding, comparison, and texts that a program made up."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Comparison
from openrlhf_maxk.rewards.judging.values import MalformedError, encoded_json, json_view, loads, same
from openrlhf_maxk.rewards.sandbox.values import UnknownTypeError, dumps, encode

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**40), max_value=10**40),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.fractions(max_denominator=1000),
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.sampled_from([0, 1, True, False, 0.0, 1.0, -0.0, "1", b"1", 2**70, float(2**70), Fraction(1, 2), 0.5]),
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(hashables, max_size=3),
        st.dictionaries(hashables, inner, max_size=3),
    ),
    max_leaves=8,
)


def travelled(value: object) -> Any:
    return loads(dumps(value).encode())


@given(values, values)
def test_equality_is_pythons(first: object, second: object) -> None:
    assert same(travelled(first), travelled(second), Comparison.TOKENS, 0.0) == (first == second)


@given(values)
def test_a_value_equals_itself(value: object) -> None:
    assert same(travelled(value), encode(value), Comparison.TOKENS, 0.0)
    assert same(travelled(value), encode(value), Comparison.NUMERIC, 0.0)


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(jsons)
def test_json_view_is_a_trip_through_json(value: Any) -> None:
    assert same(json_view(travelled(value)), json_view(encoded_json(json.dumps(value))), Comparison.TOKENS, 0.0)


@given(
    st.recursive(
        st.integers() | st.text(max_size=3), lambda inner: st.tuples(inner, inner) | st.lists(inner), max_leaves=6
    )
)
def test_tuples_are_lists_in_json(value: Any) -> None:
    assert same(json_view(travelled(value)), json_view(encoded_json(json.dumps(value))), Comparison.TOKENS, 0.0)


def test_keys_are_text_in_json() -> None:
    value = {0: "a", 2.5: "b", True: "c", None: "d"}
    assert same(json_view(travelled(value)), json_view(encoded_json(json.dumps(value))), Comparison.TOKENS, 0.0)


class Anything:
    """Claims to equal everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Always(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__

    def __int__(self) -> int:
        return 3


class Listing(list):
    def __iter__(self) -> Any:
        return iter([1, 2, 3])

    def __eq__(self, other: object) -> bool:
        return True


class Text(str):
    def __iter__(self) -> Any:
        return iter("lie")


class Disguised:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        return int


Pair = namedtuple("Pair", "a b")
Level = IntEnum("Level", "LOW HIGH")


@pytest.mark.parametrize("value", [Anything(), [Anything()], Disguised(), object(), len, lambda: 3, range(3), {1: len}])
def test_what_has_no_counterpart_is_refused(value: object) -> None:
    with pytest.raises(UnknownTypeError):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "what_it_is"),
    [
        (Always(5), 5),
        (Listing([7]), [7]),
        (Text("truth"), "truth"),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Pair(1, 2), (1, 2)),
        (Level.HIGH, 2),
        (bytearray(b"x"), b"x"),
        (frozenset([1]), {1}),
    ],
)
def test_subclasses_count_as_what_they_are_built_on(value: object, what_it_is: object) -> None:
    assert same(travelled(value), encode(what_it_is), Comparison.TOKENS, 0.0)
    assert not same(travelled(value), encode("something else"), Comparison.TOKENS, 0.0)


def test_nested_too_deeply() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        dumps(deep)
    with pytest.raises(MalformedError):
        loads(b"[" * 100_000)
    with pytest.raises(MalformedError):
        same(loads(b"[" * 900 + b"]" * 900), [], Comparison.TOKENS, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"1" * 50,
        b'{"int": "zz"}',
        b'{"int": 3}',
        b'{"int": []}',
        b'{"fraction": ["1", "0"]}',
        b'{"fraction": ["1"]}',
        b'{"fraction": [1, 2]}',
        b'{"decimal": "x"}',
        b'{"decimal": []}',
        b'{"decimal": "1e999999999999999999999"}',
        b'{"complex": [1]}',
        b'{"complex": "ab"}',
        b'{"set": 3}',
        b'{"set": [{"x": 1}]}',
        b'{"dict": [1]}',
        b'{"dict": [[1]]}',
        b'{"dict": 1}',
        b'{"tuple": null}',
        b'{"bytes": "zz"}',
        b'{"bytes": 1}',
        b'{"what": 1}',
        b"{}",
        b'{"int": "1", "set": []}',
        b"\xff",
        b'"\\ud800"',
    ],
)
@pytest.mark.parametrize("comparison", [c for c in Comparison if c is not Comparison.CHECKER])
def test_made_up_values_never_pass_and_never_break(text: bytes, comparison: Comparison) -> None:
    for expected in (3, [1], {"a": 1}, {1, 2}, (1, 2), 0.5, "x", None, b"", 1j):
        for view in (lambda value: value, json_view):
            try:
                actual = view(loads(text))
                assert not same(actual, view(encode(expected)), comparison, 1e-6)
            except MalformedError:
                pass


@given(st.binary(max_size=40), st.sampled_from([c for c in Comparison if c is not Comparison.CHECKER]))
def test_any_bytes_get_an_answer(text: bytes, comparison: Comparison) -> None:
    with contextlib.suppress(MalformedError):
        same(json_view(loads(text)), encode([1, {"a": 2.5}]), comparison, 1e-6)


@pytest.mark.parametrize(
    ("actual", "expected", "right"),
    [
        (1.0000001, 1.0, True),
        (1.1, 1.0, False),
        (1, 1.0000001, True),
        (10**20, 10**20 + 1, False),
        ([1.0000001, "a"], [1.0, "a"], True),
        ((1.0000001,), (1.0,), True),
        ((1.0,), [1.0], False),
        ({"a": 1.0000001}, {"a": 1.0}, True),
        ({"a": 1.0}, {"b": 1.0}, False),
        ([1.0], [1.0, 2.0], False),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (math.nan, 1.0, False),
        (10**400, 1.0, False),
        (10**400, float("inf"), False),
        ("1.0000001", "1.0", False),
    ],
)
def test_tolerance_reaches_floats_only(actual: object, expected: object, right: bool) -> None:
    assert same(travelled(actual), encode(expected), Comparison.NUMERIC, 1e-6) == right


def test_case_and_order_where_asked() -> None:
    assert same(travelled(["Yes"]), encode(["YES"]), Comparison.CASE_INSENSITIVE, 0.0)
    assert not same(travelled(["Yes"]), encode(["YES"]), Comparison.TOKENS, 0.0)
    assert same(travelled([[1], [2]]), encode([[2], [1]]), Comparison.UNORDERED_LINES, 0.0)
    assert not same(travelled([[1, 2]]), encode([[2, 1]]), Comparison.UNORDERED_LINES, 0.0)
    assert not same(travelled([1, 1, 2]), encode([1, 2, 2]), Comparison.UNORDERED_LINES, 0.0)


def test_hostile_sizes_take_linear_time() -> None:
    colliding = [k * (2**61 - 1) for k in range(20_000)]  # one hash for all
    assert same(travelled(set(range(20_000))), encode(set(range(20_000))), Comparison.TOKENS, 0.0)
    text = json.dumps({"set": [encode(number) for number in colliding]}).encode()
    assert not same(loads(text), encode({1}), Comparison.TOKENS, 0.0)
    assert not same(loads(b'{"int": "' + b"f" * 10**6 + b'"}'), encode(1), Comparison.TOKENS, 0.0)
    with pytest.raises(MalformedError):
        same(loads(b'{"fraction": ["' + b"f" * 10**6 + b'", "' + b"e" * 10**6 + b'"]}'), 1, Comparison.TOKENS, 0.0)
    assert Decimal("1e300") == Fraction(10**300)
