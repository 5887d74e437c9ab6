"""Programs run by an HTTP service that speaks SandboxFusion's ``run_code``; verdicts are made here.

Each test is one request: the program behind a harness (:mod:`.harness`) that limits its CPU time and memory and, for
function calls, sends values back. Expected outputs stay here. What the service or the way to it breaks is tried again,
and then an infrastructure error.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
import signal
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.runner import Runner, SandboxUnavailableError
from openrlhf_maxk.rewards.execution.scheduling import Admission, ProgramRun
from openrlhf_maxk.rewards.execution.service import Service, ServiceError, TryAgain
from openrlhf_maxk.rewards.judging import jobs
from openrlhf_maxk.rewards.judging.judge import failure_of, judge_by_checker, judge_output, judge_values, result
from openrlhf_maxk.rewards.sandbox import lane
from openrlhf_maxk.rewards.sandbox.lane import Outcome
from openrlhf_maxk.rewards.sandbox.messages import KilledBy, Reply
from openrlhf_maxk.rewards.sandbox.protocol import Stage

PATH = "/run_code"
CUT_BYTES = 2**20  # SandboxFusion returns no more of an output, and does not say so
_QUEUE_SECONDS = 120.0  # a request may wait for so long before it is run
_START_SECONDS = 2.0  # an interpreter's start, and the harness's
_SLOWEST = 3  # a service that gives a program less than a third of a core is no use
_HARNESS = Path(__file__).with_name("harness.py").read_text(encoding="utf-8")
_SANDBOX = Path(lane.__file__).parent
_MODULES = {name: (_SANDBOX / f"{name}.py").read_text(encoding="utf-8") for name in ("values", "calls")}


class RemoteRunner(Runner):
    """Sends tests to services, at most ``at_once`` at a time.

    A program that a service's wall clock ended is run once more, alone among this runner's; if that happens again, it
    is a ``wall_timeout``. CPU limits are rounded up to whole seconds. CPU seconds used are unknown, and reported as 0.
    Raises:
        SandboxUnavailableError: a service does not answer, or does not run the harness as it should.
    """

    def __init__(self, urls: Sequence[str], at_once: int) -> None:
        self._service = Service([url if url.endswith(PATH) else url.rstrip("/") + PATH for url in urls])
        self._admission = Admission()
        self._prepare = jobs.PreparedProblems()
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="remote")
        try:
            self._probe(urls)
        except BaseException:
            self.close()
            raise

    def _probe(self, urls: Sequence[str]) -> None:
        for _ in urls:  # they take turns
            for problem, program in _PROBES:
                tested = self.run(program, problem).tests[0]
                if tested.verdict is Verdict.INFRASTRUCTURE_ERROR:
                    raise SandboxUnavailableError(f"programs cannot be run at {', '.join(urls)}: {tested.detail}")
                if tested.verdict is not Verdict.PASSED:
                    raise SandboxUnavailableError(
                        f"the service at {', '.join(urls)} does not run programs as it should: a right one for a "
                        f"problem of mode {problem.mode} is {tested.verdict} ({tested.detail})"
                    )

    def close(self) -> None:
        """Finish what was submitted. May be called twice."""
        self._threads.shutdown()

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        """As :meth:`openrlhf_maxk.rewards.execution.runner.Runner.submit`."""
        run = ProgramRun(problem.whole(program), self._prepare(problem))
        while run.waiting:
            self._threads.submit(self._work, run, run.take())
        return run.future

    def check(self, problem: Problem) -> None:
        """As :meth:`Runner.check`; what is found is kept for :meth:`submit`."""
        self._prepare(problem)

    def _work(self, run: ProgramRun, index: int) -> None:
        try:
            tested = self._test(run, index)
        except Exception as error:  # the service's, or ours: never the program's
            tested = TestResult(Verdict.INFRASTRUCTURE_ERROR, detail=f"{type(error).__name__}: {error}")
        run.finish(index, tested)

    def _test(self, run: ProgramRun, index: int) -> TestResult:
        problem, steps, nonce = run.prepared.problem, run.prepared.steps[index], secrets.token_hex(16)
        test = problem.tests[index]
        sent = None if steps is None else [(str(step.kind), step.source, step.argument) for step in steps]
        code = _code(run.program, problem.limits, nonce, setup=problem.setup_code, steps=sent)
        outcome = self._run(code, test.input if steps is None else "", problem.limits)
        failure = _timeout(outcome) or failure_of(outcome, problem.limits)
        if failure is not None:
            return result(*failure, outcome)
        if steps is not None:
            called = replace(outcome, stdout=b"", results=outcome.stdout)  # what such a program printed is not kept
            return judge_values(called, problem, steps, nonce)
        if problem.judge.comparison is not Comparison.CHECKER:
            return judge_output(outcome, problem, test)
        return self._check(problem, test, outcome, nonce)

    def _check(self, problem: Problem, test: Test, outcome: Outcome, nonce: str) -> TestResult:
        files = {
            "input": jobs.text_bytes(test.input),
            "expected": jobs.text_bytes(test.output),
            "output": outcome.stdout,
        }
        code = _code(problem.judge.checker or "", jobs.CHECKER_LIMITS, nonce, arguments=["checker.py"], files=files)
        said = self._run(code, "", jobs.CHECKER_LIMITS)
        if nonce.encode() in said.stderr:
            detail = said.stderr.decode(errors="replace")
            raise ServiceError(f"the service lets a checker write no files: {detail}")
        return judge_by_checker(outcome, problem, said)

    def _run(self, code: str, stdin: str, limits: Limits) -> Outcome:
        """Run it; once more, alone, if the service and not the program may have ended it."""
        with self._admission.shared():
            outcome = self._ask(code, stdin, limits)
        if outcome.reply.killed_by is KilledBy.WALL_LIMIT or outcome.reply.status == signal.SIGKILL:
            with self._admission.alone():
                outcome = self._ask(code, stdin, limits)
        return outcome

    def _ask(self, code: str, stdin: str, limits: Limits) -> Outcome:
        seconds = _SLOWEST * limits.cpu_seconds + _START_SECONDS
        payload = {
            "language": "python",
            "code": code,
            "stdin": stdin,
            "compile_timeout": _START_SECONDS,
            "run_timeout": seconds,
        }
        return self._service.post(payload, seconds + _QUEUE_SECONDS, lambda answer: outcome_of(answer, limits))


def _code(
    program: str,
    limits: Limits,
    nonce: str,
    *,
    setup: str = "",
    steps: Sequence[tuple[str, str, str]] | None = None,
    arguments: Sequence[str] = ("",),
    files: Mapping[str, bytes] | None = None,
) -> str:
    """The program behind its harness, as one text of ASCII."""
    job = {
        "setup": setup,
        "program": program,
        "cpu_seconds": math.ceil(limits.cpu_seconds),
        "memory_bytes": int(limits.memory_bytes),
        "steps": steps,
        "nonce": nonce,
        "modules": {} if steps is None else _MODULES,
        "arguments": list(arguments),
        "files": {name: base64.b64encode(content).decode() for name, content in (files or {}).items()},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(job).encode())).decode()
    return f"{_HARNESS}\n\nfor _code in _start({packed!r}):\n    exec(_code, globals())\n"


def outcome_of(answer: Any, limits: Limits) -> Outcome:
    """How a run ended, from the service's answer.

    Raises:
        TryAgain: the service failed, or what it says is not ``run_code``'s answer.
    """
    ran = answer.get("run_result") if isinstance(answer, dict) else None
    if not isinstance(ran, dict) or answer.get("status") == "SandboxError" or ran.get("status") == "Error":
        said = answer.get("message") if isinstance(answer, dict) else answer
        raise TryAgain(f"the service failed to run a program: {str(said)[:300]}")
    stdout, stderr = (jobs.text_bytes(ran.get(name) or "") for name in ("stdout", "stderr"))
    wall_ns = int(1e9 * (ran.get("execution_time") or 0.0))
    killed_by, cpu_ns, status = KilledBy.NOBODY, 0, 0
    if ran.get("status") == "TimeLimitExceeded":
        killed_by, status = KilledBy.WALL_LIMIT, signal.SIGKILL
    elif isinstance(code := ran.get("return_code"), int):
        status = _wait_status(code)
        if status == signal.SIGXCPU:
            killed_by, cpu_ns = KilledBy.CPU_LIMIT, math.ceil(limits.cpu_seconds) * 10**9
    else:
        raise TryAgain(f"the service does not say how a program ended: {str(ran)[:300]}")
    return Outcome(
        stage=Stage.COMPILED,
        reply=Reply(status, killed_by, True, cpu_ns, wall_ns),
        stdout=stdout,
        stderr=stderr,
        results=b"",
        overflow=max(len(stdout), len(stderr)) > limits.output_bytes or max(len(stdout), len(stderr)) >= CUT_BYTES,
    )


def _wait_status(code: int) -> int:
    """An exit code as wait4 gives it; a shell in between turns signals into codes above 128."""
    number = -code if code < 0 else code - 128
    return number if 0 < number < signal.NSIG else (code & 0xFF) << 8


def _timeout(outcome: Outcome) -> tuple[Verdict, str] | None:
    if outcome.reply.killed_by is KilledBy.WALL_LIMIT:
        return Verdict.WALL_TIMEOUT, f"the service ended it after {outcome.reply.wall_ns / 1e9:.1f} s"
    return None


_PROBES = (
    (Problem("probe", "", (Test("1 2\n", "3\n"),)), "print(sum(map(int, input().split())))"),
    (Problem("probe", "", (Test("[2]", "4"),), Mode.FUNCTION, "double"), "def double(x):\n    return 2 * x"),
)
