"""From completions to the best of them: their programs are found and run, and a choice is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from openrlhf_maxk.best_of.choice import Best, choose
from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult
from openrlhf_maxk.rewards.execution.runner import Runner
from openrlhf_maxk.rewards.scoring.extraction import extract_program

LOOKS = 0.2  # seconds between two looks whether the answer is still wanted


class Unwanted(Exception):
    """Nobody waits for the choice any more."""


def best_of(
    completions: Sequence[str], problem: Problem, runner: Runner, at_once: int, unwanted: Callable[[], bool]
) -> Best:
    """Run the programs of ``completions`` on all tests of ``problem``, equal ones once, and choose.

    ``at_once`` programs are with the runner at a time, so that requests that run side by side get their turn, and
    little is left to run when ``unwanted`` says that nobody waits for the choice any more.

    Raises:
        Unwanted: ``unwanted`` said so.
        UndecidedError: the machinery failed, see :func:`choose`.
        ValueError: the problem cannot be run, whatever the program; the message says why.
    """
    programs = [extract_program(completion, bool(problem.program_prefix)) for completion in completions]
    waiting = list(dict.fromkeys(program for program in programs if program is not None))[::-1]
    running: dict[Future[ProgramResult], str] = {}
    results: dict[str, ProgramResult] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            program = waiting.pop()
            running[runner.submit(program, problem)] = program
        done, _ = wait(running, LOOKS, FIRST_COMPLETED)
        for future in done:
            results[running.pop(future)] = future.result()
        if unwanted():
            raise Unwanted
    return choose(programs, results, len(problem.tests))
