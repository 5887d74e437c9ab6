"""The command: what is printed, how it exits, and what is refused before anything starts."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
import requests

from openrlhf_maxk.best_of.problem import problem_in
from openrlhf_maxk.cli.best_of import NOT_SOLVED, main, parse
from openrlhf_maxk.evaluation.samples.records import Sample
from openrlhf_maxk.evaluation.samples.vllm_sampler import VllmSampler
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.sources.preparation.prompts import request
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.rewards.execution.service import TOKEN

from ..e2e.pipeline import make_model
from .fakes import FakeVllm, running
from .test_chat import HALF, RIGHT, TESTS, TEXTS, body
from .test_problem import MINI

TEXT = "Add two numbers.\nExample\nInput\n1 2\nOutput\n3\n\nInput\n5 5\nOutput\n10\n"


@pytest.fixture
def ask(tmp_path):
    """The command, asking a fake server that answers with ``texts``; returns its status and what the server heard."""

    def run(texts, *options: str):
        with running(FakeVllm(texts)) as vllm:
            status = main(["--endpoint", vllm.url, "--k", "8", "--cores", "1", *options])
        return status, vllm.asked

    return run


def test_the_best_is_printed_and_how_many_passed_what(ask, tmp_path, capsys):
    (tmp_path / "problem.txt").write_text(TEXT)
    status, (asked,) = ask(TEXTS, "--problem", str(tmp_path / "problem.txt"), "--temperature", "0.5")
    said = capsys.readouterr()
    assert (status, said.out) == (0, RIGHT + "\n")
    assert said.err.splitlines() == [
        "8 samples, 6 with a program, 2 pass all of 2 tests",
        "test 1: passed by 4",
        "test 2: passed by 2",
        "best: sample 4, passes 2 of 2; 2 answer as it does",
    ]
    assert (asked["model"], asked["n"], asked["temperature"]) == ("fake", 8, 0.5)
    (message,) = asked["messages"]
    assert message["content"].endswith(TEXT)
    assert "```python block" in message["content"]


def test_standard_input_and_a_template(ask, monkeypatch, capsys):
    record = {"statement": "Add.", "tests": TESTS}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(record)))
    status, (asked,) = ask(TEXTS, "--problem", "-", "--prompt-template", "Q: {} A:", "--model", "mine")
    assert (status, asked["messages"][0]["content"], asked["model"]) == (0, "Q: Add. A:", "mine")
    assert capsys.readouterr().out == RIGHT + "\n"


def test_a_best_that_fails_a_test_is_printed_and_told(ask, tmp_path, capsys):
    (tmp_path / "problem.txt").write_text(TEXT)
    assert ask(TEXTS[:3], "--problem", str(tmp_path / "problem.txt"))[0] == NOT_SOLVED
    said = capsys.readouterr()
    assert said.out == HALF + "\n"
    assert "best: sample 3, passes 1 of 2" in said.err
    assert "it fails: " in said.err
    assert ask(["No."], "--problem", str(tmp_path / "problem.txt"))[0] == NOT_SOLVED
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[-1]) == ("", "no sample holds a program")


def test_a_prepared_problem_is_judged_by_its_public_tests_only(ask, tmp_path, capsys):
    tests = tuple(Test(t["input"], t["output"]) for t in TESTS)
    problems = [Problem("p", "add", tests, public_tests=1), Problem("q", "add", tests)]
    write_problems(tmp_path / "problems", problems)
    (tmp_path / "problems" / "test.jsonl").write_text(json.dumps({"input": "add!", "label": "p"}) + "\n")
    store = ["--problems", str(tmp_path / "problems"), "--problem"]
    status, (asked,) = ask(TEXTS, *store, "p", "--split", "test")
    assert (status, asked["messages"][0]["content"]) == (0, "add!")
    assert "8 samples, 6 with a program, 4 pass all of 1 tests" in capsys.readouterr().err
    assert ask(TEXTS, *store, "q") == (1, [])
    assert "--problem q: it has no public tests" in capsys.readouterr().err
    assert ask(TEXTS, *store, "r") == (1, [])
    assert "--problem r: there is no such id" in capsys.readouterr().err


def test_a_split_of_chats_is_asked_as_it_is(ask, tmp_path):
    tests = tuple(Test(t["input"], t["output"]) for t in TESTS)
    write_problems(tmp_path, [Problem("p", "add", tests, public_tests=1)])
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "add!"}]
    (tmp_path / "test.jsonl").write_text(json.dumps({"input": chat, "label": "p"}) + "\n")
    store = ["--problems", str(tmp_path), "--problem", "p", "--split", "test"]
    status, (asked,) = ask(TEXTS, *store)
    assert (status, asked["messages"]) == (0, chat)
    assert ask(TEXTS, *store, "--prompt-template", "Q: {}") == (1, [])


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A folder of a model whose engine gives ``TEXTS``, in portions and the last ones first, and hears what it is."""
    heard: list[Any] = []

    def sample(sampler, requests):
        heard.append(sampler)
        (request,) = requests
        for index in reversed(range(request.count)):
            yield [Sample(request.problem, index, TEXTS[index % len(TEXTS)])]

    monkeypatch.setattr(VllmSampler, "sample", sample)
    return str(make_model(tmp_path / "model")), heard


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"])
def test_a_model_is_asked_with_its_chat_template_if_it_has_one(engine, tmp_path, capsys, template):
    model, heard = engine
    (tmp_path / "problem.txt").write_text(MINI)
    if template is not None:
        (tmp_path / "model" / "chat_template.jinja").write_text(template)
    options = ["--model", model, "--k", "8", "--cores", "1", "--problem", str(tmp_path / "problem.txt")]
    assert main(options) == NOT_SOLVED
    assert "best: sample 2, passes 0 of 1" in capsys.readouterr().err
    (sampler,) = heard
    tokenizer = sampler.model.tokenizer()
    asked = MINI if template is None else "user: " + request(problem_in(MINI))
    assert sampler.tokens == {"problem": tokenizer(asked, add_special_tokens=False)["input_ids"]}
    assert sampler.sampling.max_new_tokens == sampler.model.context() - len(sampler.tokens["problem"])
    assert main([*options, "--max-new-tokens", "7", "--temperature", "0.5", "--prompt-template", "{}"]) == NOT_SOLVED
    assert (heard[1].sampling.max_new_tokens, heard[1].sampling.temperature) == (7, 0.5)
    assert heard[1].tokens == {"problem": tokenizer(MINI, add_special_tokens=False)["input_ids"]}


