"""Data that steps do not divide, on two real ranks: all of it is trained on, and resumed runs take the same steps."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch

from . import pipeline
from .test_runs import gone

pytestmark = pytest.mark.slow

BATCH = 8
REWARD = """
import fcntl


def reward_func(queries, prompts, labels):
    with open({file!r}, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(labels[0] + "\\n")
    even = int(labels[0]) % 2 == 0
    return {{"rewards": [float(even and i % 2) for i in range(len(labels))]}}
"""


def make(folder: Path, prompts: int) -> Path:
    """A run whose rewards say which prompts were asked, and have signal for even labels only."""
    folder.mkdir()
    pipeline.make_model(folder / "model")
    pipeline.make_data(folder / "data.jsonl", prompts)
    pipeline.make_reward(folder / "reward.py", REWARD.format(file=str(folder / "asked")))
    return folder


def options(**changes: object) -> dict[str, object]:
    return {"actor__num_gpus_per_node": 2, "rollout__batch_size": BATCH, "train__max_epochs": 1, **changes}


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().split()


def steps_in(text: str) -> list[int]:
    lines = [line for line in text.splitlines() if line.startswith("step ") and "checkpoint" not in line]
    return [int(line.split()[1]) for line in lines]


def consumed(folder: Path, step: int) -> int:
    """The prompts used up to the end of a step, from its checkpoint."""
    file = folder / "checkpoints" / "_actor" / f"global_step{step}" / "mp_rank_00_model_states.pt"
    return torch.load(file, weights_only=False)["total_consumed_prompts"]


def in_steps(labels: list[str], ends: list[int]) -> list[list[str]]:
    """What was asked in each step, sorted: prompts of a step come in any order."""
    return [sorted(labels[start:end]) for start, end in pairwise([0, *ends])]


def run_until(command: list[str], line: str) -> str:
    """Run it, kill it (all of it) when it prints a line, and return what it has printed."""
    text = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            text += printed
            if line in printed:
                break
        engines = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    gone([child.pid for child in engines])
    return text


def test_one_group_for_two_ranks(tmp_path):
    folder = make(tmp_path / "run", 9)
    done = pipeline.train(folder, **options())
    assert done.returncode == 0, done.stdout[-4000:]
    assert steps_in(done.stdout) == [1, 2]
    assert sorted(asked(folder), key=int) == [str(i) for i in range(9)]
    assert (folder / "out" / "model.safetensors").is_file()


FILTERING = {
    "algo__dynamic_filtering_enable": True,
    "rollout__batch_size": 2,
    "train__batch_size": 8,
    "train__micro_batch_size": 4,
    "rollout__micro_batch_size": 4,
    "train__num_episodes": 1,
}


@pytest.mark.parametrize("more", [{}, FILTERING], ids=["all", "filtered"])
def test_killed_after_each_step_in_turn(tmp_path, more):
    """The same number of steps, and in each the same prompts, as a run that nobody disturbed."""
    changes = {"ckpt__save_steps": 1, "ckpt__load_enable": True, "ckpt__max_num": 20, "train__num_episodes": 2, **more}
    whole = make(tmp_path / "whole", 11)
    done = pipeline.train(whole, **options(**changes))
    assert done.returncode == 0, done.stdout[-4000:]
    steps = steps_in(done.stdout)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 3
    expected = in_steps(asked(whole), [consumed(whole, step) for step in steps])

    folder = make(tmp_path / "killed", 11)
    command = [sys.executable, "-m", "openrlhf_maxk.cli.train", *pipeline.arguments(folder, **options(**changes))]
    ends = []
    for step in steps:
        text = run_until(command, f"step {step}: checkpoint saved")
        assert steps_in(text) == [step], text
        ends.append(consumed(folder, step))
        kept = asked(folder)[: ends[-1]]  # the next step has begun to ask
        (folder / "asked").write_text("".join(label + "\n" for label in kept))
    assert in_steps(asked(folder), ends) == expected
    done = pipeline.train(folder, **options(**changes))
    assert done.returncode == 0, done.stdout[-4000:]
    assert steps_in(done.stdout) == [], "an undisturbed run has no more steps"
    assert (folder / "out" / "model.safetensors").is_file()
