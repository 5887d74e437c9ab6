"""What a reward function may answer, over HTTP too, and what is refused."""

from __future__ import annotations

import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from openrlhf_maxk.rewards.execution.service import TOKEN, TRIES, ServiceError
from openrlhf_maxk.rewards.request import Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.scorers import FunctionScorer, HTTPScorer, make_scorer, parse_answer

REQUEST = RewardRequest("p", "7", ("p a", "p b", "p c"), ("a", "b", "c"))


def values(rewards: list[Reward]) -> list[float | None]:
    return [reward.reward for reward in rewards]


@pytest.mark.parametrize(
    "answer",
    [
        {"rewards": [0.0, 0.5, 1.0]},
        {"rewards": (0, 0.5, True)},
        {"rewards": torch.tensor([0.0, 0.5, 1.0])},
        {"rewards": torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)},
        {"rewards": np.array([0.0, 0.5, 1.0])},
        {"rewards": [torch.tensor(0.0), np.float64(0.5), 1]},
        [{"rewards": [0.0, 0.5, 1.0]}],
        [{"rewards": 0.0}, {"rewards": 0.5}, {"rewards": 1.0}],
        [{"rewards": [0.0]}, {"rewards": torch.tensor(0.5)}, {"rewards": torch.tensor([1.0])}],
    ],
)
def test_accepted_answers(answer):
    found = parse_answer(answer, 3)
    assert values(found) == [0.0, 0.5, 1.0]
    assert [reward.score for reward in found] == [0.0, 0.5, 1.0], "the score is the reward unless it is given"
    assert all(type(reward.reward) is float for reward in found)


def test_one_completion_may_be_answered_by_a_number():
    assert parse_answer({"rewards": 0.5}, 1) == parse_answer({"rewards": torch.tensor(0.5)}, 1) == [Reward(0.5, 0.5)]


def test_a_list_of_dicts_may_hold_several_completions_each():
    assert values(parse_answer([{"rewards": [1, 2]}, {"rewards": [3, 4]}], 4)) == [1, 2, 3, 4]


def test_none_and_nan_are_lost_completions_not_zeros():
    found = parse_answer({"rewards": [None, float("nan"), 0.0]}, 3)
    assert values(found) == [None, None, 0.0]


def test_scores_and_logs_are_read():
    answer = {"rewards": [1, 2], "scores": [0, None], "extra_logs": {"a": [3, float("nan")], "b": 5, "c": None}}
    assert parse_answer(answer, 2) == [Reward(1.0, 0.0, {"a": 3.0, "b": 5.0}), Reward(2.0, None, {"b": 5.0})]
    assert parse_answer({"rewards": [1], "scores": None, "extra_logs": None}, 1) == [Reward(1.0, 1.0)]


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_logs_are_read_from_whatever_rewards_are_read_from(make):
    found = parse_answer({"rewards": make([1.0, 2.0]), "extra_logs": {"a": make([3.0, 4.0])}}, 2)
    assert [reward.logs for reward in found] == [{"a": 3.0}, {"a": 4.0}]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return a dict with 'rewards', not None"),
        ([], r"must return a dict with 'rewards', not \[\]"),
        ([1.0, 2.0, 3.0], r"must return a dict with 'rewards', not \[1.0, 2.0, 3.0\]"),
        ("rewards", "must return a dict with 'rewards', not 'rewards'"),
        ({"reward": [1, 2, 3]}, "must return a dict with 'rewards'"),
        ({"rewards": [1, 2]}, "returned 2 rewards for 3 completions"),
        ({"rewards": [1, 2, 3, 4]}, "returned 4 rewards for 3 completions"),
        ({"rewards": 1.0}, "returned 1 rewards for 3 completions"),
        ({"rewards": "123"}, "returned 1 rewards for 3 completions"),
        ({"rewards": [1, 2, 3], "scores": [1]}, "returned 1 scores for 3 completions"),
        ({"rewards": [1, 2, 3], "extra_logs": {"a": [1]}}, r"returned 1 extra_logs\['a'\] for 3 completions"),
        ({"rewards": [1, 2, 3], "extra_logs": [1, 2, 3]}, r"must return a dict as 'extra_logs', not \[1, 2, 3\]"),
        ({"rewards": [1, "good", 3]}, "returned 'good' among its rewards, not a number"),
        ({"rewards": [1, [2], 3]}, r"returned \[2\] among its rewards, not a number"),
        ({"rewards": [1, math.inf, 3]}, "returned inf among its rewards"),
        ({"rewards": [1, -math.inf, 3]}, "returned -inf among its rewards"),
        ({"rewards": [1, 2, 3], "scores": [1, 2, math.inf]}, "returned inf among its scores"),
        ([{"rewards": [1]}, {"rewards": [2]}], "returned 2 dicts for 3 completions"),
        ([{"rewards": [1]}] * 4, "returned 4 dicts for 3 completions"),
        ([{"rewards": [1]}, {}, {"rewards": [1]}], "must return a dict with 'rewards'"),
    ],
)
def test_refused_answers(answer, message):
    with pytest.raises(ValueError, match=message):
        parse_answer(answer, 3)


@pytest.mark.parametrize("field", ["rewards", "scores", "extra_logs"])
@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_a_column_in_place_of_numbers_is_refused_by_its_shape(field, make):
    column = make([[1.0], [2.0], [3.0]])
    answer = {"rewards": [1, 2, 3]} | {field: {"a": column} if field == "extra_logs" else column}
    with pytest.raises(ValueError, match=rf"{field}.* of shape \(3, 1\) for 3 completions: the shape must be \(3,\)"):
        parse_answer(answer, 3)


