"""The reward for mathematics: whether the answer in a completion equals the gold answer, as ``math-verify`` sees it.

The answer is the content of the last ``\\boxed{…}``; without one, math-verify looks for it at the end of the text. What
a model thinks (``<think>``) does not count.

math-verify turns LaTeX into expressions and lets SymPy evaluate them, which a text can make run for ever, and SymPy's
parser runs what looks like Python. So each comparison is a program in the sandbox, with CPU and memory limits of its
own. An answer that reaches them, or that breaks the library, is wrong: that is decided by the answer alone, not by how
busy the machine is. What the machinery fails to compare is no reward at all.

For votes, answers that math-verify finds equal have one key: those that equal the gold answer, and of the others, in
order of their texts, those that equal one before them. An answer that it cannot read, or that breaks it, has no vote.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from openrlhf_maxk.problems.record import Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import TestResult, Verdict
from openrlhf_maxk.rewards.execution.backends import open_runner
from openrlhf_maxk.rewards.request import KEYS, BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.extraction import conclusion

LIMITS = Limits(cpu_seconds=3.0, memory_bytes=2**30)
LONGEST_TEXT = 4000  # characters at the end of a completion without a box, that an answer is looked for in
_GOLDS_KEPT = 65536
MODULES = ("math_verify", "sympy.combinatorics", "sympy.physics.units", "sympy.physics.matrices", "sympy.sets.setexpr")
# The first texts that math-verify reads and compares in a process take it some 80 ms, later ones about one.
WARM_UP = r"""
import logging
logging.disable(logging.CRITICAL)
from math_verify import parse, verify

texts = (r"\boxed{\frac{1}{2}}", "$0.5$", "It is 3.", r"\boxed{\text{Monday}}", r"\boxed{(1, x^2)}", r"\sqrt{2}")
parsed = [parse(text, parsing_timeout=None) for text in texts]
for first in parsed:
    for second in parsed:
        verify(first, second, timeout_seconds=None)
logging.disable(logging.NOTSET)
"""
PROGRAM = """
import logging
logging.disable(logging.CRITICAL)
from math_verify import parse, verify
from sympy import nsimplify

def _read(text):
    return parse(text, parsing_timeout=None)

def readable(gold):
    return any(not isinstance(value, str) for value in _read(gold))

def equal(gold, answer):
    try:
        given = _read(answer)
        first = given[0] if given else ""
        if getattr(first, "is_Float", False):
            first = nsimplify(first, rational=True)
        print(str(first)[:200], flush=True)  # the same number, however written, prints the same
        return verify(_read(gold), given, timeout_seconds=None)
    except Exception:
        return False
