"""Problems that ask for an answer: where it stands in a completion, and what it is worth.

===================  ===================================================================================================
``math``             the last ``\\boxed{…}``, else the end of the text; equal to the expected one as math-verify sees it
``reasoning_gym``    what is between the last ``<answer>`` and ``</answer>``, else the last ``\\boxed{…}``; the score
                     that the verifier of the problem's task gives (reasoning-gym), from 0 to 1
===================  ===================================================================================================

Both libraries parse, and some verifiers evaluate, what a model wrote. So each answer is judged in the sandbox, with CPU
and memory limits of its own. An answer that reaches them, or on which a verifier raises, is worth 0: that is decided by
the answer alone. What the machinery fails to judge has no score.

For votes, answers to ``math`` are the same that equal the expected one, or that math-verify reads as the same
expression; those to ``reasoning_gym`` that are the same text, spaces aside. One that cannot be read has no vote.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.backends import is_remote, open_runner
from openrlhf_maxk.rewards.execution.runner import Runner
from openrlhf_maxk.rewards.scoring import math_answers
from openrlhf_maxk.rewards.scoring.extraction import conclusion

Ways = Collection[tuple[Mode, Comparison]]  # of a store: how its problems are met, and how what they get is compared

REASONING_GYM = "reasoning-gym==0.1.25"
LIMITS = Limits(cpu_seconds=10.0, memory_bytes=2**30)  # of a verifier of reasoning-gym
_KEY_BYTES = 300  # of an answer, kept as its signature
_MODULES = {Comparison.MATH: math_answers.MODULES, Comparison.REASONING_GYM: ("reasoning_gym", "sympy")}
_PACKAGES = {
    Comparison.MATH: ("math_verify", "math-verify"),
    Comparison.REASONING_GYM: ("reasoning_gym", REASONING_GYM),
}
_VERIFIER = """
import reasoning_gym

def ready(task, config):
    reasoning_gym.create_dataset(task, **config)
    return True

def score(task, config, entry, answer):
    verifier = reasoning_gym.create_dataset(task, **config)
    try:
        return float(verifier.score_answer(answer, entry))
    except Exception:
        return 0.0
