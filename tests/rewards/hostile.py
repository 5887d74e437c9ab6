"""Programs that a sandbox must survive, with the verdicts that are right for them.

They stand in ``hostile.txt``, each under a line ``=== name: verdicts``; what a text file cannot hold is built here.
Each is run on standard input ``1 2`` with ``3`` expected, and a CPU limit that is short where a verdict says that it is
reached. ``{marker}`` stands for a name that the tests look for afterwards, ``{secret}`` for what no program may find.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openrlhf_maxk.problems.verdict import Verdict

_HEADER = re.compile(r"^=== (?P<name>\w+): (?P<verdicts>[\w ]+?)(?P<seccomp> \(needs seccomp\))?$", re.MULTILINE)


@dataclass(frozen=True)
class Hostile:
    """One program and what may be said of it."""

    name: str
    source: str
    verdicts: frozenset[Verdict]
    needs_seccomp: bool = False  # without it the program may do what it tries, within its namespaces

    def __str__(self) -> str:
        return self.name


def _from_file() -> list[Hostile]:
    text = Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8")
    text = re.sub(r"^###### .*\n", "", text, flags=re.MULTILINE)
    headers = list(_HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    return [
        Hostile(
            header["name"],
            text[header.end() + 1 : end].rstrip("\n") + "\n",
            frozenset(Verdict(word) for word in header["verdicts"].split()),
            header["seccomp"] is not None,
        )
        for header, end in zip(headers, ends, strict=True)
    ]


def _built(name: str, source: str, *verdicts: Verdict) -> Hostile:
    return Hostile(name, source, frozenset(verdicts))


_BLOCKS = "".join(" " * depth + "if 1:\n" for depth in range(200)) + " " * 200 + "pass\n"
_TOO_DEEP = (Verdict.CRASHED, Verdict.OUT_OF_MEMORY, Verdict.CPU_TIMEOUT)

ALL = [
    *_from_file(),
    _built("nothing", "", Verdict.WRONG),
    _built("compile_nested_parentheses", "(" * 100_000, *_TOO_DEEP),
    _built("compile_nested_brackets", "[" * 5000 + "]" * 5000, *_TOO_DEEP),
    _built("compile_unary_tower", "x = " + "-" * 1_000_000 + "1\n", *_TOO_DEEP),
    _built("compile_long_sum", "x = " + "+".join(["1"] * 200_000) + "\n", *_TOO_DEEP, Verdict.WRONG),
    _built("compile_nested_blocks", _BLOCKS, Verdict.CRASHED),
    _built("compile_two_megabytes", "x = '" + "y" * 2_000_000 + "'\nprint(3)\n", Verdict.PASSED),
    _built("nul_in_source", "print(3)\0\n", Verdict.CRASHED),
    _built("surrogate_in_source", "print('\ud800')\n", Verdict.CRASHED),
    _built("byte_order_mark", "\ufeffprint(3)\n", Verdict.PASSED, Verdict.CRASHED),
]
