"""What the base model of the word problems learns from: people who read phrases their own way and make mistakes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from openrlhf_maxk.problems.mini.demonstrations import Demonstration
from openrlhf_maxk.problems.mini.words.generator import demonstrated_reading, draw_story
from openrlhf_maxk.problems.mini.words.language import LARGEST, NAMES, THINGS, Story, statement, written

_SLIPS = (-10, -2, -1, 1, 2, 10)


def demonstrations(seed: int, faulty: float = 0.2) -> Iterator[Demonstration]:
    """Fresh demonstrations without end, over the training splits' phrases. A share ``faulty`` has one mistake."""
    rng = random.Random(f"mini word demonstrations {seed}")
    while True:
        story = draw_story(rng, "train", demonstrated_reading)
        prompt = statement(story, rng.choice(NAMES), rng.choice(THINGS))
        completion = _with_a_fault(rng, story) if rng.random() < faulty else _solved(story)
        if completion is not None:
            yield Demonstration(prompt, completion)


def _solved(story: Story) -> str:
    lines = [line for of_event in story.lines or () for line in of_event]
    return written(lines, lines[-1][-1])


def _with_a_fault(rng: random.Random, story: Story) -> str | None:
    """A line with a wrong result that the others go on from, a number misread, an event left out, or no box.

    None where that leaves the range of the numbers.
    """
    event = rng.randrange(len(story.phrases))
    fault = rng.choice(("slip", "no box", *("misread" for _ in story.phrases[event].text.split("{n}")[1:])))
    if len(story.phrases) > 1 and rng.random() < 0.25:
        fault = "omission"
    if fault == "slip":
        return _with_a_slip(rng, story, event)
    if fault == "omission":
        story = _part(story, [i for i in range(len(story.phrases)) if i != event])
    elif fault == "misread":
        smallest, largest = story.phrases[event].numbers
        other = rng.choice([n for n in range(smallest, largest + 1) if n != story.numbers[event]])
        story = replace(story, numbers=(*story.numbers[:event], other, *story.numbers[event + 1 :]))
    if story.lines is None:
        return None
    return _solved(story).partition("\\")[0] if fault == "no box" else _solved(story)


def _part(story: Story, events: Sequence[int]) -> Story:
    """The same story with some of its events only."""
    return Story(
        tuple(story.phrases[i] for i in events),
        tuple(story.readings[i] for i in events),
        story.start,
        tuple(story.numbers[i] for i in events),
    )


def _with_a_slip(rng: random.Random, story: Story, event: int) -> str | None:
    assert story.lines is not None
    before = [line for of_event in story.lines[:event] for line in of_event]
    *exact, (left, operator, right, result) = story.lines[event]
    wrong = result + rng.choice(_SLIPS)
    rest = replace(_part(story, range(event + 1, len(story.phrases))), start=wrong)
    if not 0 <= wrong <= LARGEST or rest.lines is None:
        return None
    lines = [*before, *exact, (left, operator, right, wrong), *(line for of_event in rest.lines for line in of_event)]
    return written(lines, lines[-1][-1])
