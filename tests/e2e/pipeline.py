"""Small models, data and rewards, and the command line, for runs of the real stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from openrlhf_maxk.problems.mini.base_model import ModelSettings, new_model, save_model
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

REWARD = """
import hashlib


def reward_func(queries, prompts, labels):
    rewards = [int(hashlib.sha256(query.encode()).hexdigest()[:4], 16) % 5 / 4 for query in queries]
    return {"rewards": rewards}
"""


def make_model(folder: Path, seed: int = 0, initializer_range: float = 0.2) -> Path:
    """An untrained Qwen2 with the mini benchmark's vocabulary, sure enough of itself for rewards to differ."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    settings = ModelSettings(hidden=64, intermediate=128, layers=2, heads=2, key_value_heads=1)
    save_model(new_model(settings, tokenizer, initializer_range=initializer_range), tokenizer, folder)
    return folder


def make_data(file: Path, prompts: int) -> Path:
    """Prompts in the mini benchmark's words."""
    words = ("sorted", "doubled", "evens", "flip")
    lines = [
        {
            "input": f"given integers, {words[i % 4]}, output the sum\nin {i % 9} {i % 7}\nout {i % 5}\n",
            "label": str(i),
            "datasource": "test",
        }
        for i in range(prompts)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def make_reward(file: Path, source: str = REWARD) -> Path:
    """A reward function's file."""
    file.write_text(source)
    return file


def arguments(folder: Path, **changes: object) -> list[str]:
    """Options of a small run in ``folder``; ``changes`` are options with ``__`` for the dot (None: left out)."""
    options: dict[str, object] = {
        "actor.model_name_or_path": folder / "model",
        "data.prompt_dataset": folder / "data.jsonl",
        "data.input_key": "input",
        "data.label_key": "label",
        "data.max_len": 64,
        "reward.remote_url": folder / "reward.py",
        "rollout.n_samples_per_prompt": 4,
        "rollout.batch_size": 8,
        "rollout.micro_batch_size": 16,
        "rollout.max_new_tokens": 12,
        "train.batch_size": 32,
        "train.micro_batch_size": 16,
        "train.max_epochs": 2,
        "actor.adam.lr": 1e-3,
        "actor.lr_scheduler": "constant",
        "actor.lr_warmup_ratio": 0,
        "algo.kl.init_coef": 0,
        "ckpt.output_dir": folder / "out",
        "ckpt.path": folder / "checkpoints",
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    flags = []
    for name, value in options.items():
        if isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        elif value is not None:
            flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


def run(command: list[str], timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this package with this Python, and return what it printed (both streams in stdout)."""
    return subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )


def train(folder: Path, timeout: float = 900, **changes: object) -> subprocess.CompletedProcess[str]:
    """``python -m openrlhf_maxk.cli.train`` on what is in ``folder``."""
    return run(["-m", "openrlhf_maxk.cli.train", *arguments(folder, **changes)], timeout)
