"""Examples in the text of a problem, as tests: what a user pastes from a contest, or a docstring.

What is looked for, in order; the first kind that is found is taken:

- ``>>> f(2)`` and the value on the next line: asserts.
- ``Sample Input 1`` … ``Sample Output 1``, or ``Input`` … ``Output`` behind a line that says "Example" or "Sample".
- ``Input: 3 4`` and ``Output: 7`` (or ``in`` and ``out``), on their lines or below them, if they are not prose: a
  section of that name may tell the format.

Output ends at an empty line, unless it stands in a fence; input ends where output begins.
"""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator

from openrlhf_maxk.problems.record import Mode, Test

_DECORATION = r"[ \t#*_>`]*"
_HEADING = re.compile(
    rf"^{_DECORATION}(?P<marked>(?:sample|example)s?[ \t]+)?"
    rf"(?P<kind>(?:in|out)puts?(?:{_DECORATION}\d+)?|in|out)\b(?:\*\*|__)?(?P<rest>[: \t].*|)$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"^[: \t]*(?:\*\*|__)?[ \t]*")
_MARK = re.compile(rf"^{_DECORATION}(?:sample|example)s?\b[^.,;]{{0,20}}$", re.IGNORECASE)
_END = re.compile(
    rf"^{_DECORATION}(?:explanation|note|notes|constraints?|scoring|hint|sample|example)s?\b", re.IGNORECASE
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_SENTENCE = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}[ \t]+[A-Za-z]+[ \t]+[A-Za-z]{2,}")
_ARGUMENTS = re.compile(r"[ \t]*[A-Za-z_]\w*[ \t]*=[^=]")


def examples_in(text: str) -> tuple[Mode, tuple[Test, ...]]:
    """The tests that the examples in ``text`` make, and how a program meets them; no tests if none are found."""
    calls = tuple(_doctests(text))
    if calls:
        return Mode.ASSERTS, calls
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if _marks(line)), None)
    pairs = list(_pairs(lines[first or 0 :], trusted=first is not None))
    return Mode.STDIN, tuple(Test(given, expected) for given, expected in dict.fromkeys(pairs))


def _marks(line: str) -> bool:
    heading = _HEADING.match(line)
    return bool(heading["marked"] if heading else _MARK.match(line))


def _doctests(text: str) -> Iterator[Test]:
    try:
        found = doctest.DocTestParser().get_examples(text)
    except ValueError:  # not a console session after all
        return
    for example in found:
        source = example.source.strip()
        try:
            ast.parse(source, mode="eval")
            ast.literal_eval(example.want.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue  # it prints, or assigns, or shows an object
        yield Test(f"assert {source} == {example.want.strip()}")


def _pairs(lines: list[str], trusted: bool) -> Iterator[tuple[str, str]]:
    """Inputs with the outputs that follow them."""
    given: list[str] | None = None
    number = 0
    while number < len(lines):
        heading = _HEADING.match(lines[number])
        number += 1
        if heading is None or not (trusted or heading["rest"].strip()):
            continue
        rest = _BEFORE.sub("", heading["rest"]).rstrip()
        expects = heading["kind"].lower().startswith("out")
        block, number = _block([rest] if rest else [], lines, number, expects)
        if not expects:
            given = block
        elif given is not None:
            if not _is_told(given, block, trusted):
                yield "\n".join(given) + "\n", "\n".join(block) + "\n"
            given = None


def _block(block: list[str], lines: list[str], number: int, expects: bool) -> tuple[list[str], int]:
    """What stands from line ``number`` on, up to what ends it, and the number of the line behind it."""
    fenced = False
    while number < len(lines):
        line = lines[number]
        if _FENCE.match(line):
            number += 1
            if fenced:
                break
            fenced = not block
            continue
        if not fenced and (_HEADING.match(line) or _END.match(line)):
            break
        if expects and not fenced and block and not line.strip():
            break
        if block or line.strip():
            block.append(line.rstrip())
        number += 1
    while block and not block[-1]:
        block.pop()
    return block, number


def _is_told(given: list[str], expected: list[str], trusted: bool) -> bool:
    """Whether a pair is no example of input and output, but tells the format, or the arguments of a function."""
    if not expected or any(map(_ARGUMENTS.match, given)):
        return True
    return not trusted and any(map(_SENTENCE.search, (*given, *expected)))
