"""Draws the word problems: the same ones from the same settings, on every machine.

Splits share no *sequence of phrases*: what a held-out problem tells was never told in that order, neither in training
problems nor in demonstrations. Every single phrase occurs in all splits, and so does every reading of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from openrlhf_maxk.problems.mini.splits import SPLITS, ProblemSettings, belongs_to, too_few, zipf
from openrlhf_maxk.problems.mini.words.language import NAMES, PHRASES, THINGS, Phrase, Story, statement, written
from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, ReferenceSolution, Test

_START = (4, 12)  # fewest and most things in the beginning
_PATIENCE = 20_000  # draws in a row that give no new problem


def generate(settings: ProblemSettings) -> Iterator[tuple[Problem, ReferenceSolution]]:
    """Problems and their reference solutions: the training ones, then validation, then test."""
    for split in SPLITS:
        yield from _generate_split(split, getattr(settings, split), settings.seed)


def demonstrated_reading(rng: random.Random, phrase: Phrase) -> int:
    """How people who wrote the demonstrations read a phrase."""
    return zipf(rng, len(phrase.readings), 1.5)


def right_reading(rng: random.Random, phrase: Phrase) -> int:
    """How the benchmark's authors mean it."""
    return phrase.right[zipf(rng, len(phrase.right), 1.0)]


def draw_phrases(rng: random.Random, split: str) -> tuple[Phrase, ...]:
    """One to three different phrases. Single ones are for training only."""
    while True:
        count = 1 if split == "train" and rng.random() < 0.2 else rng.choice((2, 2, 3))
        phrases = tuple(rng.sample(PHRASES, count))
        if count == 1 or belongs_to(" | ".join(phrase.text for phrase in phrases), split):
            return phrases


def draw_story(rng: random.Random, split: str, reading: Callable[[random.Random, Phrase], int]) -> Story:
    """A story whose calculation stays within the whole numbers from 0 to 99."""
    while True:
        phrases = draw_phrases(rng, split)
        readings = tuple(reading(rng, phrase) for phrase in phrases)
        for _ in range(20):
            numbers = tuple(rng.randint(*phrase.numbers) for phrase in phrases)
            story = Story(phrases, readings, rng.randint(*_START), numbers)
            if story.lines is not None:
                return story


def _generate_split(split: str, count: int, seed: int) -> Iterator[tuple[Problem, ReferenceSolution]]:
    rng = random.Random(f"mini word problems {seed} {split}")
    statements: set[str] = set()
    rejected = 0  # in a row
    while len(statements) < count:
        story = draw_story(rng, split, right_reading)
        text = statement(story, rng.choice(NAMES), rng.choice(THINGS))
        if text in statements:
            rejected += 1
            if rejected == _PATIENCE:
                raise too_few(split, len(statements), count)
            continue
        rejected = 0
        lines = [line for of_event in story.lines or () for line in of_event]
        answer = lines[-1][-1]
        problem = Problem(
            id=f"mini_words/{split}/{len(statements):05d}",
            statement=text,
            tests=(Test("", str(answer)),),
            mode=Mode.ANSWER,
            judge=Judge(Comparison.MATH),
            source="mini_words",
            difficulty=story.difficulty,
            provenance={"seed": seed, "split": split, "phrases": [phrase.text for phrase in story.phrases]},
        )
        statements.add(text)
        yield problem, ReferenceSolution(problem.id, written(lines, answer))