def test_a_prompt_that_leaves_no_room_is_told_before_the_engine_starts(engine, tmp_path, capsys):
    model, heard = engine
    (tmp_path / "problem.txt").write_text(MINI)
    assert main(["--model", model, "--problem", str(tmp_path / "problem.txt"), "--max-new-tokens", "256"]) == 1
    assert "leaves" in capsys.readouterr().err
    assert heard == []


def test_samples_that_the_engine_does_not_give_are_an_error(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(VllmSampler, "sample", lambda *_: [[Sample("problem", 0, TEXTS[3])]])
    (tmp_path / "problem.txt").write_text(MINI)
    assert main(["--model", engine[0], "--k", "8", "--problem", str(tmp_path / "problem.txt")]) == 1
    said = capsys.readouterr()
    assert (said.out, "the engine gave 1 of 8 samples" in said.err) == ("", True)


def test_a_problem_that_cannot_be_used_is_named_before_anything_is_generated(ask, tmp_path, capsys):
    path = tmp_path / "problem.json"
    for content, message in [
        ("Add.", "tests: there are none"),
        ('{"statement": "s", "tests": 1}', "tests: it must be a list, not int"),
        ('{"statement": "s", "tests": ["assert ("]}', "test 1"),
    ]:
        path.write_text(content)
        assert ask(TEXTS, "--problem", str(path)) == (1, [])
        assert message in capsys.readouterr().err
    path.write_bytes(b"\xff")
    assert ask(TEXTS, "--problem", str(path)) == (1, [])
    assert "is not UTF-8" in capsys.readouterr().err
    assert ask(TEXTS, "--problem", str(tmp_path / "none.txt")) == (1, [])
    assert "No such file or directory" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_an_error_without_a_best(tmp_path, capsys):
    (tmp_path / "problem.txt").write_text(TEXT)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = ["--cores", "1", "--problem", str(tmp_path / "problem.txt")]
    assert main(["--endpoint", f"http://127.0.0.1:{port}", *options]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "is the vLLM server running there?" in said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of --model and --endpoint is needed"),
        (["--model", "m", "--problems", "d"], "--problems needs --problem"),
        (["--model", "m", "--problem", "p", "--split", "test"], "--split is of --problems"),
        (["--model", "m", "--temperature", "0"], "--temperature 0 makes all 64 samples the same"),
        (["--model", "m", "--prompt-template", "Q"], "--prompt-template has no {}"),
        (["--endpoint", "http://h", "--prompt-template", "{}"], "--prompt-template is of --problem"),
        (["--model", "m", "--k", "0"], "0 is not positive"),
        (["--endpoint", "http://h", "--timeout", "0"], "--timeout 0 must be above 0"),
        (["--endpoint", "http://h", "--host", "0.0.0.0"], f"is reached by others: set {TOKEN}"),
        (["--endpoint", "http://h", "--token", "short"], "a token has at least 16"),
        (["--endpoint", "http://h", "--max-requests", "0"], "--max-requests 0 must be above 0"),
    ],
)
def test_options_that_do_not_go_together(options, message, capsys, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(SystemExit) as exit:
        parse(options)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_a_service_answers_until_sigterm():
    with running(FakeVllm(TEXTS)) as vllm:
        command = [sys.executable, "-m", "openrlhf_maxk.cli.best_of", "--endpoint", vllm.url]
        options = ["--k", "8", "--cores", "1", "--port", "0"]
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[2]
                answer = requests.post(url + "/v1/chat/completions", json=body(), timeout=60).json()
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                process.kill()
    assert answer["choices"][0]["message"]["content"] == TEXTS[3]
