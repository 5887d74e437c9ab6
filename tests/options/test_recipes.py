"""OpenRLHF's own RL scripts start here, or are refused as the guide says, and start with what it gives instead."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from openrlhf.utils.config import hierarchize

from openrlhf_maxk.options import validation
from openrlhf_maxk.options.refusals import machinery
from openrlhf_maxk.options.refusals.rule import defaults
from openrlhf_maxk.options.validation import BadOptions, validate

from ..e2e.pipeline import make_reward
from .recipes import AGENT, RECIPES, REWARD, Options

GUIDE = Path(__file__).parents[2] / "docs" / "reuse.md"

ESTIMATOR, CORRECTION = "algo.advantage.estimator", "algo.advantage.is_correction_level"
RING = {"ds.ring_attn_size", "ds.ring_attn_head_stride"}
# What else is refused, and the options that are given in its place (all that is refused is left out).
REFUSED: dict[str, tuple[set[str], Options]] = {
    "train_dapo_ray_hybrid_engine.sh": ({CORRECTION}, {"maxk.loss": "ppo", CORRECTION: "token"}),
    "train_ppo_ray_hybrid_engine.sh": (
        {"rollout.n_samples_per_prompt", CORRECTION, "ckpt.save_hf"},
        {"rollout.n_samples_per_prompt": 8, "maxk.loss": "ppo", CORRECTION: "token"},
    ),
    "train_ppo_ray_slurm.sh": ({"critic.num_gpus_per_node", "train.colocate_critic_reward"}, {}),
    "train_ppo_with_reward_fn.sh": ({"critic.num_gpus_per_node", "reward.normalize_enable"}, {}),
    "train_prorlv2_math_hybrid_engine.sh": ({ESTIMATOR, CORRECTION}, {"maxk.loss": "ppo", CORRECTION: "token"}),
    "train_reinforce_baseline_hybrid_engine.sh": (
        {ESTIMATOR, CORRECTION, *RING},
        {"maxk.loss": "ppo", CORRECTION: "token"},
    ),
    "train_reinforce_baseline_ray_agent_async.sh": (
        {ESTIMATOR, CORRECTION, *RING, "train.async_enable", "train.partial_rollout_enable"},
        {"maxk.loss": "ppo", CORRECTION: "token"},
    ),
    "train_vlm_math_hybrid_engine.sh": (
        {ESTIMATOR, "data.max_images_per_prompt", "actor.freeze_visual_encoder"},
        {},
    ),
    "train_flash_reinforce_ray_agent_async.sh": (
        {
            *(ESTIMATOR, CORRECTION, "actor.loss_agg_mode", "train.async_enable", "train.async_queue_size"),
            "rollout.n_samples_per_prompt",
        },
        {
            "rollout.n_samples_per_prompt": 8,
            "rollout.vllm_generate_batch_size": 128,
            "train.batch_size": 1024,
            "maxk.behaviour": "rollout",
        },
    ),
}
# These mean nothing without the option that is refused.
WITH_CORRECTION = {"algo.advantage.is_correction_gating", "algo.advantage.is_correction_threshold"}


@pytest.fixture
def refusals(parsers, tmp_path, monkeypatch):
    """The lines that options are refused with on GPUs."""
    (tmp_path / AGENT).write_text("class AgentExecutor: ...\n")
    make_reward(tmp_path / REWARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))
    monkeypatch.setattr(validation, "is_cpu", lambda: False)
    monkeypatch.setattr(machinery, "find_spec", lambda package: package)  # flash-attn is there

    def lines(options: Options) -> list[str]:
        flags = []
        for name, value in options.items():
            values = [] if value is True else value if isinstance(value, list) else [value]
            flags += [f"--{name}", *map(str, values)]
        try:
            validate(hierarchize(parsers[False].parse_args(flags)))
        except BadOptions as error:
            return str(error).splitlines()
        return []

    return lines


def test_the_scripts_are_all_here():
    assert REFUSED.keys() == RECIPES.keys()
    for script, options in RECIPES.items():
        assert options.keys() <= defaults().keys(), script


@pytest.mark.parametrize("script", RECIPES)
def test_what_is_refused_of_a_script(refusals, script):
    found = refusals(RECIPES[script])
    assert {re.match(r"--([\w.]+)", line)[1] for line in found} == REFUSED[script][0], found


@pytest.mark.parametrize("script", RECIPES)
def test_a_script_starts_with_what_is_given_instead(refusals, script):
    refused, instead = REFUSED[script]
    without = refused | (WITH_CORRECTION if CORRECTION in refused - instead.keys() else set())
    kept = {name: value for name, value in RECIPES[script].items() if name not in without}
    assert refusals({**kept, **instead}) == []


@pytest.mark.parametrize("script", RECIPES)
def test_the_guide_says_what_is_refused_and_what_is_given_instead(script):
    (row,) = (line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{script}` |"))
    _, _, refused, instead, _ = row.split("|")
    named = {name for group in re.findall(r"`--([\w.]+(?: --[\w.]+)*)", refused) for name in group.split(" --")}
    assert named == REFUSED[script][0]
    given = {f"--{name} {value}" for name, value in REFUSED[script][1].items()}
    assert {text for text in re.findall(r"`([^`]+)`", instead) if text.startswith("--")} == given
