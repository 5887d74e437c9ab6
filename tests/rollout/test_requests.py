"""What the sampler asks of the engines, and what it counts against it."""

from __future__ import annotations

import pytest

from openrlhf_maxk.rewards.request import Reward

from .test_sampler import Engine, N, Pool, completions_of, make_sampler, prompts


@pytest.mark.parametrize("n", [1, 2, N, 3 * N])
def test_an_evaluation_has_its_own_number_of_samples_and_has_lost_none_by_it(monkeypatch, n):
    """``--eval.n_samples_per_prompt``; what training asks for is no measure of it."""
    engine = Engine()
    made = make_sampler(monkeypatch, [engine], Pool(lambda *_: Reward(0.0)), max_lost=0.0)
    made.eval_dataloader = list(prompts(2))
    groups = made.generate_eval_samples(max_len=64, n_samples_per_prompt=n)
    assert [completions_of(group) for group in groups] == [list(range(n))] * 2
    assert [call["num_samples"] for call in engine.calls] == [n] * 2
    assert [group.lost for group in groups] == [0, 0]
    assert (made.counts.asked, made.counts.lost) == (2 * n, 0)


def test_a_lost_sample_of_an_evaluation_is_counted_against_its_own_number(monkeypatch):
    pool = Pool(lambda number, completion: Reward(None if completion == 5 else 0.0))
    made = make_sampler(monkeypatch, [Engine()], pool)
    made.eval_dataloader = list(prompts(1))
    (group,) = made.generate_eval_samples(max_len=64, n_samples_per_prompt=6)
    assert (group.size, group.lost) == (5, 1)
    assert made.counts.metrics()["rollout/lost_share"] == pytest.approx(1 / 6)


def test_every_choice_of_sampling_reaches_the_engine(monkeypatch):
    engine = Engine()
    made = make_sampler(monkeypatch, [engine], Pool(lambda *_: Reward(0.0)))
    made.prompts_dataloader = list(prompts(1))
    asked = {"temperature": 0.5, "top_p": 0.75, "top_k": 7, "max_new_tokens": 9, "min_new_tokens": 3}
    made.generate_samples(max_len=64, **asked)
    params = engine.calls[0]["sampling_params"]
    found = params.temperature, params.top_p, params.top_k, params.max_tokens, params.min_tokens
    assert found == tuple(asked.values())
