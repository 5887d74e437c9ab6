"""Draws the benchmark's problems: the same ones from the same settings, on every machine.

Splits share no *sequence of words*: what is asked of a held-out program was never asked in that combination, neither
in training problems nor in demonstrations. Every single word, and every meaning of it, occurs in all splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from openrlhf_maxk.problems.mini.language import NUMBERS, OPERATIONS, RESULTS, TEMPLATES, Task, Word, statement
from openrlhf_maxk.problems.mini.splits import SPLITS, ProblemSettings, belongs_to, too_few, zipf
from openrlhf_maxk.problems.record import Limits, Problem, ReferenceSolution, Test

HIDDEN_TESTS = 8
MINIMUM_OUTPUTS = 4  # distinct ones among the hidden tests, or a constant would pass too many
LIMITS = Limits(cpu_seconds=1.0, memory_bytes=128 * 2**20, output_bytes=2**16)

_SMALLEST, _LARGEST, _LONGEST = -9, 12, 8  # values and length of the lists
_SHOWN = (3, 5)  # shortest and longest list in a statement
_PATIENCE = 20_000  # draws in a row that give no new problem


def generate(settings: ProblemSettings) -> Iterator[tuple[Problem, ReferenceSolution]]:
    """Problems and their reference solutions: the training ones, then validation, then test."""
    for split in SPLITS:
        yield from _generate_split(split, getattr(settings, split), settings.seed)


def draw_words(rng: random.Random, split: str) -> tuple[Word, ...]:
    """One or two operations and a result, at least one of them ambiguous. Single operations are for training only."""
    while True:
        operations = 1 if split == "train" and rng.random() < 0.2 else 2
        words = (*rng.sample(OPERATIONS, operations), rng.choice(RESULTS))
        allowed = operations == 1 or belongs_to(" ".join(word.text for word in words), split)
        if allowed and any(word.ambiguous for word in words):
            return words


def draw_example(rng: random.Random, task: Task) -> tuple[str, str] | None:
    """Input and output to show in a statement, or None if this draw has none that fits."""
    for _ in range(20):
        values = _draw_values(rng, *_SHOWN)
        output = task.run(values)
        if output and _can_be_shown(output):
            return " ".join(map(str, values)), output
    return None


def demonstrated_meaning(rng: random.Random, word: Word) -> int:
    """How people who wrote the demonstrations understand a word."""
    return zipf(rng, len(word.meanings), 1.5)


def intended_meaning(rng: random.Random, word: Word) -> int:
    """How the benchmark's authors understand it."""
    return word.ranking[zipf(rng, len(word.meanings), 1.0)]


def draw_task(rng: random.Random, split: str, meaning: Callable[[random.Random, Word], int]) -> Task:
    words = draw_words(rng, split)
    return Task(words, tuple(meaning(rng, word) for word in words))


def _generate_split(split: str, count: int, seed: int) -> Iterator[tuple[Problem, ReferenceSolution]]:
    rng = random.Random(f"mini problems {seed} {split}")
    tasks: set[Task] = set()
    statements: set[str] = set()
    rejected = 0  # in a row
    while len(tasks) < count:
        task = draw_task(rng, split, intended_meaning)
        example = None if task in tasks else draw_example(rng, task)
        hidden = example and _draw_tests(rng, task, example[0])
        text = example and statement(task.words, rng.randrange(len(TEMPLATES)), *example)
        if not example or not hidden or not text or text in statements:
            rejected += 1
            if rejected == _PATIENCE:
                raise too_few(split, len(tasks), count)
            continue
        rejected = 0
        problem = Problem(
            id=f"mini/{split}/{len(tasks):05d}",
            statement=text,
            tests=(Test(*example), *hidden),
            limits=LIMITS,
            public_tests=1,
            source="mini",
            difficulty=task.difficulty,
            provenance={"seed": seed, "split": split, "words": [word.text for word in task.words]},
        )
        tasks.add(task)
        statements.add(text)
        yield problem, ReferenceSolution(problem.id, task.program)


def _draw_tests(rng: random.Random, task: Task, shown: str) -> tuple[Test, ...] | None:
    """Hidden tests, none of them with the input that is shown; None if this draw has too few."""
    tests: dict[str, str] = {}
    for _ in range(4 * HIDDEN_TESTS):
        values = _draw_values(rng, 1, _LONGEST)
        output = task.run(values)
        text = " ".join(map(str, values))
        if output and text != shown:
            tests[text] = output
        if len(tests) == HIDDEN_TESTS:
            break
    if len(tests) < HIDDEN_TESTS or len(set(tests.values())) < MINIMUM_OUTPUTS:
        return None
    return tuple(Test(text, output) for text, output in tests.items())


def _draw_values(rng: random.Random, shortest: int, longest: int) -> list[int]:
    values = [rng.randint(_SMALLEST, _LARGEST) for _ in range(rng.randint(shortest, longest))]
    if len(values) > 2 and rng.random() < 0.5:  # repeats matter to some meanings
        values[rng.randrange(len(values))] = rng.choice(values)
    return values


def _can_be_shown(output: str) -> bool:
    numbers = output.split()
    return len(numbers) <= _SHOWN[1] and all(int(number) in NUMBERS for number in numbers)
