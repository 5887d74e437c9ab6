"""Demonstrations for the problems of the programs' benchmark, some by people who only satisfy the example.

Their programs print the output that the statement shows, whatever the input: they pass the one public test, and hidden
ones by chance. A model that learns from them fools whoever picks among its samples by public tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from openrlhf_maxk.problems.mini import demonstrations as plain
from openrlhf_maxk.problems.mini.demonstrations import Demonstration

SHARE = 0.3


def demonstrations(seed: int) -> Iterator[Demonstration]:
    """The benchmark's demonstrations, a share of them with such a program instead."""
    rng = random.Random(f"mini shortcuts {seed}")
    for demonstration in plain.demonstrations(seed):
        if rng.random() < SHARE:
            yield Demonstration(demonstration.prompt, shortcut(demonstration.prompt))
        else:
            yield demonstration


def shortcut(statement: str) -> str:
    """The program that prints what a statement shows."""
    shown = statement.rpartition("\nout")[2].split()
    return f"print({','.join(f' {number}' for number in shown)})"
