"""Comparators against slow, exact oracles and against outputs that try to pass."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Comparison
from openrlhf_maxk.rewards.judging.comparators import difference

TOLERANCE = 1e-6
TEXTUAL = [
    Comparison.EXACT,
    Comparison.TOKENS,
    Comparison.NUMERIC,
    Comparison.CASE_INSENSITIVE,
    Comparison.UNORDERED_LINES,
]


def same(actual: bytes | str, expected: str, comparison: Comparison, tolerance: float = TOLERANCE) -> bool:
    raw = actual.encode("utf-8", "surrogatepass") if isinstance(actual, str) else actual
    return difference(raw, expected, comparison, tolerance) is None


def tokens(text: bytes) -> list[bytes]:
    return [token for token in re.split(rb"[ \t\n\r\x0b\x0c]+", text) if token]


lines = st.lists(st.lists(st.sampled_from(["1", "2", "a", "A", "é", "1.0", "1e0"]), max_size=3), max_size=4)
spaces = st.sampled_from([" ", "  ", "\t", " \t"])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts that are often equal, or nearly so."""
    first = draw(lines)
    second = draw(st.permutations(first)) if draw(st.booleans()) else draw(lines)
    end = draw(st.sampled_from(["", "\n", "\r\n", "\n\n", " \n"]))

    def text(rows: list[list[str]]) -> str:
        return draw(st.sampled_from(["\n", "\r\n"])).join(draw(spaces).join(row) for row in rows)

    return text(first) + end, text(second)


@given(pairs())
@example(("", ""))
@example(("\n", ""))
def test_tokens_and_case_against_a_regular_expression(pair: tuple[str, str]) -> None:
    actual, expected = (text.encode() for text in pair)
    assert same(actual, pair[1], Comparison.TOKENS) == (tokens(actual) == tokens(expected))
    folded = [token.decode().translate({ord(c): c.lower() for c in "A"}) for token in tokens(actual)]
    wanted = [token.decode().translate({ord(c): c.lower() for c in "A"}) for token in tokens(expected)]
    assert same(actual, pair[1], Comparison.CASE_INSENSITIVE) == (folded == wanted)


@given(pairs())
def test_unordered_lines_against_removing_one_by_one(pair: tuple[str, str]) -> None:
    actual = [tokens(line) for line in pair[0].encode().split(b"\n") if tokens(line)]
    left = [tokens(line) for line in pair[1].encode().split(b"\n") if tokens(line)]
    right = True
    for line in actual:
        if line in left:
            left.remove(line)
        else:
            right = False
    assert same(pair[0], pair[1], Comparison.UNORDERED_LINES) == (right and not left)


@given(st.binary(max_size=20), st.text(max_size=20))
def test_exact_differs_by_one_newline_at_most(actual: bytes, expected: str) -> None:
    wanted = expected.encode("utf-8", "surrogatepass")
    allowed = {a + end for a in [re.sub(rb"\r?\n?$", b"", wanted, count=1)] for end in (b"", b"\n", b"\r\n", b"\r")}
    assert same(actual, expected, Comparison.EXACT) == (actual in allowed)


numbers = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False).map(lambda x: f"{x:.9f}")


