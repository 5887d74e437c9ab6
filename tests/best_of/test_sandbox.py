"""When the sandbox is killed under requests: the right choice or an error, and right ones again afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.sandbox import lane

from ..rewards.execution.test_executor_machinery import SLOWLY, alive, servers, wait_until_running
from ..rewards.traces import sandbox_processes
from .fakes import FakeVllm, running
from .test_chat import body, post, serving, until

TEXTS = [f"```python\n{program}\n```" for program in ("print(0)", "print(3)", SLOWLY, "1 / 0")]
AT_ONCE = 8


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with running(FakeVllm(TEXTS)) as server:
        yield server


def test_a_lane_that_is_killed_changes_no_choice(vllm):
    with Executor(1) as executor, serving(vllm, executor) as server, ThreadPoolExecutor(1) as pool:
        idle = sandbox_processes(servers(executor))
        answer = pool.submit(post, server, body())
        wait_until_running(executor, idle)
        os.kill(servers(executor)[0], signal.SIGKILL)
        told = answer.result().json()["best_of"]
    assert (told["sample"], told["passing"], told["lost"]) == (2, [4, 2], 0)


def test_lanes_that_are_killed_all_the_time_give_the_right_choice_or_an_error(vllm):
    over = threading.Event()

    def kill(executor: Executor) -> None:
        while not over.wait(0.2):
            for pid in servers(executor):
                with contextlib.suppress(ProcessLookupError):  # it is being replaced
                    os.kill(pid, signal.SIGKILL)

    with Executor(1) as executor, serving(vllm, executor) as server, ThreadPoolExecutor(AT_ONCE + 1) as pool:
        killer = pool.submit(kill, executor)
        try:
            answers = list(pool.map(lambda _: post(server, body()), range(AT_ONCE)))
        finally:
            over.set()
        killer.result()
        for answer in answers:
            if answer.status_code == 200:
                assert answer.json()["best_of"]["sample"] == 2
            else:
                assert answer.status_code == 503
                assert "the sandbox failed, and nothing is chosen" in answer.json()["error"]["message"]
        assert any(answer.status_code == 503 for answer in answers)
        assert post(server, body()).json()["best_of"]["sample"] == 2


def test_a_lane_that_cannot_be_replaced_is_an_error_until_it_can(vllm, monkeypatch):
    with Executor(1) as executor, serving(vllm, executor) as server:
        monkeypatch.setattr(lane.sys, "executable", "/bin/false")
        everything = sandbox_processes(servers(executor))
        os.kill(servers(executor)[0], signal.SIGKILL)
        assert until(lambda: not any(map(alive, everything)))
        answer = post(server, body())
        assert answer.status_code == 503
        assert "nothing is chosen: 8 of 8 samples could not be run" in answer.json()["error"]["message"]
        monkeypatch.undo()
        assert post(server, body()).json()["best_of"]["sample"] == 2
