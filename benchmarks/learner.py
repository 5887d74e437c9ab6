"""The learner's step against OpenRLHF's own, on the same groups: seconds, tokens a second and peak memory.

    python benchmarks/learner.py                                   # the embedded benchmark's shapes, and a grid
    python benchmarks/learner.py --shapes 512x64x32 --vocabulary 32000 --rounds 3

A step is what the learner does with a rollout: log-probs of the policy as it was, then PPO epochs. OpenRLHF's
``ActorPPOTrainer`` with ``group_norm`` advantages and ours with ``offpolicy_bon`` take it in turn, on one DeepSpeed
engine. Ours has the log-probs of the first optimizer step from its training pass, as in a run without KL in the reward.
A shape is PROMPTxCOMPLETIONxN: prompts have that length, completions a quarter to all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import openrlhf_maxk

EMBEDDED = "26x24x8"
GRID = "32x32x8 32x128x8 256x32x8 256x128x8 256x128x16 512x64x32 1024x32x8 1024x1024x8 16x32x2 16x128x2"
TOKENS, MICRO = 16384, 8192  # padded tokens of a step, and of a micro-batch, at most (but a group)
EPOCHS = 3


@dataclass(frozen=True)
class Shape:
    """Groups of one kind."""

    prompt: int
    completion: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        return cls(*map(int, text.split("x")))

    @property
    def groups(self) -> int:
        """The groups of a step."""
        return max(2, min(32, TOKENS // (self.n * (self.prompt + self.completion))) // 2 * 2)

    @property
    def micro(self) -> int:
        """The samples of a micro-batch: whole groups."""
        per = max(1, min(self.groups, MICRO // (self.n * (self.prompt + self.completion))))
        return self.n * max(divisor for divisor in range(1, per + 1) if self.groups % divisor == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=[EMBEDDED, *GRID.split()])
    parser.add_argument("--vocabulary", type=int, default=0, help="default: the embedded benchmark's 202 tokens")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each")
    options = parser.parse_args()
    openrlhf_maxk.install()
    print("| prompt, completion, n | groups | OpenRLHF s | ours s | faster | tokens/s | peak MiB | ours | of it |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, options)
        for text in options.shapes:
            print(bench.row(Shape.parse(text)), flush=True)


class Bench:
    """One model on one DeepSpeed engine, with both trainers around it."""

    def __init__(self, folder: str, options: argparse.Namespace) -> None:
        from learners import Learners

        model = make_model(Path(folder, "model"), options)
        self.learners = Learners.make(
            model,
            folder,
            *("--rollout.n_samples_per_prompt", "8", "--rollout.batch_size", "32", "--train.batch_size", "256"),
            *("--train.micro_batch_size", "256", "--train.max_epochs", str(EPOCHS), "--actor.entropy_coef", "0"),
            *("--data.max_len", "4096"),
        )
        self.vocabulary = len(self.learners.policy.tokenizer)
        self.rounds = options.rounds

    def row(self, shape: Shape) -> str:
        """Both steps in turn, after a round that does not count; who goes first changes every round."""
        from learners import alternate

        self._fit(shape)
        peaks = {False: 0.0, True: 0.0}

        def step(ours: bool) -> float:
            seconds, memory = self._step(shape, ours)
            peaks[ours] = max(peaks[ours], memory)
            return seconds

        times = alternate(lambda: step(False), lambda: step(True), self.rounds)
        theirs, mine = map(statistics.median, times)
        faster = statistics.median(a / b for a, b in zip(*times, strict=True))
        tokens = EPOCHS * self.tokens / mine
        return (
            f"| {shape.prompt}, ≤ {shape.completion}, {shape.n} | {shape.groups} | {theirs:.2f} | {mine:.2f} "
            f"| {faster:.2f} | {tokens:.0f} | {peaks[False]:.0f} | {peaks[True]:.0f} "
            f"| {peaks[True] / max(peaks[False], 1e-9):.2f} |"
        )

    def _fit(self, shape: Shape) -> None:
        """The sizes of a run with this shape: one optimizer step an epoch."""
        learners = self.learners
        args, engine = learners.args, learners.policy.actor.model
        args.rollout.n_samples_per_prompt = shape.n
        args.train.batch_size, args.train.micro_batch_size = shape.groups * shape.n, shape.micro
        accumulated = shape.groups * shape.n // shape.micro
        learners.ours.strategy.accumulated_gradient = accumulated
        engine._config.gradient_accumulation_steps = accumulated
        engine.micro_steps = 0
        learners.upstream.replay_buffer.sample_batch_size = shape.micro

    def _step(self, shape: Shape, ours: bool) -> tuple[float, float]:
        """Seconds, and the memory that it took at its peak over what was there before, MiB."""
        from learners import Rollout

        trainer = self.learners.ours if ours else self.learners.upstream
        rollout = Rollout(
            shape.groups,
            shape.n,
            shape.prompt,
            shortest=(shape.completion + 3) // 4,
            longest=shape.completion,
            vocabulary=self.vocabulary,
        )
        before = start_peak()
        started = time.perf_counter()
        batches = self.learners.experience(rollout, ours, left_out=ours)
        for batch in batches:
            trainer.replay_buffer.append(batch)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):  # progress bars
            trainer.ppo_train(0.01)
        seconds = time.perf_counter() - started
        self.tokens = sum(int(batch.action_mask.sum()) for batch in batches)
        trainer.replay_buffer.clear()
        return seconds, peak() - before


def make_model(folder: Path, options: argparse.Namespace) -> str:
    """An untrained Qwen2 with the embedded benchmark's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=options.vocabulary or len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=2 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def start_peak() -> float:
    """Begin a new peak; the memory in use now, MiB."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """The most memory in use since then, MiB."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
