"""Rewards as a service: OpenRLHF's protocol over real connections, who may ask, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.rewards.execution.service import TOKEN, ServiceError
from openrlhf_maxk.rewards.request import BadLabel, Reward, RewardRequest
from openrlhf_maxk.rewards.scoring.scorers import HTTPScorer, Scorer
from openrlhf_maxk.rewards.serve import main, parse
from openrlhf_maxk.rewards.serving import server as server_module
from openrlhf_maxk.rewards.serving.server import RewardServer, is_loopback
from openrlhf_maxk.rewards.serving.wire import reward_answerer

SECRET = "a-token-of-some-length"


def lengths(request: RewardRequest) -> list[Reward]:
    """A scorer whose rewards tell what it was asked."""
    return [Reward(float(len(text)), None, {"label": float(len(request.label))}) for text in request.completions]


@contextmanager
def serving(
    scorer: Scorer = lengths, token: str | None = None, max_body: int = 2**20, connections: int = 8
) -> Iterator[RewardServer]:
    server = RewardServer(("127.0.0.1", 0), {"/get_reward": reward_answerer(scorer)}, token, max_body, connections)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.server_close()


def body(*completions: str, prompt: str = "p", label: str = "7") -> dict[str, list[str]]:
    return {
        "query": [prompt + completion for completion in completions],
        "prompts": [prompt] * len(completions),
        "labels": [label] * len(completions),
    }


def post(server: RewardServer, payload: Any, path: str = "/get_reward", **options: Any) -> requests.Response:
    return requests.post(server.url + path, json=payload, timeout=30, **options)


def test_a_group_is_scored_over_a_real_connection():
    with serving() as server:
        request = RewardRequest("p", "7", ("pab", "p", "pa<|im_end|>\n"), ("ab", "", "a"))
        assert HTTPScorer([server.url + "/get_reward"])(request) == lengths(request)


def test_upstreams_own_client_gets_its_reward():
    import asyncio

    from openrlhf.utils.agent import SingleTurnAgentExecutor

    with serving() as server:
        client = SingleTurnAgentExecutor(server.url + "/get_reward")
        (answer,) = asyncio.run(client._fetch_rewards_via_http(["pabc"], ["p"], ["7"]))
    assert answer == {"rewards": [3.0], "scores": [None], "extra_logs": {"label": [1.0]}}


def test_groups_of_one_request_are_scored_one_by_one_and_answered_in_order():
    asked: list[tuple[str, str, int]] = []

    def scorer(request: RewardRequest) -> list[Reward]:
        asked.append((request.prompt, request.label, len(request.completions)))
        return lengths(request)

    parts = [body("a", "bb"), body("ccc", label="88"), body("d", prompt="pd"), body("e")]
    whole = {name: [text for part in parts for text in part[name]] for name in parts[0]}
    with serving(scorer) as server:
        answer = post(server, whole).json()
    assert asked == [("p", "7", 2), ("p", "88", 1), ("pd", "7", 1), ("p", "7", 1)]
    assert answer["rewards"] == [1.0, 2.0, 3.0, 1.0, 1.0]
    assert answer["extra_logs"] == {"label": [1.0, 1.0, 2.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("ab<|im_end|>", 2),
        ("ab</s></s>\n", 2),
        ("ab<eos><pad><pad>", 2),
        ("ab<|endoftext|><|im_end|>", 2),
        ("ab<｜end▁of▁sentence｜>", 2),
        ("<|im_end|>ab", 12),
        ("a <| b |> c", 11),
        ("ab<b>", 5),
    ],
)
def test_end_tokens_are_taken_off_and_nothing_else(text, length):
    with serving() as server:
        assert post(server, body(text)).json()["rewards"] == [length]


def test_lost_completions_are_null_beside_others_and_a_failure_without_any():
    def scorer(request: RewardRequest) -> list[Reward]:
        return [Reward(None if text == "lost" else 1.0) for text in request.completions]

    with serving(scorer) as server:
        assert post(server, body("a", "lost")).json()["rewards"] == [1.0, None]
        response = post(server, body("lost", "lost"))
    assert response.status_code == 503
    assert "no completion could be scored" in response.json()["error"]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "must be a JSON object, not list"),
        ({}, "query must be a list of texts"),
        (body("a") | {"query": "a"}, "query must be a list of texts"),
        (body("a") | {"labels": [7]}, "labels must be a list of texts"),
        (body("a") | {"prompts": [None]}, "prompts must be a list of texts"),
        (body("a", "b") | {"labels": ["7"]}, "must be equally many, not 2, 2 and 1"),
        (body(), "query is empty"),
        (body("a", "b") | {"query": ["pa", "b"]}, "query[1] does not begin with prompts[1]"),
    ],
)
def test_malformed_requests_are_refused_by_field(payload, message):
    with serving() as server:
        response = post(server, payload)
    assert response.status_code == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"{} {}"])
def test_a_body_that_is_no_json_is_refused(data):
    with serving() as server:
        response = requests.post(server.url + "/get_reward", data=data, timeout=30)
        assert response.status_code == 400
        assert "not JSON" in response.json()["error"]
        assert post(server, body("a")).ok, "the service goes on"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BadLabel("label '7' is no problem"), 400, "label '7' is no problem"),
        (KeyError("mine"), 500, "KeyError: 'mine'"),
    ],
)
def test_what_a_scorer_raises_is_told(error, status, message):
    def scorer(request: RewardRequest) -> list[Reward]:
        raise error

    with serving(scorer) as server:
        response = post(server, body("a"))
    assert response.status_code == status
    assert message in response.json()["error"]


def test_health_needs_no_token_and_other_paths_are_named():
    with serving(token=SECRET) as server:
        post(server, body("a"), headers={"Authorization": f"Bearer {SECRET}"})
        health = requests.get(server.url + "/health", timeout=30).json()
        missing = requests.get(server.url + "/", timeout=30)
    assert (health["status"], health["paths"], health["answered"]) == ("ok", ["/get_reward"], 1)
    assert missing.status_code == 404
    with serving() as server:
        assert "/get_reward" in post(server, body("a"), "/reward").json()["error"]


@pytest.mark.parametrize("given", [None, "", "Bearer", f"Bearer {SECRET}x", f"bearer {SECRET}", SECRET, "Bearer é"])
def test_without_the_token_nothing_is_answered(given):
    asked: list[RewardRequest] = []
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    with serving(lambda request: asked.append(request) or lengths(request), token=SECRET) as server:
        response = post(server, body("a"), headers=headers)
        assert response.status_code == 401
        assert "token" in response.json()["error"]
        assert asked == []
        assert post(server, body("a"), headers={"Authorization": f"Bearer {SECRET}"}).ok


def test_the_scorer_brings_the_token_of_its_environment(monkeypatch):
    request = RewardRequest("p", "7", ("pab",), ("ab",))
    with serving(token=SECRET) as server:
        monkeypatch.setenv(TOKEN, SECRET)
        assert HTTPScorer([server.url + "/get_reward"])(request) == lengths(request)
        monkeypatch.setenv(TOKEN, SECRET + "x")
        with pytest.raises(ServiceError, match=r"refused the request \(401\)"):
            HTTPScorer([server.url + "/get_reward"])(request)


def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    with serving(max_body=1000) as server:
        assert post(server, body("a" * 500)).ok
        response = post(server, body("a" * 5_000_000))
        assert response.status_code == 413
        assert "more than 1000 bytes (--max-body)" in response.json()["error"]
        assert post(server, body("a")).ok


def raw(server: RewardServer, text: str) -> bytes:
    """What comes back for ``text`` sent as it is, until the server closes the connection."""
    with socket.create_connection(server.server_address[:2], 30) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /get_reward HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        ("POST /get_reward HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        ("POST /get_reward HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", b"411"),
        ("POST /get_reward HTTP/1.1\r\n" + "a: b\r\n" * 1000 + "\r\n", b"431"),
        ("POST " + "/" * 100_000 + " HTTP/1.1\r\n\r\n", b"414"),
        ("DELETE /get_reward HTTP/1.1\r\n\r\n", b"501"),
        ("hello\r\n\r\n", b"400"),
    ],
)
def test_strange_requests_are_refused_and_the_service_goes_on(head, status):
    with serving() as server:
        assert status in raw(server, head)[:200]
        assert post(server, body("a")).ok


def test_a_client_that_leaves_in_the_middle_disturbs_nobody():
    with serving() as server:
        assert raw(server, "POST /get_reward HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{") == b""
        assert post(server, body("a")).ok


def test_a_client_that_says_nothing_is_dropped_in_time(monkeypatch):
    monkeypatch.setattr(server_module._Handler, "timeout", 0.2)
    with serving() as server, socket.create_connection(server.server_address[:2], 30) as connection:
        assert connection.recv(1) == b""


def test_too_many_connections_are_told_to_come_back():
    with serving(connections=1) as server:
        with requests.Session() as client:
            assert client.post(server.url + "/get_reward", json=body("a"), timeout=30).ok  # and keeps its place
            response = post(server, body("a"))
            assert response.status_code == 503
            assert "too many connections" in response.json()["error"]
            assert response.headers["Retry-After"] == "1"
            assert requests.get(server.url + "/health", timeout=30).ok
            assert client.post(server.url + "/get_reward", json=body("a"), timeout=30).ok
        settles(lambda: post(server, body("a")).ok)


def test_connections_without_the_token_take_no_places():
    """As many silent or trickling ones as one likes: the oldest give way to whoever has something to say."""
    right = {"Authorization": f"Bearer {SECRET}"}
    with serving(token=SECRET, connections=2) as server, ExitStack() as stack:
        for number in range(server_module.STRANGERS + 20):
            stranger = stack.enter_context(socket.create_connection(server.server_address[:2], 30))
            stranger.sendall(b"POST /get_reward HTTP/1.1\r\n" if number % 2 else b"P")
        for _ in range(3):
            assert post(server, body("a"), headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert requests.get(server.url + "/health", timeout=30).ok
            assert post(server, body("ab"), headers=right).json()["rewards"] == [2.0]
        settles(lambda: len(server._strangers) <= server_module.STRANGERS)


def settles(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def test_stopping_finishes_what_is_in_work_and_lets_idle_clients_go():
    begun, may_end = threading.Event(), threading.Event()

    def scorer(request: RewardRequest) -> list[Reward]:
        begun.set()
        assert may_end.wait(60)
        return lengths(request)

    answers: list[requests.Response] = []
    with serving(scorer) as server:
        idle = socket.create_connection(server.server_address[:2], 30)
        client = threading.Thread(target=lambda: answers.append(post(server, body("ab"))))
        client.start()
        assert begun.wait(60)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        stopping.join()
        assert idle.recv(1) == b""
        may_end.set()
        client.join()
    idle.close()
    assert answers[0].json()["rewards"] == [2.0]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("", False)],
)
def test_loopback_is_known(host, loopback):
    assert is_loopback(host) is loopback


# the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to serve: give --problems"),
        (["--math", "--problems", "p"], "not allowed with"),
        (["--math", "--host", "0.0.0.0"], f"--host 0.0.0.0 is reached by others: set {TOKEN}"),
        (["--math", "--host", "0.0.0.0", "--token", "short"], "at least 16 ASCII characters"),
        (["--math", "--token", "é" * 20], "at least 16 ASCII characters"),
        (["--math", "--max-body", "0"], "--max-body 0 must be above 0"),
        (["--math", "--cores", "-1"], "--cores -1 must be above 0"),
        (["--reward-func", "reward.txt"], "--reward-func reward.txt is not a .py file"),
    ],
)
def test_options_that_cannot_be_served_are_refused(monkeypatch, capsys, arguments, message):
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_token_of_the_environment_opens_the_service_to_others(monkeypatch):
    monkeypatch.setenv(TOKEN, SECRET)
    assert parse(["--math", "--host", "0.0.0.0"]).token == SECRET


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service as a process, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "openrlhf_maxk.rewards.serve", "--port", "0", "--cores", "1", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if name != TOKEN},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), line + process.stdout.read()
        yield process, line.split()[2]
    finally:
        process.kill()
        process.wait()


def test_a_problem_store_is_served_until_sigterm(tmp_path):
    problem = Problem("p/1", "", (Test("1 2\n", "3"), Test("2 2", "4")), limits=Limits(cpu_seconds=1.0))
    write_problems(tmp_path / "store", [problem])
    texts = ["```python\nprint(sum(map(int, input().split())))\n```<|im_end|>", "```\nprint(3)\n```", "no program"]
    with command("--problems", str(tmp_path / "store"), "--run-code") as (process, url):
        answer = requests.post(url, json=body(*texts, label="p/1"), timeout=60)
        assert answer.json()["rewards"] == [1.0, 0.5, 0.0]
        assert answer.json()["extra_logs"]["all_passed"] == [1.0, 0.0, None]
        unknown = requests.post(url + "/get_reward", json=body("a", label="p/2"), timeout=60)
        assert unknown.status_code == 400
        assert "'p/2' is not the id of a problem" in unknown.json()["error"]
        ran = requests.post(url + "/run_code", json={"language": "python", "code": "print(1)"}, timeout=60).json()
        assert ran["run_result"]["stdout"] == "1\n"
        children = set(map(int, subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout.split()))
        assert children
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read().endswith("stopped\n")
    settles(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))


def test_a_reward_function_is_served(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text("def reward_func(queries, prompts, labels): return {'rewards': [len(q) for q in queries]}\n")
    with command("--reward-func", str(file), "--token", SECRET) as (process, url):
        assert requests.post(url, json=body("ab"), timeout=60).status_code == 401
        answer = requests.post(url, json=body("ab"), headers={"Authorization": f"Bearer {SECRET}"}, timeout=60)
        assert answer.json()["rewards"] == [3.0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_service_that_cannot_start_says_why(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "openrlhf_maxk.rewards.serve", "--problems", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: there is no problem store at {tmp_path}")
    assert "Traceback" not in ran.stderr


def test_a_port_in_use_is_named(tmp_path, capsys):
    function = tmp_path / "reward.py"
    function.write_text("def reward_func(queries, prompts, labels):\n    return {'rewards': [0.0] * len(queries)}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--reward-func", str(function), "--port", str(port)]) == 1
    assert f"cannot listen on --host 127.0.0.1 --port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("error", [FileNotFoundError("no.txt"), TimeoutError("late"), OSError(5, "broken")])
def test_whatever_a_scorer_raises_is_told_and_logged(error, caplog):
    def fails(_):
        raise error

    with serving(fails) as server:
        answer = post(server, body("a"))
    assert answer.status_code == 500
    assert type(error).__name__ in answer.json()["error"]
    assert "a request could not be answered" in caplog.text


def exchange(server: RewardServer, request: bytes) -> bytes:
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: 1_1\r\n", 411),
        ("Content-Length: +2\r\n", 411),
        ("Content-Length: -2\r\n", 411),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: " + "9" * 5000 + "\r\n", 413),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(head, status):
    with serving() as server:
        answer = exchange(server, f"POST /get_reward HTTP/1.1\r\nHost: x\r\n{head}\r\n{{}}".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b'{"error": "' in answer


@pytest.mark.parametrize(
    "request_", [b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_errors_of_the_parser_are_json(request_):
    with serving() as server:
        answer = exchange(server, request_)
    assert b"application/json" in answer
    assert b'{"error": ' in answer


def test_a_head_that_trickles_in_does_not_keep_its_place(monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.5)
    with serving(connections=1) as server, socket.create_connection(server.server_address[:2]) as slow:
        start = time.monotonic()
        while time.monotonic() - start < 20:
            try:
                slow.sendall(b"P")
            except OSError:
                break
            time.sleep(0.1)
            if requests.get(server.url + "/health", timeout=5).status_code == 200:
                break
        assert time.monotonic() - start < 15
