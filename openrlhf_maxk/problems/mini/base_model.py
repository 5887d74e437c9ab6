"""The base model: a tiny Qwen2, trained from scratch on demonstrations in a minute or two on two cores."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from openrlhf_maxk.problems.mini.demonstrations import Demonstration, demonstrations
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the base model depends on."""

    seed: int = 0
    steps: int = 500
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: int = 50
    faulty: float = 0.4  # share of demonstrations with a mistake
    hidden: int = 128
    layers: int = 3
    heads: int = 4  # of size 32: the smallest that vLLM's CPU attention takes
    key_value_heads: int = 2
    intermediate: int = 256


def train_base_model(folder: Path, settings: ModelSettings, threads: int | None = None) -> dict[str, Any]:
    """Train, and write a Hugging Face folder (bfloat16). Returns what there is to tell: losses and seconds."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    wall, cpu = time.perf_counter(), time.process_time()
    tokenizer = build_tokenizer()
    torch.manual_seed(settings.seed)
    model = _new_model(settings, tokenizer)
    losses = _train(model, tokenizer, settings)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_loss": losses[0],
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def _new_model(settings: ModelSettings, tokenizer) -> Qwen2ForCausalLM:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen2ForCausalLM(config)


def _train(model: Qwen2ForCausalLM, tokenizer, settings: ModelSettings) -> list[float]:
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    examples = demonstrations(settings.seed, settings.faulty)
    losses: list[float] = []
    model.train()
    progress = tqdm(range(settings.steps), desc="base model", unit="step", disable=None)
    for _ in progress:
        loss = _completion_loss(model, *_batch(tokenizer, examples, settings.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


def _rate(step: int, settings: ModelSettings) -> float:
    return min((step + 1) / settings.warmup, 1 - step / settings.steps)


def _batch(tokenizer, examples: Iterator[Demonstration], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right, and which of them are to be predicted: (batch, length), int64 and bool."""
    batch = list(islice(examples, size))
    prompts = tokenizer([d.prompt for d in batch])["input_ids"]
    completions = tokenizer([d.completion for d in batch])["input_ids"]
    length = max(len(p) + len(c) + 1 for p, c in zip(prompts, completions, strict=True))
    ids = torch.full((size, length), tokenizer.pad_token_id)
    predicted = torch.zeros(size, length, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        row = [*prompt, *completion, tokenizer.eos_token_id]
        ids[i, : len(row)] = torch.tensor(row)
        predicted[i, len(prompt) : len(row)] = True
    return ids, predicted


def _completion_loss(model: Qwen2ForCausalLM, ids: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    # Padding is on the right, where causal attention never looks from: no mask is needed.
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = predicted[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted])


def describe(settings: ModelSettings) -> str:
    return json.dumps(asdict(settings), sort_keys=True)
