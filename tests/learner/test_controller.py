"""The controller of a run around a made-up OpenRLHF: k as the schedule says, steps counted, checkpoints that go on."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from openrlhf.utils.logging_utils import WandbLogger

from openrlhf_maxk.console import CONSOLE
from openrlhf_maxk.experience.maker import GroupExperience
from openrlhf_maxk.learner import controller as controller_module
from openrlhf_maxk.learner.controller import GroupController
from openrlhf_maxk.learner.schedule import optimizer_steps_of_run, progress
from openrlhf_maxk.options.maxk import KSchedule, MaxKOptions
from openrlhf_maxk.rewards.scoring.health import Ailment
from openrlhf_maxk.rollout.sampler import RolloutCounts

from .learning import make_arguments

N, BATCH = 8, 4


class News:
    """The follower's end of the console."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def put_nowait(self, event: tuple[str, dict[str, Any]]) -> None:
        self.events.append(event)


class Upstream:
    """What the controller needs of OpenRLHF's: data, a sampler, an experience maker, and what it calls."""

    def __init__(
        self, pretrain: str, strategy: Any, prompts: int, states: dict[str, Any], status: dict[str, Any]
    ) -> None:
        self.args = strategy.args
        self.prompts_dataloader, self.eval_dataloader, self.wandb_logger = range(prompts), None, None
        self.order = torch.randperm(100).tolist()  # as upstream's data loader draws it
        self.samples_generator = SimpleNamespace(consumed=0, k=None, is_exhausted=False, counts=RolloutCounts())
        self.experience_maker: Any = object.__new__(GroupExperience)
        self.experience_maker.args, self.experience_maker.maxk = self.args, MaxKOptions(k=KSchedule(8, 1))
        self.states, self.status, self.saved = states, status, []

    def fit(self, global_step: int) -> None:
        pass

    def init_checkpoint_states(self) -> dict[str, Any]:
        return self.states

    def train_step(self, rollout_samples: Any, global_step: int) -> tuple[dict[str, Any], int]:
        return dict(self.status), global_step + 1

    def save_logs_and_checkpoints(self, global_step: int, logs_dict: Any = None, client_states: Any = None) -> None:
        self.saved.append(client_states)


class Controller(GroupController, Upstream):
    pass


NEW = {"global_step": 0, "total_consumed_prompts": 0}


def make(prompts: int, episodes: int = 1, states: Any = NEW, status: Any = None, **changes: object) -> tuple[Any, News]:
    args = make_arguments(N, BATCH * N, N, **changes)
    args.train.num_episodes, args.rollout.batch_size = episodes, BATCH
    args.ckpt = SimpleNamespace(best_metric_key="", save_steps=math.inf)
    args.eval = SimpleNamespace(n_samples_per_prompt=1)
    news = News()
    setattr(args.maxk, CONSOLE, news)
    made = Controller("model", SimpleNamespace(args=args), prompts, states, status or {})
    return made, news


def ks(controller: Any, uses: list[int]) -> list[int]:
    """The k of each step when the steps use so many prompts; sampler and experience maker must agree on it."""
    controller.init_checkpoint_states()
    found, step = [], controller.states["global_step"]
    for used in uses:
        assert controller.samples_generator.k == controller.experience_maker.k
        found.append(controller.samples_generator.k)
        controller.samples_generator.consumed += used
        _, step = controller.train_step([], step)
    return found


def test_k_goes_from_the_first_to_the_last():
    assert ks(make(32)[0], [4] * 8) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_k_follows_the_prompts_where_half_of_the_groups_are_filtered():
    assert ks(make(64)[0], [8] * 8) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_k_of_several_episodes_and_a_smaller_step():
    assert ks(make(6, episodes=2)[0], [4, 2, 4, 2])[::3] == [8, 1]


def test_k_goes_on_where_a_resumed_run_was():
    states = {"global_step": 4, "total_consumed_prompts": 16}
    assert ks(make(32, states=states)[0], [4] * 4) == [4, 3, 2, 1]


def test_the_policys_entropy_has_one_name_whoever_computes_it():
    made, _ = make(8, status={"maxk/policy_entropy": 0.5, "maxk/rows": 1.0})
    assert made.experience_maker.learner_knows
    assert made.train_step([], 0)[0] == {"rollout/policy_entropy": 0.5, "maxk/rows": 1.0}


@pytest.mark.parametrize(("prompts", "episodes", "steps"), [(8, 1, 2), (9, 1, 3), (3, 2, 2), (11, 3, 9)])
def test_the_last_smaller_step_of_an_episode_counts(prompts, episodes, steps):
    made, news = make(prompts, episodes)
    assert made.total_steps == steps
    assert not news.events