"""
_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


class MathScorer:
    """1 for an answer that equals the label, else 0.

    Raises, when called:
        BadLabel: the label is no answer that math-verify can read.
    """

    def __init__(self, spec: RewardSpec, cores: int) -> None:
        self._verifier = Verifier(spec.runner, cores)
        self._votes = spec.chosen_by == KEYS
        self._readable: set[str] = set()

    def __call__(self, request: RewardRequest) -> list[Reward]:
        gold = request.label
        if gold not in self._readable:
            if self._verifier.unreadable([gold]):
                raise BadLabel(f"math-verify cannot read the gold answer {gold!r}: correct this label, or leave it out")
            if len(self._readable) < _GOLDS_KEPT:
                self._readable.add(gold)
        answers = [find_answer(completion) for completion in request.completions]
        given = sorted({answer for answer in answers if answer})
        tests = dict(zip(given, self._verifier.compare(gold, given), strict=True))
        rewards = {answer: reward_of(test) for answer, test in tests.items()}
        if self._votes:
            rewards = with_keys(rewards, self._verifier)
        return [rewards[answer] if answer else NO_ANSWER for answer in answers]

    def close(self) -> None:
        """Let go of the sandbox."""
        self._verifier.close()


RIGHT = ""  # the key of what equals the gold answer; other keys are texts that answers were found in, never empty
NO_ANSWER = Reward(0.0, 0.0, {"no_answer": 1.0, "answer_failed": 0.0})


def reward_of(test: TestResult) -> Reward:
    """1 for equal answers; 0 for others, and for one that broke the comparison; None if the machinery did."""
    if lost(test):
        return Reward(None, None)
    reward = float(test.verdict is Verdict.PASSED)
    failed = float(test.verdict not in (Verdict.PASSED, Verdict.WRONG))
    return Reward(reward, reward, {"no_answer": 0.0, "answer_failed": failed})


def lost(test: TestResult) -> bool:
    """Whether it was the machinery that failed, and not the answer."""
    return test.verdict in (Verdict.INFRASTRUCTURE_ERROR, Verdict.WALL_TIMEOUT) or "SIGKILL" in test.detail


def with_keys(rewards: Mapping[str, Reward], verifier: Verifier) -> dict[str, Reward]:
    """The rewards of different answers, with equal keys for equal answers; lost where that could not be told."""
    keyed = {answer: replace(reward, key=RIGHT) if reward.reward else reward for answer, reward in rewards.items()}
    waiting = sorted(a for a, reward in rewards.items() if reward.reward == 0 and not reward.logs["answer_failed"])
    waiting = _passed(waiting, verifier.readable(waiting), keyed)
    while waiting:
        first, *others = waiting
        equal = _passed(others, verifier.same(first, others), keyed)
        keyed |= {answer: replace(keyed[answer], key=first) for answer in (first, *equal)}
        waiting = [answer for answer in others if answer not in equal and keyed[answer].reward is not None]
    return keyed


def _passed(answers: Sequence[str], tests: Sequence[TestResult], keyed: dict[str, Reward]) -> list[str]:
    """Those whose test has passed; one whose test the machinery failed is lost."""
    for answer, test in zip(answers, tests, strict=True):
        if reward_of(test).reward is None:
            keyed[answer] = Reward(None)
    return [answer for answer, test in zip(answers, tests, strict=True) if test.verdict is Verdict.PASSED]


class Verifier:
    """math-verify in a sandbox.

    Raises:
        ModuleNotFoundError: math-verify is not installed.
        RuntimeError: it does not work in the sandbox, or there is none.
    """

    def __init__(self, runner: str, cores: int) -> None:
        try:
            self._runner = open_runner(runner, cores, modules=MODULES, warm_up=WARM_UP)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: install it with pip install math-verify") from None
        right, wrong = self.compare("1/2", [r"\boxed{\frac{2}{4}}", r"\boxed{2}"])
        if (right.verdict, wrong.verdict) != (Verdict.PASSED, Verdict.WRONG):
            self.close()
            raise RuntimeError(f"math-verify does not work in the sandbox: {right.verdict} {right.detail}")

    def compare(self, gold: str, answers: Sequence[str]) -> tuple[TestResult, ...]:
        """Whether each answer equals ``gold``: passed, wrong, or why it could not be said."""
        return self._call("equal", [[as_gold(gold), answer] for answer in answers])

    def same(self, answer: str, others: Sequence[str]) -> tuple[TestResult, ...]:
        """Whether each of the others equals ``answer``, as texts that answers are found in."""
        return self._call("equal", [[answer, other] for other in others])

    def readable(self, answers: Sequence[str]) -> tuple[TestResult, ...]:
        """Whether there is an answer in each text."""
        return self._call("readable", [[answer] for answer in answers])

    def unreadable(self, golds: Sequence[str]) -> list[str]:
        """Those of ``golds`` that are no answers, or that take too long to read."""
        tests = self._call("readable", [[as_gold(gold)] for gold in golds])
        fine = (Verdict.PASSED, Verdict.INFRASTRUCTURE_ERROR)
        return [gold for gold, test in zip(golds, tests, strict=True) if test.verdict not in fine]

    def _call(self, function: str, arguments: Sequence[list[str]]) -> tuple[TestResult, ...]:
        if not arguments:
            return ()
        tests = tuple(Test(json.dumps(values), "true") for values in arguments)
        return self._runner.run(PROGRAM, Problem("math", "", tests, Mode.FUNCTION, function, limits=LIMITS)).tests

    def close(self) -> None:
        """Let go of the sandbox."""
        self._runner.close()


def unreadable_in(files: Sequence[str], label: str, runner: str, most: int = 5) -> list[str]:
    """What is wrong with the gold answers of JSON lines files: the first few, with file and line.

    Records that are no objects, or have no field ``label``, are left out. Raises as :class:`Verifier` does.
    """
    golds: dict[str, str] = {}  # and where they stand first
    for file in files:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                with suppress(ValueError, KeyError, TypeError):
                    golds.setdefault(str(json.loads(line)[label]), f"data {file}, line {number}")
    verifier = Verifier(runner, len(os.sched_getaffinity(0)))
    try:
        wrong = verifier.unreadable(list(golds))
    finally:
        verifier.close()
    return [f"{golds[gold]}: math-verify cannot read the gold answer {gold!r}" for gold in wrong[:most]]


def as_gold(gold: str) -> str:
    """A gold answer may stand alone, between dollars, or in a box at the end of a solution."""
    boxes = boxed_answers(gold)
    if boxes:
        return _box(boxes[-1])
    return gold if "$" in gold else _box(gold)


def _box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def find_answer(completion: str) -> str | None:
    """The text that math-verify reads the answer from; None if there is none."""
    boxes = boxed_answers(completion)
    if boxes:
        return _box(boxes[-1])
    return conclusion(completion)[-LONGEST_TEXT:].strip() or None


def boxed_answers(completion: str) -> list[str]:
    """The contents of the outermost boxes that are closed, in order, outside of what a model thinks."""
    text = conclusion(completion)
    found: list[tuple[int, int, int]] = []  # where a box begins, its content does, and that ends
    opened: list[tuple[int, int] | None] = []  # for each open brace: of a box, where it begins and its content does
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            box = opened.pop()
            if box is not None:
                while found and found[-1][0] > box[0]:
                    found.pop()
                found.append((*box, token.start()))
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.start(), token.end()))
    return [text[start:end] for _, start, end in found]
