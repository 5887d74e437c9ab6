"""A vLLM server that says what it is told to, and a runner that knows how every program ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.runner import Runner
from openrlhf_maxk.rewards.judging.jobs import prepare

LETTERS = {"P": Verdict.PASSED, "W": Verdict.WRONG, "C": Verdict.CRASHED, "I": Verdict.INFRASTRUCTURE_ERROR}


def result(verdicts: str, output: str = "", answer: str = "") -> ProgramResult:
    """Of a letter for each test: passed, wrong, crashed, or not run (I). ``output`` is printed on each."""
    said = {"output": output.encode(), "answer": answer.encode()}
    return ProgramResult(tuple(TestResult(LETTERS[v], detail=LETTERS[v], **said) for v in verdicts))


class FakeRunner(Runner):
    """``ends``: the letters of each program that does not fail everything; ``wait``: seconds that a program takes."""

    def __init__(self, ends: Mapping[str, str], wait: float = 0.0) -> None:
        self.ends = ends
        self.wait = wait
        self.ran: list[str] = []

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        self.ran.append(program)
        future: Future[ProgramResult] = Future()
        ended = result(self.ends.get(program.strip(), "W" * len(problem.tests)), program)
        timer = threading.Timer(self.wait, future.set_result, [ended])
        timer.start()
        return future

    def check(self, problem: Problem) -> None:
        prepare(problem)

    def close(self) -> None:
        pass


class FakeVllm(ThreadingHTTPServer):
    """Answers chat requests with ``texts``, over and over; ``status``, ``finish``, ``short`` and ``wait`` spoil it."""

    daemon_threads = True

    def __init__(self, texts: Sequence[str], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.texts = list(texts)
        self.status, self.finish, self.short, self.wait = 200, "stop", 0, 0.0
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dropped = threading.Event()  # a client has left before its answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeVllm

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **body})
        self.server.headers.append(dict(self.headers))
        self.connection.settimeout(0.05)
        deadline = time.monotonic() + self.server.wait
        while time.monotonic() < deadline:
            try:
                if not self.connection.recv(1):
                    self.server.dropped.set()
                    return
            except TimeoutError:
                pass
        if self.server.status == 0:  # as when it is killed
            return
        if self.server.status != 200:
            self._send(self.server.status, {"error": {"message": "as told", "type": "x", "code": self.server.status}})
            return
        texts, n = self.server.texts, body["n"] - self.server.short
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": texts[i % len(texts)]},
                "finish_reason": self.server.finish,
            }
            for i in range(n)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 5 * n, "total_tokens": 3 + 5 * n}
        whole = {"id": "c-1", "object": "chat.completion", "created": 7, "model": body.get("model", "fake")}
        self._send(200, whole | {"choices": choices, "usage": usage})

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """``server`` in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
