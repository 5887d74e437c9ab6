"""Programs run by a service: ours, end to end, and one that fails in every way it can."""

from __future__ import annotations

import base64
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution import service
from openrlhf_maxk.rewards.execution.backends import open_runner
from openrlhf_maxk.rewards.execution.remote import CUT_BYTES, RemoteRunner, outcome_of
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.execution.service import TRIES, TryAgain
from openrlhf_maxk.rewards.serving.run_code import RunCode
from openrlhf_maxk.rewards.serving.server import Answerer, RewardServer

from .test_backends import PROGRAMS, SHORT, SUM, verdicts

RIGHT = PROGRAMS[0][1]


@contextmanager
def serving(run_code: Answerer, token: str | None = None) -> Iterator[str]:
    server = RewardServer(("127.0.0.1", 0), {"/run_code": run_code}, token, 2**26, 64)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def run_code() -> Iterator[RunCode]:
    run_code = RunCode(2)
    yield run_code
    run_code.close()


@pytest.fixture(scope="module")
def runner(run_code) -> Iterator[RemoteRunner]:
    with serving(run_code) as url, open_runner(url, 2) as runner:
        yield runner


@pytest.fixture
def impatient(monkeypatch):
    """Without pauses between tries."""
    slept: list[float] = []
    monkeypatch.setattr(service.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(("problem", "program", "expected"), PROGRAMS)
def test_a_service_gives_the_sandboxs_verdicts(runner, problem, program, expected):
    assert verdicts(runner.run(program, problem)) == expected


@pytest.mark.slow
def test_a_program_that_sleeps_is_ended_by_the_services_clock(runner):
    (test,) = runner.run("import time; time.sleep(1000)", Problem("p", "", (Test(""),), limits=SHORT)).tests
    assert test.verdict is Verdict.WALL_TIMEOUT
    assert "the service ended it after" in test.detail


@pytest.mark.slow
def test_a_program_that_ignores_the_cpu_limit_is_killed(runner):
    program = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    (test,) = runner.run(program, Problem("p", "", (Test(""),), limits=SHORT)).tests
    assert test.verdict in (Verdict.CRASHED, Verdict.CPU_TIMEOUT)


def test_many_programs_come_back_in_order_and_equal_ones_run_once(runner, monkeypatch):
    sent: list[str] = []
    ask = runner._ask
    monkeypatch.setattr(runner, "_ask", lambda code, stdin, limits: sent.append(stdin) or ask(code, stdin, limits))
    results = runner.run_many([(RIGHT, SUM), ("print(11)", SUM), (RIGHT, SUM)])
    assert [verdicts(result) for result in results] == [["passed"] * 2, ["wrong", "passed"], ["passed"] * 2]
    assert sorted(sent) == sorted([test.input for test in SUM.tests] * 2)


def test_many_threads_may_submit(runner):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: runner.run(f"print({n})", SUM), range(40)))
    assert [verdicts(result)[0] for result in results] == ["passed" if n == 3 else "wrong" for n in range(40)]


def test_expected_outputs_stay_here():
    seen: list[dict[str, Any]] = []

    def watch(request: dict[str, Any]) -> dict[str, Any]:
        seen.append(request)
        return finished("", 0)

    problem = Problem("p", "", (Test("input-of-the-test", "secret-of-the-test"),))
    with serving(watch) as url, unprobed(url) as runner:
        runner.run("print(1)", problem)
    (request,) = seen
    packed = request["code"].rpartition("_start('")[2].partition("'")[0]
    text = request["code"] + zlib.decompress(base64.b64decode(packed)).decode() + request["stdin"]
    assert "input-of-the-test" in text
    assert "print(1)" in text
    assert "secret" not in text
    assert request["language"] == "python"


def test_a_closed_runner_refuses(run_code):
    with serving(run_code) as url:
        runner = RemoteRunner([url], 2)
        runner.close()
        runner.close()
        with pytest.raises(RuntimeError):
            runner.submit(RIGHT, SUM)


def test_a_problem_that_cannot_be_run_is_refused_by_its_id(runner):
    with pytest.raises(ValueError, match="problem 'none' has no tests"):
        runner.submit(RIGHT, Problem("none", "", ()))


