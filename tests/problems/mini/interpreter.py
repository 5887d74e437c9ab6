"""A second opinion on what a program prints: its text run in this process, with input and print replaced."""

from collections.abc import Iterable
from random import Random


def printed(program: str, given: str) -> str | None:
    """Everything ``program`` prints for one line of input; None if it raises."""
    lines: list[str] = []
    replaced = {"input": lambda: given, "print": lambda *values: lines.append(" ".join(map(str, values)))}
    try:
        exec(compile(program, "program", "exec"), replaced)
    except Exception:
        return None
    return "\n".join(lines)


def random_lists(count: int, seed: int = 0) -> Iterable[list[int]]:
    rng = Random(seed)
    for _ in range(count):
        yield [rng.randint(-9, 12) for _ in range(rng.randint(1, 8))]