def test_a_long_wrong_answer_is_shortened():
    with pytest.raises(ValueError, match="dict with 'rewards'") as caught:
        parse_answer("x" * 5000, 3)
    assert len(str(caught.value)) < 200


# reward_func of a file


def test_a_reward_function_is_called_once_a_group_with_openrlhfs_arguments(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "calls = []\n"
        "def reward_func(queries, prompts, labels):\n"
        "    calls.append((queries, prompts, labels))\n"
        "    return {'rewards': [len(q) + len(calls) for q in queries], 'extra_logs': {'label': map_label(labels)}}\n"
        "def map_label(labels):\n"
        "    assert labels == ['7'] * 3\n"
        "    return 7\n"
    )
    scorer = make_scorer(RewardSpec((str(file),)), 1)
    assert isinstance(scorer, FunctionScorer)
    assert values(scorer(REQUEST)) == [4.0, 4.0, 4.0]
    (call,) = scorer._reward_func.__globals__["calls"]
    assert call == (["p a", "p b", "p c"], ["p"] * 3, ["7"] * 3)


def test_a_file_without_reward_func_is_refused(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text("def reward(queries, prompts, labels): ...\n")
    with pytest.raises(ValueError, match=r"--reward.remote_url .*reward.py defines no reward_func\(queries, prompts"):
        FunctionScorer(str(file))


def test_a_reward_file_may_define_dataclasses_and_pickle_them(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "from __future__ import annotations\n"
        "import dataclasses, pickle\n"
        "@dataclasses.dataclass\n"
        "class Answer:\n"
        "    text: str\n"
        "def reward_func(queries, prompts, labels):\n"
        "    return {'rewards': [len(pickle.loads(pickle.dumps(Answer(query))).text) for query in queries]}\n"
    )
    assert values(FunctionScorer(str(file))(REQUEST)) == [3.0, 3.0, 3.0]


def test_what_a_reward_function_raises_is_not_hidden(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text("def reward_func(queries, prompts, labels): raise KeyError('mine')\n")
    with pytest.raises(KeyError, match="mine"):
        FunctionScorer(str(file))(REQUEST)


# HTTP


class Service:
    """A reward service; ``answers`` are (status, body) in turn, the last one for ever; ``seen`` what was posted."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.answers, self.seen, self.authorizations = list(answers), [], []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.authorizations.append(self.headers.get("Authorization"))
                service.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = service.answers[min(len(service.seen), len(service.answers)) - 1]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self.server.server_port}/reward"

    def __enter__(self) -> Service:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


GOOD = (200, {"rewards": [1, None, 3]})


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_service_is_asked_in_openrlhfs_protocol(slept):
    with Service(GOOD) as service:
        scorer = make_scorer(RewardSpec((service.url,)), 1)
        assert isinstance(scorer, HTTPScorer)
        assert values(scorer(REQUEST)) == [1.0, None, 3.0]
    assert service.seen == [{"query": ["p a", "p b", "p c"], "prompts": ["p"] * 3, "labels": ["7"] * 3}]
    assert slept == []


@pytest.mark.parametrize("bad", [(500, b"out of order"), (404, b""), (200, b"<html>")])
def test_a_failure_of_the_service_is_tried_again_with_growing_pauses(slept, bad):
    with Service(bad, bad, GOOD) as service:
        assert values(HTTPScorer([service.url])(REQUEST)) == [1.0, None, 3.0]
    assert len(service.seen) == 3
    assert slept == [1.0, 2.0]


def test_services_take_turns_and_one_that_is_down_is_passed_over():
    with Service(GOOD) as down:
        pass
    with Service(GOOD) as up:
        scorer = HTTPScorer([down.url, up.url])
        assert [values(scorer(REQUEST)) for _ in range(2)] == [[1.0, None, 3.0]] * 2
    assert len(up.seen) == 2


def test_a_service_that_stays_out_of_order_is_an_error_and_never_a_reward(slept):
    with (
        Service((503, b"")) as service,
        pytest.raises(ServiceError, match=f"no answer from the service after {TRIES} tries") as e,
    ):
        HTTPScorer([service.url])(REQUEST)
    assert len(service.seen) == TRIES
    assert str(e.value).count("503") == TRIES
    assert service.url in str(e.value)
    assert slept == [1.0, 2.0, 4.0, 8.0], "nothing is waited for after the last try"


@pytest.mark.parametrize("status", [400, 401, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(status):
    with (
        Service((status, {"error": "label '7' is no problem"})) as service,
        pytest.raises(ServiceError, match=rf"refused the request \({status}\): .*label '7' is no problem"),
    ):
        HTTPScorer([service.url])(REQUEST)
    assert len(service.seen) == 1


def test_the_token_of_the_environment_is_sent_whatever_netrc_says(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv(TOKEN, "a-token-of-some-length")
    with Service(GOOD) as service:
        HTTPScorer([service.url])(REQUEST)
    assert service.authorizations == ["Bearer a-token-of-some-length"]


def test_a_malformed_answer_of_the_service_is_an_error_at_once():
    with Service((200, {"rewards": [1]})) as service, pytest.raises(ValueError, match="1 rewards for 3 completions"):
        HTTPScorer([service.url])(REQUEST)
    assert len(service.seen) == 1