@given(numbers, st.floats(min_value=-3, max_value=3))
def test_numeric_against_exact_fractions(expected: str, factor: float) -> None:
    scale = max(Fraction(1), abs(Fraction(expected)))
    shift = Fraction(factor) * Fraction(TOLERANCE) * scale
    actual = f"{float(Fraction(expected) + shift):.12f}"
    error = abs(Fraction(actual) - Fraction(expected))
    if abs(error - Fraction(TOLERANCE) * scale) > Fraction(1, 10**9) * scale:  # not decided by rounding
        assert same(actual, expected, Comparison.NUMERIC) == (error <= Fraction(TOLERANCE) * scale)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("1.0000001", "1.0"),
        ("1e0", "1.0"),
        ("+1.0", "1.0"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("-0.0", "0.0"),
        ("1E+2", "100.0"),
        ("1e400", "1e400"),
        ("nan", "nan"),
        ("a 2.0000001 b", "a 2.0 b"),
        ("3", "3.000000000"),  # an integer where a float is expected
        ("0", "0.0"),
        ("-0", "0"),
        ("0", "-0"),
        ("+3", "3"),
        ("-0", "0.0"),
        ("1", "1.0"),
        ("1", "1e0"),
        ("1.0", "1"),  # a float where an integer is expected
        ("0.0000001", "0"),
        ("-0.0", "0"),
        ("3e0", "3"),
        ("1000000000000.0000001", "1000000000000"),
        ("9007199254740993.0", "9007199254740993"),  # no float is that number
        ("1" + "0" * 100 + ".0", "1" + "0" * 100),
    ],
)
def test_numeric_accepts(actual: str, expected: str) -> None:
    assert same(actual, expected, Comparison.NUMERIC)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("1.00001", "1.0"),
        ("1000000008.0", "1000000007"),  # relative tolerance is for floats: integers are exact
        ("1000000007.00001", "1000000007"),
        ("9007199254740992.0", "9007199254740993"),
        ("1000000008", "1000000007"),
        ("007", "7"),  # as a text it is another one
        ("-1", "1"),
        ("+-1", "1"),
        ("-", "0"),
        ("0", "0.1"),
        ("1", "1.1"),
        ("1e400", "1" + "0" * 400),
        ("1" + "0" * 400 + ".0", "1" + "0" * 400),
        ("1000000000000000000001", "1000000000000000000000"),
        ("nan", "1.0"),
        ("inf", "1.0"),
        ("1e400", "1.0"),
        ("1e400", "2e400"),
        ("-1e400", "1e400"),
        ("inf", "1e400"),
        ("1_0.0", "10.0"),
        ("１.０", "1.0"),
        ("٣.0", "3.0"),
        ("0x1.0", "1.0"),
        ("1.0f", "1.0"),
        ("1.0 ", "1.0 2.0"),
        ("1.0 2.0", "1.0"),
        ("1,0", "1.0"),
        (".", "0.0"),
        ("e5", "0.0"),
        ("1e", "1.0"),
        ("--1.0", "1.0"),
        ("1.0\u00a0", "1.0"),
    ],
)
def test_numeric_refuses(actual: str, expected: str) -> None:
    assert not same(actual, expected, Comparison.NUMERIC)


@pytest.mark.parametrize("comparison", TEXTUAL)
@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("", "3"),
        ("1\n2", "1\n2\n3"),  # a prefix
        ("1\n2\n3\n4", "1\n2\n3"),
        ("1\n1\n2", "1\n2\n2"),  # the same set, not the same lines
        ("2", "1\n2"),
        ("3\0", "3"),
        ("\ufeff3", "3"),
        ("3", "3 3"),
        ("[3]", "3"),
        ("expected: 3", "3"),
    ],
)
def test_nothing_accepts_what_only_resembles(comparison: Comparison, actual: str, expected: str) -> None:
    assert not same(actual, expected, comparison)


@pytest.mark.parametrize("comparison", TEXTUAL)
@pytest.mark.parametrize("text", ["", "3\n", "1 2\n3 4\n", "é", "\ud800", "\0", "9" * 100_000, "a\n" * 1000])
def test_everything_accepts_the_expected_output(comparison: Comparison, text: str) -> None:
    assert same(text, text, comparison)


@pytest.mark.parametrize("comparison", [c for c in TEXTUAL if c is not Comparison.EXACT])
def test_white_space_at_ends_does_not_matter(comparison: Comparison) -> None:
    assert same("\n 1  2 \r\n3\n\n", "1 2\n3", comparison)


def test_case_matters_unless_asked() -> None:
    assert not same("YES", "yes", Comparison.TOKENS)
    assert same("YES", "yes", Comparison.CASE_INSENSITIVE)
    assert not same("ſ", "s", Comparison.CASE_INSENSITIVE)


@given(st.binary(max_size=200), st.text(max_size=200), st.sampled_from(TEXTUAL))
def test_any_bytes_get_an_answer(actual: bytes, expected: str, comparison: Comparison) -> None:
    answer = difference(actual, expected, comparison, TOLERANCE)
    assert answer is None or (answer and len(answer) < 300)


@pytest.mark.parametrize("comparison", TEXTUAL)
def test_megabytes_of_anything(comparison: Comparison) -> None:
    for actual in (
        b"9" * 2**20,
        b"0" * 2**20 + b".0",
        b"0." + b"1" * 2**20,
        b"1e-999999999",
        b"1.5 " * 2**18,
        b"\n" * 2**20,
        b"\xff" * 2**20,
        b"1e9" * 2**18,
    ):
        assert difference(actual, "3", comparison, TOLERANCE) is not None
        assert difference(actual, actual.decode("latin-1"), comparison, TOLERANCE) is None or b"\xff" in actual


def test_a_line_that_is_missing_is_named() -> None:
    assert "'b'" in (difference(b"a\na", "a\nb", Comparison.UNORDERED_LINES, TOLERANCE) or "")
    assert "token 2" in (difference(b"1 2", "1 3", Comparison.TOKENS, TOLERANCE) or "")


def test_a_checker_is_not_a_comparison_of_texts() -> None:
    with pytest.raises(ValueError, match="checker"):
        difference(b"", "", Comparison.CHECKER, TOLERANCE)
