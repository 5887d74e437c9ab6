"""In front of a real vLLM server: many requests at once, the server killed under them and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import requests

from openrlhf_maxk.best_of.problem import problem_of
from openrlhf_maxk.cli.best_of import NOT_SOLVED
from openrlhf_maxk.platform import environment
from openrlhf_maxk.problems.mini.base_model import ModelSettings, train_base_model
from openrlhf_maxk.problems.mini.generator import ProblemSettings, generate
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.scoring.extraction import extract_program

pytestmark = pytest.mark.slow

AT_ONCE, K = 20, 64
PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"  # the statement as it is


class Vllm:
    """The server as a process that can be killed and started again at the same port."""

    def __init__(self, model: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (model.parent / "plain.jinja").write_text(PLAIN)
        self.command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--served-model-name", "mini", "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32"),
            *("--enforce-eager", "--chat-template", str(model.parent / "plain.jinja"), "--max-model-len", "256"),
        ]
        self.processes: list[subprocess.Popen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        process = subprocess.Popen(self.command, env=os.environ | environment(), start_new_session=True)
        self.processes.append(process)
        while process.poll() is None:
            try:
                requests.get(self.url + "/models", timeout=10).raise_for_status()
                return
            except requests.RequestException:
                time.sleep(0.5)
        raise AssertionError("the vLLM server did not start")

    def freeze(self) -> None:
        """It answers nothing from now on, and does not end."""
        self.processes[-1].send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.processes[-1].kill()
        self.processes[-1].wait()

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("best_of") / "model"
    model.mkdir()
    train_base_model(model, ModelSettings())
    return model


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[Vllm]:
    vllm = Vllm(model)
    try:
        vllm.start()
        yield vllm
    finally:
        vllm.end()


@pytest.fixture(scope="module")
def url(vllm: Vllm) -> Iterator[str]:
    command = [sys.executable, "-m", "openrlhf_maxk.cli.best_of", "--endpoint", vllm.url]
    options = ["--k", str(K), "--max-new-tokens", "40", "--cores", "1", "--port", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[2] + "/v1/chat/completions"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def statements() -> list[str]:
    problems = [problem for problem, _ in generate(ProblemSettings(1, AT_ONCE, 1, 1))]
    return [problem.statement for problem in problems[:AT_ONCE]]


def ask(url: str, statement: str) -> requests.Response:
    body = {"messages": [{"role": "user", "content": statement}]}
    return requests.post(url, json=body, timeout=600)


def check(statement: str, answer: dict[str, Any]) -> None:
    """What is told of the answer is what its program does on the examples of its own statement."""
    told, problem = answer["best_of"], problem_of({}, statement)
    program = extract_program(answer["choices"][0]["message"]["content"])
    assert told["k"] == K
    assert program is not None
    with Executor(1) as executor:
        assert told["verdicts"] == [test.verdict for test in executor.run(program, problem).tests]
    assert told["passed"] == told["verdicts"].count("passed") == (told["passing"][0] > 0)  # there is one example


def test_twenty_at_once_a_kill_and_a_new_start(vllm, url, statements):
    assert len(set(statements)) == AT_ONCE
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def all_at_once() -> list[Future[requests.Response]]:
            return [pool.submit(ask, url, statement) for statement in statements]

        for statement, future in zip(statements, all_at_once(), strict=True):
            assert future.result().status_code == 200, future.result().text
            check(statement, future.result().json())

        asked = all_at_once()
        wait(asked, return_when="FIRST_COMPLETED")
        vllm.freeze()
        unanswered = all_at_once()
        time.sleep(1.0)
        vllm.kill()
        for statement, future in zip(statements * 2, asked + unanswered, strict=True):
            answer = future.result()
            if answer.status_code == 200 and future in asked:
                check(statement, answer.json())
            else:
                assert answer.status_code == 503, answer.text
                assert "vLLM server" in answer.json()["error"]["message"]
        assert ask(url, statements[0]).status_code == 503

        vllm.start()
        answers = [future.result() for future in all_at_once()]
    for statement, answer in zip(statements, answers, strict=True):
        assert answer.status_code == 200, answer.text
        check(statement, answer.json())
    assert any(answer.json()["best_of"]["passed"] for answer in answers)


def test_a_model_without_a_server(model, statements):
    """Its best program does what is told of it."""
    command = [sys.executable, "-m", "openrlhf_maxk.cli.best_of", "--model", str(model), "--k", "16", "--cores", "1"]
    ended = subprocess.run(command, input=statements[0], capture_output=True, text=True, timeout=600)
    with Executor(1) as executor:
        solved = executor.run(ended.stdout, problem_of({}, statements[0])).all_passed == 1.0
    assert ended.returncode == (0 if solved else NOT_SOLVED), ended.stderr
    assert ended.stderr.splitlines()[0].startswith("16 samples, ")
    assert f", passes {int(solved)} of 1; " in ended.stderr
