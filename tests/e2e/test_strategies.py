"""Strategies that go by more than rewards, on the real stack: from the reward workers to gradients and metrics."""

from __future__ import annotations

import pytest

from . import pipeline
from .test_runs import logged

pytestmark = pytest.mark.slow

REWARD = """
import hashlib


def number(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:4], 16)


def reward_func(queries, prompts, labels):
    numbers = [number(query) for query in queries]
    return {
        "rewards": [n % 5 / 4 for n in numbers],
        "scores": [n % 7 / 6 for n in numbers],
        "keys": [None if n % 4 == 3 else f"answer {n % 4}" for n in numbers],
    }
"""


@pytest.mark.parametrize("strategy", ["selected", "vote"])
def test_selection_and_votes_are_trained_and_measured(tmp_path, strategy):
    """One step of cut groups, and an evaluation that picks the best checkpoint by the strategy."""
    pipeline.make_model(tmp_path / "model")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    pipeline.make_reward(tmp_path / "reward.py", REWARD)
    done = pipeline.train(
        tmp_path,
        maxk__strategy=strategy,
        maxk__k=2,
        maxk__baseline="leave_one_out",
        train__micro_batch_size=2,  # groups are cut
        eval__dataset=tmp_path / "data.jsonl",
        eval__steps=1,
        eval__n_samples_per_prompt=4,
        ckpt__best_metric_key=f"eval_test_{strategy}@2",
        logger__tensorboard_dir=tmp_path / "tensorboard",
    )
    assert done.returncode == 0, done.stdout[-4000:]
    scalars = logged(tmp_path / "tensorboard")
    (worth,), (told,) = scalars["train/rollout/worth"], scalars[f"train/rollout/{strategy}@2"]
    assert worth == told
    assert scalars["train/rollout/max@1"][0] <= scalars["train/rollout/max@2"][0]
    assert told < scalars["train/rollout/max@2"][0], "whoever chooses does not see the reward"
    assert scalars["train/rollout/no_signal"][0] < 1
    assert scalars["train/actor_grad_norm"][0] > 0
    assert len(scalars[f"eval/eval_test_{strategy}@2"]) == 1
    assert (tmp_path / "checkpoints" / "_actor" / "best_global_step1").is_dir()
