"""What the base model learns from: programs by people who understand the words their own way and make mistakes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from openrlhf_maxk.problems.mini.generator import demonstrated_meaning, draw_example, draw_task
from openrlhf_maxk.problems.mini.language import OPERATIONS, READ, READ_WRONGLY, TEMPLATES, Task, statement


@dataclass(frozen=True, slots=True)
class Demonstration:
    prompt: str
    completion: str


def demonstrations(seed: int, faulty: float = 0.4) -> Iterator[Demonstration]:
    """Fresh demonstrations without end, over the training splits' words. A share ``faulty`` of them has one mistake."""
    rng = random.Random(f"mini demonstrations {seed}")
    while True:
        task = draw_task(rng, "train", demonstrated_meaning)
        example = draw_example(rng, task)
        if example is None:
            continue
        prompt = statement(task.words, rng.randrange(len(TEMPLATES)), *example)
        yield Demonstration(prompt, _with_a_fault(rng, task) if rng.random() < faulty else task.program)


def _with_a_fault(rng: random.Random, task: Task) -> str:
    """The program, with the values left as text, without its print, or with an operation missing or a wrong one."""
    reading, *operations, printing = task.program.splitlines(keepends=True)
    fault = rng.randrange(4)
    if fault == 0:
        reading = READ_WRONGLY
    elif fault == 1:
        printing = ""
    elif fault == 2:
        del operations[rng.randrange(len(operations))]
    else:
        wrong = rng.choice(rng.choice(OPERATIONS).meanings)
        operations[rng.randrange(len(operations))] = f"a = {wrong}\n"
    assert reading in (READ, READ_WRONGLY)
    return reading + "".join(operations) + printing
