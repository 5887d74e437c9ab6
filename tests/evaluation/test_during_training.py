"""``--eval.*``: the estimators of the final evaluation, in OpenRLHF's logs and its choice of the best checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from openrlhf.trainer.ppo_trainer import BasePPOTrainer
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.utils.logging_utils import TensorboardLogger, WandbLogger

from openrlhf_maxk.evaluation.during_training import check_best_metric, compute_eval_metrics
from openrlhf_maxk.evaluation.statistics.scores import Scores
from openrlhf_maxk.experience.group import Group
from openrlhf_maxk.objectives import NO_VOTE, Strategy

LOADER = [  # data sources, prompts, labels, images
    (["mini", "mbpp"], ["a", "b"], ["", ""], [None, None]),
    (["mini"], ["c"], [""], [None]),
]
REWARDS = {"a": [0.0, 0.25, 1.0, 0.5], "b": [1.0, 1.0, 0.0, 0.0], "c": [0.0, 0.0, 0.5]}


def group(number: int, prompt: str, rewards: list[float]) -> Group:
    members = [
        Experience(
            prompts=[prompt],
            rewards=torch.tensor([reward]),
            response_length=torch.tensor([float(i)]),
            truncated=torch.tensor([i == 0]),
            info={},
        )
        for i, reward in enumerate(rewards)
    ]
    return Group(number, members, lost=4 - len(members))


def metrics() -> dict[str, float]:
    groups = [group(i, prompt, rewards) for i, (prompt, rewards) in enumerate(REWARDS.items())]
    return compute_eval_metrics(LOADER, groups, 4)


def test_the_numbers_are_those_of_the_final_evaluation():
    found = metrics()
    sources = {"a": "mini", "b": "mbpp", "c": "mini"}
    for source, scores in Scores.from_groups(REWARDS, sources=sources).by_source().items():
        for metric in ("max", "pass"):
            for k, mean in zip((1, 2, 4), scores.curve(metric, [1, 2, 4]).mean, strict=True):
                assert found[f"eval_{source}_{metric}@{k}"] == pytest.approx(mean, abs=1e-6)
        assert found[f"eval_{source}_pass1"] == found[f"eval_{source}_max@1"]
    assert found["eval_lost_completions"] == 1
    assert found["eval_num_samples"] == 11
    assert found["eval_truncated_rate"] == pytest.approx(3 / 11)
    assert compute_eval_metrics(LOADER, [], 4) == {}


def test_the_best_checkpoint_is_chosen_by_scores_not_by_terms_for_form_or_length():
    """Right programs whose rewards a length penalty has moved below 1."""
    penalised = group(0, "a", [0.99, 0.98, 0.5, 0.4])
    for member, score in zip(penalised.members, [1.0, 1.0, 0.5, 0.0], strict=True):
        member.scores = torch.tensor([score])
    found = compute_eval_metrics(LOADER, [penalised], 4)
    assert found["eval_mini_pass@1"] == 0.5
    assert found["eval_mini_pass@4"] == 1.0
    assert found["eval_mini_pass1"] == pytest.approx(2.5 / 4)
    assert found["eval_mini_max@4"] == pytest.approx(0.99)


def test_a_prompt_with_lost_completions_does_not_count_for_a_k_it_cannot_have():
    assert metrics()["eval_mini_max@4"] == 1.0  # of "a" alone: "c" has three samples
    assert metrics()["eval_mini_max@2"] == pytest.approx(np.mean([(3 * 1 + 2 * 0.5 + 0.25) / 6, 2 / 3 * 0.5]))


def test_the_strategy_is_evaluated_and_can_pick_the_best_checkpoint():
    """By the groups' own strategy; rewards of the selected, of the majority, the worst."""
    rewards, by = [0.0, 0.25, 1.0, 0.5], torch.tensor([3, 0, 1, 2])
    for strategy, chosen_by, value in (
        ("selected", by, 0.0),
        ("vote", torch.tensor([1, 1, 0, NO_VOTE]), 0.125),
        ("min", None, 0.0),
    ):
        members = group(0, "a", rewards).members
        found = compute_eval_metrics(LOADER, [Group(0, members, 0, Strategy.parse(strategy), chosen_by)], 4)
        key = f"eval_mini_{strategy}@4"
        assert found[key] == value
        assert found["eval_mini_max@4"] == 1.0
        check_best_metric(key, LOADER, 4, strategy)
        with pytest.raises(ValueError, match=f"--ckpt.best_metric_key {key} is no metric of the evaluation"):
            check_best_metric(key, LOADER, 4)


class Actors:
    """Stands for the learner ranks; notes which checkpoints they are told to save."""

    def __init__(self):
        self.saved = []

    def async_run_method(self, method_name, **arguments):
        self.saved.append((method_name, arguments["tag"], arguments["metric_key"]))
        return []


@pytest.mark.parametrize(("key", "best"), [("eval_mini_max@4", [1, 3]), ("eval_mini_max@1", [1, 2]), ("none", [])])
def test_any_max_at_k_picks_the_best_checkpoint(key, best, monkeypatch):
    """Upstream's own choice, with metrics of three evaluations: more spread helps max@4, less of it max@1."""
    monkeypatch.setattr("openrlhf.trainer.ppo_trainer.ray.get", lambda answers: answers)
    trainer = object.__new__(BasePPOTrainer)
    trainer.best_eval_metric_key, trainer.best_eval_metric_value = key, float("-inf")
    trainer.actor_model_group, trainer.critic_model_group = Actors(), None
    loader = [(["mini"], ["a"], [""], [None])]
    for step, rewards in enumerate([[0.2, 0.2, 0.2, 0.6], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]], start=1):
        trainer.save_best_checkpoint(compute_eval_metrics(loader, [group(0, "a", rewards)], 4), step)
    assert trainer.actor_model_group.saved == [("save_checkpoint", f"best_global_step{step}", key) for step in best]


def test_they_are_written_to_tensorboard_and_wandb(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = SimpleNamespace(tensorboard_dir=str(tmp_path), wandb=SimpleNamespace(run_name="run"))
    logger = TensorboardLogger(SimpleNamespace(logger=options))
    logger.log_eval(7, metrics())
    logger.close()
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (event,) = events.Scalars("eval/eval_mini_max@2")
    assert (event.step, event.value) == (7, pytest.approx(metrics()["eval_mini_max@2"]))

    logged = {}
    wandb = object.__new__(WandbLogger)
    wandb.handle = SimpleNamespace(log=logged.update)
    wandb.log_eval(7, metrics())
    assert logged["eval/eval_mini_max@2"] == metrics()["eval_mini_max@2"]
    assert logged["eval/global_step"] == 7


@pytest.mark.parametrize("key", ["", "none", "eval_mini_max@4", "eval_mbpp_pass@2", "eval_mini_pass1"])
def test_known_keys_of_the_best_checkpoint(key):
    assert key in ("", "none") or key in metrics()
    check_best_metric(key, LOADER, 4)


@pytest.mark.parametrize("key", ["eval_mini_max@3", "eval_mini_max@8", "eval_other_max@4", "max@4"])
def test_unknown_keys_are_refused_with_those_there_are(key):
    with pytest.raises(ValueError, match=rf"--ckpt.best_metric_key {key} is no metric .*eval_mini_max@4"):
        check_best_metric(key, LOADER, 4)
    with pytest.raises(ValueError, match=r"needs an evaluation: set --eval.dataset"):
        check_best_metric(key, None, 4)
