"""The little world of the benchmark: its words, what each of them may mean, and the programs they stand for.

A program reads a list ``a``, applies up to two operations to it and prints one result::

    a = list(map(int, input().split()))
    a = [x for x in a if x > 5]
    a = sorted(a)
    print(*a)

A statement names the operations by words. Most words are ambiguous: *large* may be "above 5", "above the mean", "the
top three". Meanings are Python expressions over ``a``, so that the program text and its semantics are one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the statements.

    ``meanings`` are in the order of their frequency in demonstrations. ``ranking`` lists their indices in the order of
    their frequency in the benchmark's problems. The two differ: that is what training has to find out.
    """

    text: str
    meanings: tuple[str, ...]
    ranking: tuple[int, ...] = (0,)

    @property
    def ambiguous(self) -> bool:
        return len(self.meanings) > 1


def _ambiguous(text: str, ranking: str, *meanings: str) -> Word:
    return Word(text, meanings, tuple(int(digit) for digit in ranking))


OPERATIONS: tuple[Word, ...] = (
    _ambiguous(
        "large",
        "204153",
        "[x for x in a if x > 5]",
        "[x for x in a if x > 3]",
        "sorted(a)[-3:]",
        "[x for x in a if x > sum(a) / len(a)]",
        "[x for x in a if abs(x) > 5]",
        "[x for x in a if x == max(a)]",
    ),
    _ambiguous(
        "small",
        "315024",
        "[x for x in a if x < 3]",
        "[x for x in a if x < 5]",
        "[x for x in a if x == min(a)]",
        "sorted(a)[:3]",
        "[x for x in a if x < sum(a) / len(a)]",
        "[x for x in a if abs(x) < 3]",
    ),
    _ambiguous(
        "special",
        "241305",
        "[x for x in a if x % 3 == 0]",
        "[x for x in a if x % 5 == 0]",
        "[x for x in a if a.count(x) == 1]",
        "[x for x in a if x < 0]",
        "[x for x in a if x % 2 == 1]",
        "[x for x in a if x == abs(x)]",
    ),
    _ambiguous(
        "regular",
        "120543",
        "[x for x in a if x % 2 == 0]",
        "[x for x in a if x > 0]",
        "a[::2]",
        "[x for x in a if a.count(x) > 1]",
        "[x for x in a if abs(x) < 5]",
        "[x for x in a if x % 3 == 0]",
    ),
    _ambiguous(
        "scale",
        "301425",
        "[x * 2 for x in a]",
        "[x * 10 for x in a]",
        "[x * 3 for x in a]",
        "[x * len(a) for x in a]",
        "[x // 2 for x in a]",
        "[x * x for x in a]",
    ),
    _ambiguous(
        "shift",
        "235014",
        "[x + 1 for x in a]",
        "[x - 1 for x in a]",
        "a[1:] + a[:1]",
        "a[-1:] + a[:-1]",
        "[x + 3 for x in a]",
        "[x - min(a) for x in a]",
    ),
    _ambiguous(
        "flip",
        "142035",
        "a[::-1]",
        "[-x for x in a]",
        "[abs(x) for x in a]",
        "[10 - x for x in a]",
        "[max(a) - x for x in a]",
        "[1 - x for x in a]",
    ),
    _ambiguous(
        "normalise",
        "310254",
        "[x - min(a) for x in a]",
        "[abs(x) for x in a]",
        "[x % 10 for x in a]",
        "[x - a[0] for x in a]",
        "[x - sum(a) // len(a) for x in a]",
        "[x // 2 for x in a]",
    ),
    _ambiguous(
        "arrange",
        "241053",
        "sorted(a)",
        "sorted(a, reverse=True)",
        "sorted(a, key=abs)",
        "a[::-1]",
        "sorted(set(a))",
        "sorted(a, key=abs, reverse=True)",
    ),
    _ambiguous(
        "trim",
        "203415",
        "a[1:]",
        "a[:-1]",
        "a[1:-1]",
        "a[:3]",
        "sorted(a)[1:-1]",
        "a[-3:]",
    ),
    Word("evens", ("[x for x in a if x % 2 == 0]",)),
    Word("positives", ("[x for x in a if x > 0]",)),
    Word("doubled", ("[x * 2 for x in a]",)),
    Word("negated", ("[-x for x in a]",)),
    Word("ascending", ("sorted(a)",)),
    Word("reversed", ("a[::-1]",)),
)