# a service that fails


def finished(stdout: str, code: int | None, **more: Any) -> dict[str, Any]:
    run = {"status": "Finished", "return_code": code, "stdout": stdout, "stderr": "", "execution_time": 0.1} | more
    return {"status": "Success" if code == 0 else "Failed", "message": "", "compile_result": None, "run_result": run}


SANDBOX_ERROR = {"status": "SandboxError", "message": "no space left", "run_result": None}


@contextmanager
def unprobed(url: str) -> Iterator[RemoteRunner]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteRunner, "_probe", lambda self, urls: None)
        with RemoteRunner([url], 4) as runner:
            yield runner


def answers(*each: Any) -> tuple[Answerer, list[Any]]:
    """An answerer that gives each in turn, the last one for ever; and what it has given."""
    given: list[Any] = []
    lock = threading.Lock()

    def answer(_: dict[str, Any]) -> Any:
        with lock:
            given.append(each[min(len(given), len(each) - 1)])
            if isinstance(given[-1], Exception):
                raise given[-1]
            return given[-1]

    return answer, given


ONE = Problem("one", "", (Test("", "3"),), limits=SHORT)


@pytest.mark.parametrize("failure", [SANDBOX_ERROR, RuntimeError("broken"), [], {}, finished("3", None)])
def test_a_failure_is_tried_again(impatient, failure):
    answer, given = answers(failure, failure, finished("3", 0))
    with serving(answer) as url, unprobed(url) as runner:
        assert runner.run("", ONE).fraction == 1.0
    assert len(given) == 3
    assert impatient == [1.0, 2.0]


@pytest.mark.parametrize("failure", [SANDBOX_ERROR, RuntimeError("broken")])
def test_a_service_that_stays_out_of_order_is_an_infrastructure_error_and_never_a_reward(impatient, failure):
    answer, given = answers(failure)
    with serving(answer) as url, unprobed(url) as runner:
        result = runner.run("", ONE)
    assert verdicts(result) == ["infrastructure_error"]
    assert result.fraction is None
    assert f"after {TRIES} tries" in result.tests[0].detail
    assert len(given) == TRIES
    assert len(impatient) == TRIES - 1


def test_a_service_that_is_down_is_an_infrastructure_error(impatient):
    with serving(answers(SANDBOX_ERROR)[0]) as url:
        pass
    with unprobed(url) as runner:
        assert verdicts(runner.run("", ONE)) == ["infrastructure_error"]


def test_services_take_turns_and_one_that_is_down_is_passed_over(impatient, run_code):
    with serving(run_code) as down:
        pass
    with serving(run_code) as up, RemoteRunner([down, up], 4) as runner:
        results = runner.run_many([(f"{RIGHT}  # {n}", SUM) for n in range(6)])
    assert [result.fraction for result in results] == [1.0] * 6


def test_a_service_that_refuses_is_an_infrastructure_error_at_once(impatient, run_code):
    with serving(run_code, token="a-token-of-some-length") as url, unprobed(url) as runner:
        result = runner.run("", ONE)
    assert verdicts(result) == ["infrastructure_error"]
    assert "the token is missing or wrong" in result.tests[0].detail
    assert impatient == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (finished("4\n", 0), "is wrong"),
        (SANDBOX_ERROR, "programs cannot be run at http(.|\n)*no space left"),
        (finished("3\n", 0), "mode function is crashed"),  # it runs programs, but says nothing of values
    ],
)
def test_a_service_that_does_not_run_programs_right_is_refused_at_the_start(impatient, answer, message):
    with serving(answers(answer)[0]) as url, pytest.raises(SandboxUnavailableError, match=message):
        RemoteRunner([url], 2)


TIMED_OUT = finished("", None, status="TimeLimitExceeded")


def test_a_timeout_of_the_wall_clock_is_run_again_before_it_counts():
    answer, given = answers(TIMED_OUT, finished("3", 0))
    with serving(answer) as url, unprobed(url) as runner:
        assert verdicts(runner.run("", ONE)) == ["passed"]
    assert len(given) == 2
    answer, given = answers(TIMED_OUT)
    with serving(answer) as url, unprobed(url) as runner:
        assert verdicts(runner.run("", ONE)) == ["wall_timeout"]
    assert len(given) == 2


