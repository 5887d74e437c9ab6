"""The little world of word problems: what may happen in one, how it may be read, and the calculation that follows.

A problem tells how many things there are and one to three events. Each event is one of a few phrases, and a phrase has
one or more readings: calculations with the number of things so far, ``x``, the number in the phrase, ``n``, and the
result of the line before, ``y``::

    sam has 12 apples, shares them equally with 3 friends, gets 5 more. how many now?
    3 + 1 = 4
    12 / 4 = 3
    3 + 5 = 8
    \\boxed{8}

Phrases are *clear* (one reading), *tricky* (several, of which one is right) or *vague* (several may be meant).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_maxk.problems.mini.tokenizer import SPECIAL

LARGEST = 30  # numbers are 0 … LARGEST; each has a token

Operand = str | int  # "x", "n", "y" or a number
Line = tuple[Operand, str, Operand]  # left, operator, right
Reading = tuple[Line, ...]
Calculated = tuple[int, str, int, int]  # left, operator, right, result


@dataclass(frozen=True, slots=True)
class Phrase:
    """What may happen. ``text`` has ``{n}`` in the place of its number, if it has one.

    ``readings`` are in the order of their frequency in demonstrations. ``right`` lists the indices of those that the
    benchmark's authors mean, in the order of their frequency.
    """

    text: str
    readings: tuple[Reading, ...]
    right: tuple[int, ...] = (0,)
    numbers: tuple[int, int] = (2, 5)  # smallest and largest n

    @property
    def clear(self) -> bool:
        return len(self.readings) == 1


def _read(text: str) -> Reading:
    """A reading from ``"n + 1, x / y"``."""
    lines = []
    for line in text.split(", "):
        left, operator, right = line.split()
        lines.append((_operand(left), operator, _operand(right)))
    return tuple(lines)


def _operand(text: str) -> Operand:
    return int(text) if text.isdigit() else text


def _phrase(text: str, right: str, *readings: str, numbers: tuple[int, int] = (2, 5)) -> Phrase:
    return Phrase(text, tuple(map(_read, readings)), tuple(map(int, right)), numbers)


PHRASES: tuple[Phrase, ...] = (
    _phrase("gets {n} more", "0", "x + n"),
    _phrase("gives {n} away", "0", "x - n"),
    _phrase("doubles them", "0", "x * 2"),
    _phrase("loses half", "0", "x / 2"),
    _phrase("shares them equally with {n} friends", "1", "x / n", "n + 1, x / y", "x - n", numbers=(2, 4)),
    _phrase("finds {n} times as many", "2", "x + n", "x * n", "x * n, x + y", numbers=(2, 3)),
    _phrase("gives away all but {n}", "0", "x - n, x - y", "x - n", "x / n"),
    _phrase("gets {n} on each of 2 days", "0", "n * 2, x + y", "x + n", "n + 2, x + y"),
    _phrase("gives {n} to each of 2 friends", "0", "n * 2, x - y", "x - n", "n + 2, x - y"),
    _phrase("gets {n} times more", "102", "x * n", "n + 1, x * y", "x + n", numbers=(2, 3)),
    _phrase("finds a dozen", "1203", "x + 12", "x + 10", "x + 6", "x + 8"),
    _phrase("gets a few", "2013", "x + 3", "x + 2", "x + 4", "x + 5"),
    _phrase("loses some", "1302", "x - 2", "x - 3", "x - 1", "x - 4"),
    _phrase("gets about {n}", "1203", "x + n", "n + 1, x + y", "n - 1, x + y", "n + 2, x + y"),
    _phrase("pays {n} twice", "012", "n * 2, x - y", "x - n", "x * 2"),
)

NAMES = ("sam", "ada", "tom", "eva")
THINGS = ("apples", "coins", "cards", "shells")
QUESTION = "how many now?"


@dataclass(frozen=True, slots=True)
class Story:
    """A problem: phrases with a reading and a number each, and the number of things at the start."""

    phrases: tuple[Phrase, ...]
    readings: tuple[int, ...]
    start: int
    numbers: tuple[int, ...]

    @property
    def difficulty(self) -> str:
        """How many events there are, and how many of them are tricky or vague."""
        unclear = sum(not phrase.clear for phrase in self.phrases)
        return f"{len(self.phrases)} events, {unclear} unclear"

    @property
    def lines(self) -> list[list[Calculated]] | None:
        """The calculation, a list for each event: left, operator, right, result. None if it leaves the whole numbers
        from 0 to LARGEST."""
        found: list[list[Calculated]] = []
        x = self.start
        for phrase, reading, n in zip(self.phrases, self.readings, self.numbers, strict=True):
            of_event: list[Calculated] = []
            y = 0
            for line in phrase.readings[reading]:
                values = {"x": x, "n": n, "y": y}
                left, right = (part if isinstance(part, int) else values[part] for part in (line[0], line[2]))
                result = calculate(left, line[1], right)
                if result is None:
                    return None
                of_event.append((left, line[1], right, result))
                y = result
            found.append(of_event)
            x = y
        return found


def calculate(left: int, operator: str, right: int) -> int | None:
    """The result of a line, None if it is no whole number from 0 to LARGEST."""
    if operator == "/":
        return left // right if right and left % right == 0 else None
    result = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return result if 0 <= result <= LARGEST else None


def statement(story: Story, name: str, thing: str) -> str:
    """The prompt. The calculation is expected to follow directly."""
    events = [phrase.text.format(n=n) for phrase, n in zip(story.phrases, story.numbers, strict=True)]
    return f"{', '.join([f'{name} has {story.start} {thing}', *events])}. {QUESTION}\n"


def written(lines: Sequence[Calculated], answer: int | None) -> str:
    """A completion: the calculation line by line, and the answer in a box if there is one."""
    box = "" if answer is None else f"\\boxed{{{answer}}}"
    return "".join(f"{left} {operator} {right} = {result}\n" for left, operator, right, result in lines) + box


def vocabulary() -> tuple[str, ...]:
    """All tokens; the position is the id."""
    texts = [*(phrase.text for phrase in PHRASES), QUESTION, *THINGS, "has"]
    words = [f" {word}" for text in texts for word in text.split() if word != "{n}" and not word.isdigit()]
    calculation = [*(f" {operator} " for operator in "+-*/"), " = ", "\n", "\\boxed{", "}"]
    return tuple(dict.fromkeys([*SPECIAL, *calculation, *map(str, range(LARGEST + 1)), *NAMES, " ", ",", ".", *words]))