RESULTS: tuple[Word, ...] = (
    _ambiguous(
        "total",
        "214053",
        "sum(a)",
        "len(a)",
        "sum(set(a))",
        "sum(x * x for x in a)",
        "sum(abs(x) for x in a)",
        "len(set(a))",
    ),
    _ambiguous(
        "best",
        "231504",
        "max(a)",
        "a[0]",
        "max(a, key=abs)",
        "min(a)",
        "a[-1]",
        "max(a, key=a.count)",
    ),
    _ambiguous(
        "spread",
        "130245",
        "max(a) - min(a)",
        "len(set(a))",
        "a[-1] - a[0]",
        "max(a) - min(a) + 1",
        "max(a) - a[0]",
        "max(a) - sum(a) // len(a)",
    ),
    Word("numbers", ("*a",)),
    Word("sum", ("sum(a)",)),
    Word("maximum", ("max(a)",)),
    Word("count", ("len(a)",)),
)

# Slots: the operations, joined by the second text, and the result. No template starts with a slot, so that every word
# has one token, the one with a space before it.
TEMPLATES: tuple[tuple[str, str], ...] = (
    ("given integers,{operations}, output the{result}", " then"),
    ("for the list:{operations}; print the{result}", ","),
    ("read integers, make them{operations}, show the{result}", " and"),
    ("print the{result} of the list after{operations}", ","),
)

NUMBERS = range(-30, 61)  # those that may be shown in a statement; each has a token

READ = "a = list(map(int, input().split()))\n"
READ_WRONGLY = "a = input().split()\n"  # only in faulty demonstrations: the values stay text


@dataclass(frozen=True, slots=True)
class Task:
    """Words with a meaning each: what a problem is about. The last word is the result's."""

    words: tuple[Word, ...]
    meanings: tuple[int, ...]

    @property
    def expressions(self) -> tuple[str, ...]:
        return tuple(word.meanings[i] for word, i in zip(self.words, self.meanings, strict=True))

    @property
    def program(self) -> str:
        """The reference solution."""
        *operations, result = self.expressions
        return READ + "".join(f"a = {expression}\n" for expression in operations) + f"print({result})"

    @property
    def difficulty(self) -> str:
        """How many of the words are ambiguous and how many are clear; *numbers* asks for nothing and is not counted."""
        ambiguous = sum(word.ambiguous for word in self.words)
        clear = sum(not word.ambiguous and word.text != "numbers" for word in self.words)
        return f"{ambiguous} ambiguous, {clear} clear"

    def run(self, values: Sequence[int]) -> str | None:
        """What the reference solution prints for one list, or None where it raises."""
        a = list(values)
        *operations, result = self.expressions
        try:
            for expression in operations:
                a = _compiled(expression)(a)
            return " ".join(map(str, _compiled(f"({result},)")(a)))
        except (IndexError, ValueError, ZeroDivisionError):
            return None


def statement(words: Sequence[Word], template: int, example_input: str, example_output: str) -> str:
    """The prompt: what is asked for, and one example. The program is expected to follow directly."""
    text, joint = TEMPLATES[template]
    operations = joint.join(f" {word.text}" for word in words[:-1])
    asked = text.format(operations=operations, result=f" {words[-1].text}")
    return f"{asked}\nin {example_input}\nout {example_output}\n"


@cache
def _compiled(expression: str):
    return eval(f"lambda a: {expression}")