"""


def answer_to(problem: Problem, completion: str) -> str | None:
    """The answer that a completion gives to a problem of mode ``ANSWER``; None if there is none."""
    if problem.judge.comparison is Comparison.MATH:
        return math_answers.find_answer(completion)
    found = marked_answers(completion)
    return found[-1] if found else None


def marked_answers(completion: str) -> list[str]:
    """What is marked as the answer, in order: between tags, else in boxes. Empty ones do not count."""
    parts = conclusion(completion).split("<answer>")[1:]
    tagged = [part.partition("</answer>")[0].strip() for part in parts if "</answer>" in part]
    return [answer for answer in tagged or math_answers.boxed_answers(completion) if answer]


def check_ways(ways: Ways, runner: str) -> None:
    """What judging answers needs must be there.

    Raises:
        ModuleNotFoundError: a package is not installed.
        ValueError: the runner is a service, which runs programs only.
    """
    for comparison in _comparisons(ways):
        module, package = _PACKAGES[comparison]
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"these problems are judged by {module}, which is not installed: pip install {package}"
            )
        if is_remote(runner):
            raise ValueError(f"the runner {runner} runs programs; problems with answers need sandbox or bubblewrap")


def open_attempts(ways: Ways, runner: str, cores: int, *, modules: Sequence[str] = (), unsafe: bool = False) -> Runner:
    """What judges attempts at problems of these kinds: programs are run, answers compared.

    Raises as :func:`check_ways`, and as :func:`openrlhf_maxk.rewards.execution.backends.open_runner`.
    """
    check_ways(ways, runner)
    comparisons = _comparisons(ways)
    programs = None
    if not comparisons or any(mode is not Mode.ANSWER for mode, _ in ways):
        programs = open_runner(runner, cores, modules=modules, unsafe=unsafe)
    if not comparisons:
        assert programs is not None
        return programs
    needed = [module for comparison in comparisons for module in _MODULES[comparison]]
    warm_up = math_answers.WARM_UP if Comparison.MATH in comparisons else ""
    return Attempts(open_runner(runner, cores, modules=needed, warm_up=warm_up, unsafe=unsafe), programs)


def _comparisons(ways: Ways) -> list[Comparison]:
    return sorted({comparison for mode, comparison in ways if mode is Mode.ANSWER})


class Attempts(Runner):
    """Judges answers in a sandbox that has the libraries for it; programs go to ``programs``."""

    def __init__(self, answers: Runner, programs: Runner | None = None) -> None:
        self._answers = answers
        self._programs = programs
        self._ready: set[str] = set()
        self._lock = threading.Lock()

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """As :meth:`Runner.submit`; of a problem with an answer, ``program`` is the answer."""
        if problem.mode is not Mode.ANSWER:
            assert self._programs is not None
            return self._programs.submit(program, problem)
        self.check(problem)
        source, judged = _job(problem, program)
        outer: Future[ProgramResult] = Future()
        self._answers.submit(source, judged).add_done_callback(
            lambda inner: outer.set_result(_told(inner.result(), problem, program))
        )
        return outer

    def check(self, problem: Problem) -> None:
        """As :meth:`Runner.check`: the task of a problem must be one that reasoning-gym here knows."""
        if problem.mode is not Mode.ANSWER:
            assert self._programs is not None
            self._programs.check(problem)
        elif problem.judge.comparison is Comparison.REASONING_GYM:
            for test in problem.tests:
                self._check_task(problem, test)
        elif problem.judge.comparison is not Comparison.MATH:
            raise ValueError(f"problem {problem.id!r}: an answer cannot be compared by {problem.judge.comparison}")

    def _check_task(self, problem: Problem, test: Test) -> None:
        given = json.loads(test.input)
        key = json.dumps([given["task"], given["config"]])
        with self._lock:
            if key in self._ready:
                return
            asked = Problem("ready", "", (Test(key, "true"),), Mode.FUNCTION, "ready", limits=LIMITS)
            (told,) = self._answers.run(_VERIFIER, asked).tests
            if told.verdict is not Verdict.PASSED:
                raise ValueError(
                    f"problem {problem.id!r}: reasoning-gym's task {given['task']!r} cannot be had here "
                    f"({told.verdict}: {told.detail}); it needs {REASONING_GYM}"
                )
            self._ready.add(key)

    def close(self) -> None:
        """As :meth:`Runner.close`."""
        self._answers.close()
        if self._programs is not None:
            self._programs.close()


def _job(problem: Problem, answer: str) -> tuple[str, Problem]:
    """The program that judges an answer, and the problem that it is run as."""
    if problem.judge.comparison is Comparison.MATH:
        tests = tuple(Test(json.dumps([math_answers.as_gold(test.output), answer]), "true") for test in problem.tests)
        limits = math_answers.LIMITS
        return math_answers.PROGRAM, Problem(problem.id, "", tests, Mode.FUNCTION, "equal", limits=limits)
    given = [json.loads(test.input) for test in problem.tests]
    tests = tuple(Test(json.dumps([g["task"], g["config"], g["entry"], answer]), "1") for g in given)
    judge = Judge(Comparison.SCORE)
    return _VERIFIER, Problem(problem.id, "", tests, Mode.FUNCTION, "score", limits=LIMITS, judge=judge)


def _told(result: ProgramResult, problem: Problem, answer: str) -> ProgramResult:
    """The result for the answer. What the machinery failed to judge has no score."""
    tests = []
    for test in result.tests:
        if math_answers.lost(test):
            test = TestResult(Verdict.INFRASTRUCTURE_ERROR, test.cpu_seconds, test.wall_seconds, test.detail)
        elif problem.judge.comparison is Comparison.REASONING_GYM:
            text = " ".join(answer.split()).encode("utf-8", "surrogatepass")
            test = replace(test, output=text[:_KEY_BYTES], answer=_digest(text), score=test.score or 0.0)
        elif test.verdict is Verdict.PASSED:
            test = replace(test, answer=_digest(b""))
        else:
            read = test.verdict is Verdict.WRONG and bool(test.output.strip())
            test = replace(test, answer=_digest(test.output) if read else b"")
        tests.append(test)
    return ProgramResult(tuple(tests))


def _digest(answer: bytes) -> bytes:
    return hashlib.sha256(answer).digest()
