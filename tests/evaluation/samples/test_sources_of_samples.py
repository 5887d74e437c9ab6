"""Completions made elsewhere, and an endpoint that behaves and misbehaves."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from openrlhf_maxk.evaluation.pipeline import Plan, evaluate
from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
from openrlhf_maxk.evaluation.samples.endpoint import EndpointError, EndpointSampler
from openrlhf_maxk.evaluation.samples.files.formats import Fields
from openrlhf_maxk.evaluation.samples.generate import IncompleteError
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError, load_problem_set
from openrlhf_maxk.evaluation.samples.records import Sampling, missing_requests, seed_of

from ..fakes import FakeRunner, FakeSampler, extract, make_problems


@pytest.fixture
def problems(tmp_path):
    make_problems(tmp_path / "problems")
    return load_problem_set(tmp_path / "problems")


def write_lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def requests_for(problems: ProblemSet, samples: int):
    return missing_requests(problems.prompts(), {}, dict.fromkeys(problems.ids, samples), 0, 4)


def test_a_file_of_another_models_samples_gives_the_same_scores(problems, tmp_path):
    sampler = FakeSampler()
    rows = [
        {"task_id": s.problem, "completion": s.completion, "tokens": s.tokens, "logprob": s.logprob}
        for batch in sampler.sample(requests_for(problems, 8))
        for s in batch
    ]
    rows.sort(key=lambda row: row["completion"])  # any order of problems
    path = write_lines(tmp_path / "made.jsonl", *rows)
    source = CompletionsFile.open(path, problems)
    assert set(source.counts.values()) == {8}
    plan = Plan("made", problems, problems.prompts(), source, Sampling(), 8)
    made = evaluate(plan, tmp_path / "a", FakeRunner(), extract).scores
    plan = Plan("fake", problems, problems.prompts(), sampler, Sampling(), 8)
    direct = evaluate(plan, tmp_path / "b", FakeRunner(), extract).scores
    for p in range(len(problems)):
        rows_a, rows_b = made.groups(made.rewards)[p], direct.groups(direct.rewards)[p]
        assert sorted(rows_a) == sorted(rows_b)
    assert sorted(made.details.entropy) == sorted(direct.details.entropy)


def test_ragged_files_and_lists_of_completions(problems, tmp_path):
    path = write_lines(
        tmp_path / "made.jsonl",
        {"question_id": "toy/000", "code_list": ["```python\nprint(11)\n```", "nothing"]},
        "",
        {"question_id": "toy/001", "code_list": ["```python\nprint(2)\n```"]},
        {"question_id": "toy/000", "code_list": ["```python\nprint(3)\n```"]},
    )
    source = CompletionsFile.open(path, problems)
    assert source.counts["toy/000"] == 3
    assert source.missing() == ["toy/002", "toy/003", "toy/004"]
    chosen = ProblemSet(problems.problems, dict.fromkeys(("toy/000", "toy/001"), ""))
    source = CompletionsFile.open(path, chosen)
    plan = Plan("made", chosen, chosen.prompts(), source, Sampling(), 3)
    result = evaluate(plan, tmp_path / "runs", FakeRunner(), extract)
    assert result.scores.samples.tolist() == [3, 1]
    assert result.scores.details.programs.tolist() == [0, -1, 1, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be a JSON object, not list"),
        ('{"completion": "x"}', "line 2 has no field for the problem's id .*--id-field"),
        ('{"problem": "toy/000"}', "line 2 has no field for the completion .*--completion-field"),
        ('{"problem": "toy/000", "completion": [1]}', "line 2: 'completion' must be text or a list of texts"),
        ('{"problem": "toy/000", "completion": "x", "tokens": -1}', "line 2: 'tokens'"),
        ('{"problem": "toy/000", "completion": "x", "tokens": 1, "logprob": NaN}', "line 2: 'logprob'"),
        ('{"problem": "toy/000", "completion": "x", "logprob": -1.0}', "line 2: 'logprob' needs 'tokens'"),
    ],
)
def test_a_malformed_line_is_named(problems, tmp_path, line, message):
    path = write_lines(tmp_path / "made.jsonl", {"problem": "toy/000", "completion": "x"}, line)
    with pytest.raises(ProblemSetError, match=message):
        CompletionsFile.open(path, problems)


def test_other_fields_can_be_named_and_files_without_anything_are_refused(problems, tmp_path):
    path = write_lines(tmp_path / "made.jsonl", {"id": "toy/000", "text": "x"})
    assert CompletionsFile.open(path, problems, Fields("id", "text")).counts["toy/000"] == 1
    with pytest.raises(ProblemSetError, match="is empty"):
        CompletionsFile.open(write_lines(tmp_path / "empty.jsonl"), problems)
    with pytest.raises(FileNotFoundError):
        CompletionsFile.open(tmp_path / "none.jsonl", problems)


class Endpoint(BaseHTTPRequestHandler):
    """Answers as an OpenAI server; the test says how it misbehaves."""

    most = 100  # choices an answer
    statuses: ClassVar[list[int]] = []  # of the next answers, 200 after that
    asked: ClassVar[list[dict]] = []
    lock = threading.Lock()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.asked.append({"path": self.path, **body})
            status = self.statuses.pop(0) if self.statuses else 200
        n = min(body["n"], self.most)
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        choices = [
            {"index": i, "finish_reason": "stop", "logprobs": None, "text": f"{text} {body['seed'] + i}"}
            for i in range(n)
        ]
        for choice in choices:
            choice["message"] = {"role": "assistant", "content": choice["text"]}
        answer = {"id": "1", "object": "x", "created": 0, "model": body["model"], "choices": choices}
        data = json.dumps(answer if status == 200 else {"error": {"message": "trouble"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    Endpoint.most, Endpoint.statuses, Endpoint.asked = 100, [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def sampler_for(url, problems, **more):
    return EndpointSampler(url, "m", Sampling(temperature=0.5, top_k=7), problems.inputs, **more)


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("chat", [True, False])
def test_all_samples_arrive_with_their_seeds_however_few_an_answer_holds(endpoint, problems, most, chat):
    Endpoint.most = most
    batches = sampler_for(endpoint, problems, chat=chat).sample(requests_for(problems, 6))
    samples = {(s.problem, s.index): s.completion for batch in batches for s in batch}
    want = {(p.id, i): f"{p.statement} {seed_of(0, p.id) + i}" for p in problems for i in range(6)}
    assert samples == want
    assert Endpoint.asked[0]["path"] == ("/v1/chat/completions" if chat else "/v1/completions")
    assert Endpoint.asked[0]["temperature"] == 0.5
    assert Endpoint.asked[0]["top_k"] == 7


def test_trouble_that_passes_is_retried(endpoint, problems):
    Endpoint.statuses = [429, 500, 503, 429]
    batches = sampler_for(endpoint, problems).sample(requests_for(problems, 4))
    assert sum(len(batch) for batch in batches) == 20


def test_what_keeps_failing_is_left_out_and_asked_again_later(endpoint, problems, tmp_path):
    Endpoint.statuses = [503] * 2
    sampler = sampler_for(endpoint, problems, retries=0, concurrency=1)
    plan = Plan("m", problems, problems.prompts(), sampler, Sampling(), 4)
    with pytest.raises(IncompleteError, match="8 of 20 samples could not be generated"):
        evaluate(plan, tmp_path / "runs", FakeRunner(), lambda text: None)
    before = len(Endpoint.asked)
    scores = evaluate(plan, tmp_path / "runs", FakeRunner(), lambda text: None).scores
    assert scores.samples.tolist() == [4] * 5
    assert len(Endpoint.asked) - before == 2


def test_refusals_and_dead_endpoints_end_the_run(endpoint, problems):
    Endpoint.statuses = [401]
    with pytest.raises(EndpointError, match=r"refuses: .*trouble"):
        list(sampler_for(endpoint, problems, concurrency=1).sample(requests_for(problems, 4)))
    dead = EndpointSampler("http://127.0.0.1:9/v1", "m", Sampling(), problems.inputs, retries=0)
    with pytest.raises(EndpointError, match="keeps failing"):
        list(dead.sample(requests_for(problems, 8)))
