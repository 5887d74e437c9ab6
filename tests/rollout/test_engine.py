"""The rollout actor around a made-up vLLM: what a request asks for, and what its completions become."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from openrlhf.trainer.ray import vllm_engine
from vllm import SamplingParams

from openrlhf_maxk.platform import is_cpu
from openrlhf_maxk.rollout.engine import GroupRollout

from .engines import END, Completion, FakeVLLM, GroupRolloutActor, Tokenizer, log_prob_of_token, make_actor

PROMPT = "gab"  # tokens 9, 3, 4
ENDED: Completion = ([5, 6, END], "stop")
CUT: Completion = ([7, 5, 5, 8], "length")


def answers(llm: FakeVLLM, count: int, prompt: str = PROMPT, max_length: int = 20, **params: Any) -> list[dict]:
    """The responses of the actor to one request, with log-probs unless ``params`` say otherwise."""
    sampling = SamplingParams(**{"max_tokens": 6, "logprobs": 1, **params})
    return asyncio.run(make_actor(llm).generate_responses(prompt, "label", sampling, max_length, Tokenizer(), count))


def test_ray_makes_actors_of_the_mixin_in_front_of_upstreams_class():
    assert issubclass(GroupRolloutActor, GroupRollout)
    assert GroupRolloutActor.update_weight.__module__ == "openrlhf.trainer.ray.vllm_engine"


def test_every_completion_becomes_a_response_of_its_own_tokens():
    ended, cut = answers(FakeVLLM([ENDED, CUT]), 2)
    assert ended == {
        "prompt": "gab",
        "label": "label",
        "images": None,
        "mm_train_inputs": None,
        "observation_tokens": [9, 3, 4, 5, 6, END],
        "action_ranges": [(3, 6)],
        "rollout_log_probs": [0, 0, 0, log_prob_of_token(4, 5), log_prob_of_token(5, 6), log_prob_of_token(6, END)],
        "truncated": False,
        "query": "gabcd$",
        "completion": "cd",
        "reward": None,
        "scores": None,
        "extra_logs": {},
    }
    assert cut["observation_tokens"] == [9, 3, 4, 7, 5, 5, 8]
    assert cut["action_ranges"] == [(3, 7)]
    assert cut["rollout_log_probs"][3:] == [log_prob_of_token(*pair) for pair in [(4, 7), (7, 5), (5, 5), (5, 8)]]
    assert cut["truncated"] is True
    assert (cut["query"], cut["completion"]) == ("gabeccf", "eccf")


def test_completions_that_did_not_come_to_an_end_are_left_out():
    """An aborted one is a part of what the policy would have said: training on it would teach to stop there."""
    unfinished = [([7, 7], reason) for reason in ("abort", "error", None)]
    found = answers(FakeVLLM([unfinished[0], ENDED, *unfinished[1:], ([], "length"), CUT]), 6)
    assert [response["completion"] for response in found] == ["cd", "eccf"]
    assert answers(FakeVLLM(unfinished), 3) == []


def test_a_group_is_one_request_and_the_callers_parameters_stay_as_they_are():
    llm = FakeVLLM([ENDED] * 5)
    sampling = SamplingParams(temperature=0.5, top_p=0.9, max_tokens=6, min_tokens=2)
    before = sampling.clone()
    assert len(asyncio.run(make_actor(llm).generate_responses(PROMPT, "", sampling, 20, Tokenizer(), 5))) == 5
    assert sampling == before
    ((tokens, params),) = llm.requests
    assert tokens == [9, 3, 4], "nothing is added in front of a prompt"
    assert (params.n, params.temperature, params.top_p, params.max_tokens, params.min_tokens) == (5, 0.5, 0.9, 6, 2)


@pytest.mark.parametrize(("stop", "detokenize"), [(None, False), (["x"], True)])
def test_texts_are_made_by_vllm_for_stop_strings_alone(stop, detokenize):
    llm = FakeVLLM([ENDED])
    answers(llm, 1, stop=stop)
    assert llm.requests[0][1].detokenize is detokenize


def test_without_log_probs_there_are_none():
    (response,) = answers(FakeVLLM([ENDED]), 1, logprobs=None)
    assert response["rollout_log_probs"] is None
    assert response["observation_tokens"] == [9, 3, 4, 5, 6, END]


def test_a_prompt_that_is_too_long_loses_its_beginning():
    llm = FakeVLLM([ENDED])
    (response,) = answers(llm, 1, prompt="abcdef", max_length=10)
    assert llm.requests[0][0] == [5, 6, 7, 8]
    assert response["observation_tokens"] == [5, 6, 7, 8, 5, 6, END]
    assert response["action_ranges"] == [(4, 7)]
    assert response["rollout_log_probs"][:5] == [0, 0, 0, 0, log_prob_of_token(8, 5)]
    (response,) = answers(llm, 1, prompt="abcd", max_length=10)
    assert response["observation_tokens"][:4] == [3, 4, 5, 6], "one that just fits is whole"


@pytest.mark.parametrize(("max_length", "room"), [(10, 7), (4, 1)])
def test_without_a_limit_a_completion_may_fill_what_the_prompt_leaves(max_length, room):
    llm = FakeVLLM([ENDED])
    answers(llm, 1, max_length=max_length, max_tokens=None)
    assert llm.requests[0][0] == [9, 3, 4]
    assert llm.requests[0][1].max_tokens == room


# The constructor


@pytest.fixture
def started(monkeypatch) -> dict[str, Any]:
    """The arguments of the engine that an actor starts, and the actor; upstream passes what ``start`` passes."""
    found: dict[str, Any] = {}

    class Engine:
        @staticmethod
        def from_engine_args(arguments: dict) -> Engine:
            found.update(arguments)
            return Engine()

        async def is_sleeping(self) -> bool:
            return False

    made_up = SimpleNamespace(
        __version__="0.12.0", AsyncEngineArgs=lambda **arguments: arguments, AsyncLLMEngine=Engine
    )
    monkeypatch.setattr(vllm_engine, "vllm", made_up)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # as upstream sets it: it is put back afterwards
    return found


def start(**changes: Any) -> Any:
    arguments = {"model": "m", "num_gpus": 1, "enable_prefix_caching": False, "worker_extension_cls": "upstream's"}
    actor = object.__new__(GroupRolloutActor)
    asyncio.run(actor.__init__(**arguments, **changes))
    return actor


def test_log_probs_are_those_of_the_policy_that_samples(started):
    """vLLM's own default is raw: before temperature and top-p, which is no policy that anything was sampled from."""
    start()
    assert started["logprobs_mode"] == "processed_logprobs"