def test_what_timed_out_runs_alone():
    together: list[int] = []
    running, first, lock = 0, True, threading.Lock()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal running, first
        with lock:
            running += 1
            slow = first and request["stdin"] == "slow"  # requests arrive in any order
            first = first and not slow
        time.sleep(0.05)
        with lock:
            if not slow and request["stdin"] == "slow":
                together.append(running)
            running -= 1
        return TIMED_OUT if slow else finished("3", 0)

    slow = Problem("slow", "", (Test("slow", "3"),), limits=SHORT)
    with serving(answer) as url, unprobed(url) as runner:
        futures = [runner.submit("", slow), *(runner.submit(f"# {n}", ONE) for n in range(12))]
        assert all(future.result().fraction == 1.0 for future in futures)
    assert together == [1]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (finished("3", -24), "cpu_timeout"),
        (finished("3", 152), "cpu_timeout"),  # the same, through a shell
        (finished("3", -9), "crashed"),
        (finished("3", 137), "crashed"),
        (finished("3", -11), "crashed"),
        (finished("3", 1, stderr="MemoryError\n"), "out_of_memory"),
        (finished("3", 1, stderr="ValueError: x\n"), "crashed"),
        (finished("3" * (SHORT.output_bytes + 1), 0), "too_much_output"),
        (finished("3", 0, stderr="3" * (SHORT.output_bytes + 1)), "too_much_output"),
        (finished("", 0), "wrong"),
        (finished("3", 0), "passed"),
    ],
)
def test_how_a_program_ended_is_read_from_the_answer(answer, verdict):
    with serving(answers(answer)[0]) as url, unprobed(url) as runner:
        assert verdicts(runner.run("", ONE)) == [verdict]


def test_output_that_the_service_may_have_cut_is_too_much():
    limits = Limits(output_bytes=2**22)
    assert outcome_of(finished("x" * CUT_BYTES, 0), limits).overflow
    assert not outcome_of(finished("x" * (CUT_BYTES - 1), 0), limits).overflow


@pytest.mark.parametrize("answer", [None, [], "x", {"status": "Success"}, {"run_result": {"status": "Error"}}])
def test_what_is_no_answer_is_tried_again(answer):
    with pytest.raises(TryAgain):
        outcome_of(answer, SHORT)


# our side of run_code


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "code and stdin must be texts"),
        ({"code": 1, "language": "python"}, "code and stdin must be texts"),
        ({"code": "", "language": "cpp"}, "language must be python, not 'cpp'"),
        ({"code": "", "language": "python", "files": {"a": "b"}}, "files is not supported here"),
        ({"code": "", "language": "python", "run_timeout": 0}, "run_timeout must be a number above 0, up to 600"),
        ({"code": "", "language": "python", "run_timeout": 10**9}, "run_timeout must be"),
        ({"code": "", "language": "python", "run_timeout": True}, "run_timeout must be"),
        ({"code": "", "language": "python", "memory_limit_MB": "1"}, "memory_limit_MB must be"),
    ],
)
def test_a_malformed_request_is_refused_by_field(run_code, request_, message):
    with serving(run_code) as url:
        response = requests.post(f"{url}/run_code", json=request_, timeout=30)
    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("code", "status", "ran"),
    [
        ("print(input())", "Success", {"status": "Finished", "return_code": 0, "stdout": "hello\n"}),
        ("import sys; sys.exit(7)", "Failed", {"status": "Finished", "return_code": 7}),
        ("while True: pass", "Failed", {"status": "TimeLimitExceeded", "return_code": None}),
        ("import os; os.kill(os.getpid(), 11)", "Failed", {"status": "Finished", "return_code": -11}),
        ("open('/etc/passwd')", "Failed", {"status": "Finished", "return_code": 1}),
    ],
)
def test_run_code_answers_like_sandboxfusion(run_code, code, status, ran):
    answer = run_code({"language": "python", "code": code, "stdin": "hello\n", "run_timeout": 0.5})
    assert answer["status"] == status
    assert answer["compile_result"] is None
    assert answer["run_result"] | ran == answer["run_result"]
    assert answer["run_result"]["execution_time"] > 0
