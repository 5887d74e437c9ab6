"""The base model: a tiny Qwen2, trained from scratch on demonstrations in about a minute."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from openrlhf_maxk.problems.mini.benchmarks import PROGRAMS, Benchmark
from openrlhf_maxk.problems.mini.demonstrations import Demonstration
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

_SHARDS = 4


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the base model depends on."""

    seed: int = 0
    steps: int = 400
    batch: int = 64
    learning_rate: float = 4e-3
    warmup: int = 50
    hidden: int = 128
    layers: int = 3
    heads: int = 4  # of size 32: the smallest that vLLM's CPU attention takes
    key_value_heads: int = 2
    intermediate: int = 256


def train_base_model(
    folder: Path, settings: ModelSettings, threads: int | None = None, benchmark: Benchmark = PROGRAMS
) -> dict[str, Any]:
    """Train, and write model and tokenizer as a Hugging Face folder, in bfloat16.

    The same settings give the same model on the same machine, however many threads there are.

    Args:
        folder: is there, and empty.
        threads: how many work on a batch, at most; all cores if not given.

    Returns:
        What there is to tell: the number of parameters, losses in nats a token, seconds.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    tokenizer = build_tokenizer(benchmark.vocabulary())
    torch.manual_seed(settings.seed)
    model = new_model(settings, tokenizer)
    examples = benchmark.demonstrations(settings.seed)
    losses = _train(model, tokenizer, examples, settings, threads or len(os.sched_getaffinity(0)))
    save_model(model, tokenizer, folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_loss": round(losses[0], 4),
        "last_loss": round(sum(losses[-20:]) / len(losses[-20:]), 4),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def new_model(settings: ModelSettings, tokenizer: Qwen2Tokenizer, **changes: Any) -> Qwen2ForCausalLM:
    """An untrained model in float32; ``changes`` are fields of its configuration."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.update(changes)
    return Qwen2ForCausalLM(config)


def save_model(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write model and tokenizer as a Hugging Face folder, in bfloat16."""
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def _train(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    examples: Iterator[Demonstration],
    settings: ModelSettings,
    threads: int,
) -> list[float]:
    """Returns the loss of every step."""
    from tqdm import tqdm

    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    losses: list[float] = []
    model.train()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads inside an operation wait for each other, very long on a busy machine
    try:
        with ThreadPoolExecutor(min(threads, _SHARDS)) as workers:
            for _ in tqdm(range(settings.steps), desc="base model", unit="step", mininterval=0.5):
                batch = _encode(tokenizer, islice(examples, settings.batch))
                loss, gradients = _loss_and_gradients(model, batch, workers)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss)
    finally:
        torch.set_num_threads(threads_before)
    return losses


def _rate(step: int, settings: ModelSettings) -> float:
    return min((step + 1) / settings.warmup, 1 - step / settings.steps)


@dataclass(frozen=True, slots=True)
class _Row:
    ids: list[int]
    prompt: int  # so many of them are given, the others are to be predicted


def _encode(tokenizer: Qwen2Tokenizer, batch: Iterator[Demonstration]) -> list[_Row]:
    pairs = [(d.prompt, d.completion) for d in batch]
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    completions = tokenizer([completion for _, completion in pairs])["input_ids"]
    eos = tokenizer.eos_token_id
    return [_Row([*p, *c, eos], len(p)) for p, c in zip(prompts, completions, strict=True)]


def _loss_and_gradients(
    model: Qwen2ForCausalLM, rows: Sequence[_Row], workers: Executor
) -> tuple[float, tuple[Tensor, ...]]:
    """Mean loss of the predicted tokens, and its gradients; always summed over the same shards in the same order."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    size = -(-len(rows) // _SHARDS)
    shards = [rows[i : i + size] for i in range(0, len(rows), size)]
    parameters = list(model.parameters())
    tokens = sum(len(row.ids) - row.prompt for row in rows)

    def work(shard: Sequence[_Row]) -> tuple[float, tuple[Tensor, ...]]:
        loss = _summed_loss(model, shard) / tokens
        return loss.item(), torch.autograd.grad(loss, parameters)

    results = list(workers.map(work, shards))
    gradients = tuple(torch.stack(parts).sum(0) for parts in zip(*(g for _, g in results), strict=True))
    return sum(loss for loss, _ in results), gradients


def _summed_loss(model: Qwen2ForCausalLM, rows: Sequence[_Row]) -> Tensor:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    predicted = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        predicted[i, row.prompt : len(row.ids)] = True
    # Padding is on the right, where causal attention never looks from: no mask is needed.
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = predicted[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted], reduction="sum")