def test_a_groups_prompt_is_prefilled_once(started):
    start()
    assert started["enable_prefix_caching"] is True
    assert started["model"] == "m"


def test_weights_arrive_by_what_the_platform_has(started):
    start()
    cpu = "openrlhf_maxk.cpu.weight_sync.CPUWorkerWrap"
    assert started["worker_extension_cls"] == (cpu if is_cpu() else "upstream's")


def test_rewards_are_left_to_the_reward_pool(started):
    actor = start(remote_rm_url=["http://nowhere"])
    assert actor.executor.reward_endpoints == []
    assert "remote_rm_url" not in started


AGENT = """
from openrlhf.utils.agent import AgentExecutorBase


class AgentExecutor(AgentExecutorBase):
    asked = 0

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        self.asked += 1
        return {"prompt": prompt, "reward": float(self.asked), "images": images}
"""


def test_an_agent_interacts_once_a_sample_and_brings_its_rewards(started, tmp_path):
    (tmp_path / "agent.py").write_text(AGENT)
    actor = start(agent_func_path=str(tmp_path / "agent.py"))
    found = asyncio.run(actor.generate_responses("gab", "", SamplingParams(), 20, Tokenizer(), 3, ["image"]))
    assert sorted(response["reward"] for response in found) == [1, 2, 3]
    assert [(response["prompt"], response["images"]) for response in found] == [("gab", ["image"])] * 3