def test_the_learning_rate_is_told_of_every_optimizer_step():
    # 9 prompts in batches of 4: two steps of two optimizer steps each, and one of a single group.
    assert optimizer_steps_of_run(9, 4, 8, 16, 1, epochs=3, episodes=2) == 2 * 3 * (2 * 2 + 1)
    assert optimizer_steps_of_run(3, 4, 8, 32, 2, epochs=1, episodes=1) == 1
    made, _ = make(9, episodes=2, train__batch_size=16, train__max_epochs=3)
    made.args.train.num_episodes, made.args.train.batch_size = 2, 16
    assert made.get_max_steps() == 30


@pytest.mark.parametrize("exhausted", [True, False])
def test_a_checkpoint_of_the_last_step_of_an_episode_goes_on_with_the_next(exhausted):
    made, _ = make(11)
    made.samples_generator.is_exhausted = exhausted
    states = {"episode": 1, "global_step": 3}
    made.save_logs_and_checkpoints(3, {}, states)
    assert made.saved == [{"episode": 2 if exhausted else 1, "global_step": 3}]
    assert states["episode"] == 1 + exhausted, "the best checkpoint is saved with the same states"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"maxk/clipped_positive": 0.008, "maxk/clipped_negative": 0.004}, "the clip silences 1.2% of the tokens"),
        ({"maxk/clipped_positive": 0.009}, None),
        ({"maxk/ratio_fallback": 0.25}, "the ratios of 25.0% of the completions say too little"),
        ({"maxk/ratio_fallback": 0.0}, None),
        ({}, None),
    ],
)
def test_what_makes_the_gradient_another_one_is_said_once(status, said, monkeypatch):
    logged: list[str] = []
    monkeypatch.setattr(controller_module, "logger", SimpleNamespace(warning=logged.append))
    made, news = make(32, status=status)
    for step in range(3):
        made.train_step([], step)
    told = [content["text"] for event, content in news.events if event == "warning"]
    assert told == logged
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


@pytest.mark.parametrize(("k", "said"), [("64", True), (f"{N}:64", True), (f"{N}", False), (None, False)])
def test_a_k_beyond_the_group_is_said_at_the_start(k, said, monkeypatch):
    logged: list[str] = []
    monkeypatch.setattr(controller_module, "logger", SimpleNamespace(warning=logged.append))
    made, news = make(32)
    made.maxk = MaxKOptions.make(k=k, k_beyond_n="nearest")
    made.fit()
    assert [event for event, _ in news.events] == ["start"] + ["warning"] * said
    assert len(logged) == said
    assert not said or f"--maxk.k {k} is beyond the {N} completions of a group" in logged[0]
    assert not said or f"k = {N} is trained for in its place" in logged[0]


def test_the_seed_decides_the_order_of_the_data():
    orders = [make(8, train__seed=seed)[0].order for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_progress_by_hand():
    assert progress(0, 0, 64, 4) == 0
    assert progress(16, 4, 32, 4) == pytest.approx(16 / 28)
    assert progress(16, 2, 32, 4) == pytest.approx(16 / 24), "a step uses eight: the third of four"
    assert progress(8, 1, 8, 8) == 1


def warnings_of(news: News) -> list[str]:
    return [content["text"] for event, content in news.events if event == "warning"]


def test_many_samples_that_no_test_has_a_say_in_are_said_once_with_an_example():
    made, news = make(32, status={"reward/no_program": 0.2, "reward/not_compiled": 0.35, "reward/crashed_at_once": 0.0})
    made.samples_generator.counts.ailing[Ailment.NOT_COMPILED] = "def f(:\n<|im_end|>"
    for step in range(3):
        made.train_step([], step)
    assert len(warnings_of(news)) == 1
    assert warnings_of(news)[0].startswith("step 1: 55% of the completions get nothing")
    assert "that do not compile, such as 'def f(:\\n<|im_end|>'" in warnings_of(news)[0]


def test_few_of_them_are_left_to_the_metrics():
    made, news = make(32, status={"reward/no_program": 0.5})
    made.train_step([], 0)
    assert warnings_of(news) == []


def test_a_metric_has_one_name():
    made, _ = make(32, status={"reward": 1.0, "response_length": 2.0, "truncated": 0.0, "rollout/reward_mean": 1.0})
    assert made.train_step([], 0)[0] == {"rollout/reward_mean": 1.0}


def test_evaluations_are_drawn_over_the_steps_in_wandb(monkeypatch):
    """OpenRLHF's own logger, whose last word on ``eval/*`` must be a metric that it logs."""
    steps: dict[str, str | None] = {}
    logged: set[str] = set()
    wandb = SimpleNamespace(
        api=SimpleNamespace(api_key="x"),
        init=lambda **_: None,
        Table=lambda **_: None,
        define_metric=lambda name, step_metric=None, **_: steps.update({name: step_metric}),
        log=logged.update,
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    names = {"key": "x", "org": None, "project": "p", "group": None, "run_name": "r"}
    logger = WandbLogger(SimpleNamespace(logger=SimpleNamespace(wandb=SimpleNamespace(**names))))
    controller_module._draw_evaluations_over_steps(logger.handle)
    logger.log_eval(3, {"eval_x_max@2": 0.5})
    assert steps["eval/*"] in logged
