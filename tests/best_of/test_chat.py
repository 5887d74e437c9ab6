"""The best of k behind OpenAI's protocol, in front of a server that behaves and misbehaves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from openrlhf_maxk.best_of.chat import BestOf, BestOfServer
from openrlhf_maxk.best_of.vllm_server import KEY, VllmServer
from openrlhf_maxk.rewards.execution.executor import Executor

from .fakes import FakeRunner, FakeVllm, running

TESTS = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10\n"}]
HALF, RIGHT, WRONG = "print(3)", "print(sum(map(int, input().split())))", "print(0)"
ENDS = {HALF: "PW", RIGHT: "PP", WRONG: "WW"}
TEXTS = ["No idea.", *(f"So:\n```python\n{program}\n```" for program in (WRONG, HALF, RIGHT))]
SECRET = "a-token-of-some-length"


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with running(FakeVllm(TEXTS)) as server:
        yield server


@contextmanager
def serving(
    vllm: FakeVllm,
    runner: Any = None,
    token: str | None = None,
    k: int = 8,
    timeout: float = 30.0,
    connections: int = 32,
    **settings: Any,
) -> Iterator[BestOfServer]:
    best = BestOf(VllmServer(vllm.url, timeout), runner or FakeRunner(ENDS), k, 2, settings)
    server = BestOfServer(("127.0.0.1", 0), best, token, 2**20, connections)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.server_close()


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": "add"}], "tests": TESTS} | fields


def post(server: BestOfServer, payload: Any, **options: Any) -> requests.Response:
    return requests.post(server.url + "/v1/chat/completions", json=payload, timeout=60, **options)


def test_the_best_of_k_is_the_one_choice(vllm):
    with serving(vllm) as server:
        answer = post(server, body(temperature=0.7, min_p=0.1, stream_options=None, k=4)).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == [TEXTS[3]]
    assert answer["choices"][0]["index"] == 0
    assert (answer["object"], answer["model"], answer["usage"]["completion_tokens"]) == ("chat.completion", "fake", 20)
    assert answer["best_of"] == {
        "k": 4,
        "sample": 3,
        "programs": 3,
        "lost": 0,
        "passed": 2,
        "tests": 2,
        "verdicts": ["passed", "passed"],
        "detail": "",
        "passing": [2, 1],
        "solving": 1,
        "votes": 1,
    }
    (asked,) = vllm.asked
    assert asked == {
        "path": "/v1/chat/completions",
        "model": "fake",
        "messages": body()["messages"],
        "temperature": 0.7,
        "min_p": 0.1,
        "n": 4,
        "stream": False,
    }


def test_the_real_sandbox_chooses(vllm):
    with Executor(1) as runner, serving(vllm, runner) as server:
        answer = post(server, body()).json()
    assert answer["choices"][0]["message"]["content"] == TEXTS[3]
    assert (answer["best_of"]["passing"], answer["best_of"]["solving"]) == ([4, 2], 2)


def test_upstreams_own_client_gets_it_whole_and_in_a_stream(vllm):
    from openai import OpenAI

    messages: Any = body()["messages"]
    with serving(vllm, token=SECRET) as server:
        client = OpenAI(base_url=server.url + "/v1", api_key=SECRET, max_retries=0)
        assert [model.id for model in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(model="fake", messages=messages, extra_body={"tests": TESTS})
        assert whole.choices[0].message.content == TEXTS[3]
        chunks = list(
            client.chat.completions.create(
                model="fake",
                messages=messages,
                extra_body={"tests": TESTS},
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXTS[3]
    assert chunks[0].choices[0].finish_reason == "stop"
    assert chunks[0].model_extra["best_of"]["passed"] == 2
    assert chunks[-1].usage.completion_tokens == 40
    assert all(not {"stream_options", "tests", "k"} & asked.keys() for asked in vllm.asked)


def test_a_stream_ends_as_events_end(vllm):
    with serving(vllm) as server:
        response = post(server, body(stream=True))
    assert response.headers["Content-Type"] == "text/event-stream"
    chunk, done, rest = response.text.split("\n\n")
    assert json.loads(chunk.removeprefix("data: "))["object"] == "chat.completion.chunk"
    assert (done, rest) == ("data: [DONE]", "")


def test_examples_in_the_last_message_of_the_user_are_tests(vllm):
    text = "Add.\nExample\nInput\n1 2\nOutput\n3\n"
    messages = [
        {"role": "user", "content": "Example\nInput\n0\nOutput\n0\n"},
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
    with Executor(1) as runner, serving(vllm, runner) as server:
        answer = post(server, body(messages=messages, tests=None)).json()
    assert (answer["best_of"]["passing"], answer["best_of"]["sample"]) == ([4], 2)


def test_what_the_service_decides_goes_before_what_a_request_says(vllm):
    with serving(vllm, model="mine", temperature=0.6, max_tokens=50) as server:
        assert post(server, body(temperature=0, max_completion_tokens=9, top_p=0.5)).ok
    asked = vllm.asked[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"], asked["top_p"]) == ("mine", 0.6, 50, 0.5)
    assert "max_completion_tokens" not in asked


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "messages: "),
        ({"messages": []}, "messages: "),
        ({"messages": ["add"]}, "messages: "),
        ({"tests": None}, "tests: there are none, and no examples"),
        ({"tests": [{"input": 1, "output": ""}]}, "tests[0].input: it must be a text, not int"),
        ({"tests": ["assert ("]}, "tests: problem 'problem', test 1: "),
        ({"cpu_seconds": 1e9}, "cpu_seconds: "),
        ({"k": 0}, "k: it must be a whole number from 1 to 8 (--k), not 0"),
        ({"k": 9}, "k: "),
        ({"k": True}, "k: "),
        ({"n": 2}, "n: there is one answer"),
        ({"stream": "yes"}, "stream: it must be true or false"),
        ({"temperature": 0}, "temperature: with 0 all 8 samples are the same"),
        ({"tools": [{"type": "function"}]}, "tools: it is not supported here"),
    ],
)
def test_bad_requests_name_the_field_and_never_reach_the_server(vllm, fields, message):
    with serving(vllm) as server:
        response = post(server, body(**fields))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert vllm.asked == []


@pytest.mark.parametrize(
    ("spoil", "status", "message"),
    [
        ({"status": 400}, 400, "refuses the request (400): as told"),
        ({"status": 404}, 400, "refuses the request (404): as told"),
        ({"status": 401}, 503, f"failed (401): as told; its key belongs into {KEY}"),
        ({"status": 429}, 503, "failed (429): as told"),
        ({"status": 500}, 503, "failed (500): as told"),
        ({"status": 0}, 503, "does not answer"),
        ({"short": 1}, 503, "gave 7 of 8 samples"),
        ({"finish": "abort"}, 503, "gave up on a sample (abort)"),
    ],
)
def test_what_the_server_fails_in_is_an_error(vllm, spoil, status, message):
    for name, value in spoil.items():
        setattr(vllm, name, value)
    with serving(vllm) as server:
        response = post(server, body())
        assert response.status_code == status
        assert message in response.json()["error"]["message"]
        vllm.status, vllm.short, vllm.finish = 200, 0, "stop"
        assert post(server, body()).json()["best_of"]["passed"] == 2


def test_a_server_that_is_not_there_is_an_error_until_it_is(vllm):
    port = vllm.server_address[1]
    with running(FakeVllm(TEXTS)) as gone:
        pass
    with serving(gone) as server:
        response = post(server, body())
        assert (response.status_code, requests.get(server.url + "/v1/models", timeout=30).status_code) == (503, 503)
        assert "is the vLLM server running there?" in response.json()["error"]["message"]
        with running(FakeVllm(TEXTS, gone.server_address[1])):
            assert post(server, body()).json()["best_of"]["passed"] == 2
    assert port != gone.server_address[1]


def test_a_server_that_says_nothing_is_given_up(vllm):
    vllm.wait = 30.0
    with serving(vllm, timeout=0.5) as server:
        response = post(server, body())
    assert response.status_code == 503
    assert "nothing within 0.5 s" in response.json()["error"]["message"]
    assert vllm.dropped.wait(10)


def test_what_the_sandbox_loses_is_told_where_another_sample_passes_all(vllm):
    with serving(vllm, FakeRunner(ENDS | {HALF: "PI"})) as server:
        told = post(server, body()).json()["best_of"]
    assert (told["sample"], told["passing"], told["lost"], told["programs"]) == (3, [2, 2], 2, 6)


def test_what_the_sandbox_fails_in_is_an_error_and_no_choice(vllm):
    with serving(vllm, FakeRunner(ENDS | {RIGHT: "PI"})) as server:
        response = post(server, body())
    assert response.status_code == 503
    assert "nothing is chosen: 2 of 8 samples could not be run" in response.json()["error"]["message"]


def test_many_at_once_get_their_own_answers(vllm):
    vllm.wait = 0.2
    with Executor(1) as runner, serving(vllm, runner) as server, ThreadPoolExecutor(20) as pool:
        outputs = [3, 0] * 10
        tests = [[{"input": "1 2", "output": str(output)}] for output in outputs]
        answers = [a.json() for a in pool.map(lambda test: post(server, body(tests=test)), tests)]
    assert [a["best_of"]["sample"] for a in answers] == [2 if output else 1 for output in outputs]


def leave(server: BestOfServer, payload: Any) -> socket.socket:
    """A connection that has asked, and does not wait."""
    content = json.dumps(payload).encode()
    connection = socket.create_connection(server.server_address[:2], 30)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def until(done: Any) -> bool:
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(done())


def test_who_leaves_while_samples_are_made_stops_them(vllm):
    vllm.wait = 60.0
    with serving(vllm) as server:
        connection = leave(server, body())
        assert until(lambda: vllm.asked)
        assert not vllm.dropped.wait(0.5), "not before the client leaves"
        connection.close()
        assert vllm.dropped.wait(10)


def test_who_leaves_while_programs_run_stops_them():
    programs = [f"print({number})" for number in range(100)]
    runner = FakeRunner({}, wait=0.3)
    with running(FakeVllm([f"```python\n{p}\n```" for p in programs])) as vllm, serving(vllm, runner, k=100) as server:
        connection = leave(server, body())
        assert until(lambda: len(runner.ran) >= 2)
        connection.close()
        assert until(lambda: not server._guests)
        ran = len(runner.ran)
        time.sleep(1.0)
        assert len(runner.ran) == ran < 20


def test_a_service_that_stops_finishes_what_is_in_work(vllm):
    vllm.wait = 1.0
    with ThreadPoolExecutor(1) as pool, serving(vllm) as server:
        answer = pool.submit(post, server, body())
        assert until(lambda: vllm.asked)
        server.stop()
        assert answer.result().json()["best_of"]["passed"] == 2


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_without_the_token_nothing_is_answered(vllm, path):
    with serving(vllm, token=SECRET) as server:
        asked = requests.post if path.endswith("completions") else requests.get
        refused = asked(server.url + path, json=body(), timeout=30)
        given = asked(server.url + path, json=body(), headers={"Authorization": f"Bearer {SECRET}"}, timeout=30)
    assert (refused.status_code, given.status_code) == (401, 200)
    assert "token" in refused.json()["error"]["message"]
    assert len(vllm.asked) == path.endswith("completions")


def test_limits_are_told_in_openais_form(vllm):
    with serving(vllm, connections=1) as server, requests.Session() as client:
        assert client.get(server.url + "/v1/models", timeout=30).ok  # and keeps its place
        refused = [post(server, body()), requests.get(server.url + "/v1/models", timeout=30)]
        assert [answer.status_code for answer in refused] == [503, 503]
        assert {answer.json()["error"]["type"] for answer in refused} == {"server_error"}
        long = client.post(server.url + "/v1/chat/completions", json=body(padding="x" * 2**20), timeout=30)
    assert long.status_code == 413
    assert "(--max-body)" in long.json()["error"]["message"]
    assert vllm.asked == []


def test_the_servers_key_is_of_the_environment(vllm, monkeypatch):
    monkeypatch.setenv(KEY, "its-key")
    with serving(vllm, token=SECRET) as server:
        post(server, body(), headers={"Authorization": f"Bearer {SECRET}"})
    assert vllm.headers[0]["Authorization"] == "Bearer its-key"


@pytest.mark.parametrize("url", ["", "here", "ftp://here", "http://"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="is no URL of a server"):
        VllmServer(url, 1.0)
