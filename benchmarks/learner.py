"""The learner's step against OpenRLHF's own, on the same groups: seconds, tokens a second and peak memory.

    python benchmarks/learner.py                                   # the embedded benchmark's shapes, and a grid
    python benchmarks/learner.py --shapes 512x64x32 --vocabulary 32000 --rounds 3

A step is what the learner does with a rollout: log-probs of the policy as it was, then PPO epochs. OpenRLHF's
``ActorPPOTrainer`` with ``group_norm`` advantages and ours with ``offpolicy_bon`` take it in turn, on one DeepSpeed
engine. A shape is PROMPTxCOMPLETIONxN: prompts have that length, completions a quarter to all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        from openrlhf_maxk.cli.train import parse
        from openrlhf_maxk.upstream import seams

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
        os.environ["LOCAL_RANK"] = "0"
        model = make_model(Path(folder, "model"), options)
        data = Path(folder, "data.jsonl")
        data.write_text('{"input": "x"}\n')
        _, self.args = parse(
            [
                *("--actor.model_name_or_path", model, "--data.prompt_dataset", str(data)),
                *("--reward.remote_url", "http://unused", "--rollout.n_samples_per_prompt", "8"),
                *("--rollout.batch_size", "32", "--train.batch_size", "256", "--train.micro_batch_size", "256"),
                *("--train.max_epochs", str(EPOCHS), "--actor.adam.lr", "1e-6", "--actor.entropy_coef", "0"),
                *("--algo.kl.use_loss", "--algo.kl.estimator", "k3", "--data.max_len", "4096"),
                *("--ckpt.output_dir", folder, "--ckpt.path", folder),
            ]
        )
        self.args.actor.eps_clip_low_high = (0.2, 0.2)
        from openrlhf.trainer.ray import ppo_actor
        from openrlhf.utils import get_strategy

        self.strategy = get_strategy(self.args)
        actor_class = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class
        policy = self.policy = actor_class.__new__(actor_class)
        policy.init_model_from_pretrained(self.strategy, model, max_steps=10_000, vllm_engines=None)
        self.ours = policy.trainer
        naive = seams.original("openrlhf.trainer.ray.ppo_actor:NaiveReplayBuffer")
        ppo_actor.NaiveReplayBuffer = upstream_buffer(naive)
        self.upstream = seams.original("openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer")(
            self.strategy,
            policy.actor,
            ema_model=None,
            actor_optim=policy.actor_optim,
            actor_scheduler=policy.actor_scheduler,
            micro_train_batch_size=256,
            tokenizer=policy.tokenizer,
            vllm_engines=None,
        )
        self.rounds = options.rounds

    def row(self, shape: Shape) -> str:
        """Both steps in turn, after a round that does not count; who goes first changes every round."""
        self._fit(shape)
        runs: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        tokens = 0
        for index in range(self.rounds + 1):
            for ours in (True, False) if index % 2 else (False, True):
                seconds, memory, tokens = self._step(shape, ours)
                if index:
                    runs[ours].append((seconds, memory))
        (theirs, peak), (mine, less) = (
            (statistics.median(s for s, _ in run), max(m for _, m in run)) for run in runs.values()
        )
        faster = statistics.median(a / b for (a, _), (b, _) in zip(runs[False], runs[True], strict=True))
        return (
            f"| {shape.prompt}, ≤ {shape.completion}, {shape.n} | {shape.groups} | {theirs:.2f} | {mine:.2f} "
            f"| {faster:.2f} | {EPOCHS * tokens / mine:.0f} | {peak:.0f} | {less:.0f} | {less / max(peak, 1e-9):.2f} |"
        )

    def _fit(self, shape: Shape) -> None:
        """The sizes of a run with this shape: one optimizer step an epoch."""
        micro = shape.micro
        self.args.rollout.n_samples_per_prompt = shape.n
        self.args.train.batch_size, self.args.train.micro_batch_size = shape.groups * shape.n, micro
        accumulated = shape.groups * shape.n // micro
        self.strategy.accumulated_gradient = accumulated
        self.policy.actor.model._config.gradient_accumulation_steps = accumulated
        self.policy.actor.model.micro_steps = 0
        self.upstream.replay_buffer.sample_batch_size = micro

    def _step(self, shape: Shape, ours: bool) -> tuple[float, float, int]:
        """Seconds, the memory that it took at its peak over what was there before, and the tokens of completions."""
        from openrlhf_maxk.rows.check import OFF, Verdict

        trainer = self.ours if ours else self.upstream
        self.policy.actor.rows = Verdict(True, "") if ours else OFF
        batches = make_batches(shape, len(self.policy.tokenizer), ours)
        before = start_peak()
        started = time.perf_counter()
        for batch in batches:
            log_probs = self.policy.forward(batch.sequences, batch.action_mask, batch.attention_mask)
            batch.action_log_probs = batch.base_action_log_probs = log_probs
            trainer.replay_buffer.append(batch)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):  # progress bars
            trainer.ppo_train(0.01)
        seconds = time.perf_counter() - started
        trainer.replay_buffer.clear()
        return seconds, peak() - before, sum(int(batch.action_mask.sum()) for batch in batches)


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


def upstream_buffer(naive: Any) -> Any:
    """Upstream's buffer, made without asking for a CUDA device."""
    import torch

    class CPUBuffer(naive):
        def __init__(self, sample_batch_size: int, *_: Any) -> None:
            self.sample_batch_size = sample_batch_size
            self.limit, self.cpu_offload, self.packing_samples, self.dynamic_batch = 0, True, False, False
            self.target_device = torch.device(torch.cuda.current_device())
            self.items = []

    return naive if torch.cuda.is_available() else CPUBuffer


def make_batches(shape: Shape, vocabulary: int, ours: bool) -> list[Any]:
    """The same random groups every time, with either kind of advantages."""
    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    from openrlhf_maxk.experience.advantages import group_advantages
    from openrlhf_maxk.experience.group import GROUP, SEQUENCE_ADVANTAGE, K
    from openrlhf_maxk.options.maxk import MaxKOptions

    random = torch.Generator().manual_seed(0)
    samples, width = shape.groups * shape.n, shape.prompt + shape.completion
    prompts = torch.full((samples, 1), shape.prompt)
    lengths = torch.randint((shape.completion + 3) // 4, shape.completion + 1, (samples, 1), generator=random)
    place = torch.arange(width)
    asked = torch.randint(4, vocabulary, (shape.groups, width), generator=random).repeat_interleave(shape.n, 0)
    answered = torch.randint(4, vocabulary, (samples, width), generator=random)
    attention_mask = (place < prompts + lengths).long()
    sequences = torch.where(place < prompts, asked, answered) * attention_mask
    action_mask = ((place >= prompts) & (place < prompts + lengths))[:, 1:]
    rewards = torch.randint(0, 9, (samples,), generator=random) / 8
    groups, ks = torch.arange(samples) // shape.n, torch.full((samples,), max(shape.n // 2, 1))
    if ours:
        values = group_advantages(groups, rewards, None, ks, MaxKOptions()).values
    else:
        grouped = rewards.view(-1, shape.n)
        values = ((grouped - grouped.mean(-1, keepdim=True)) / (grouped.std(-1, keepdim=True) + 1e-9)).view(-1)
    batches = []
    for part in torch.arange(samples).split(shape.micro):
        longest = int((prompts + lengths)[part].max())
        info = {"reward": rewards[part]}
        if ours:
            info |= {GROUP: groups[part], K: ks[part], SEQUENCE_ADVANTAGE: values[part]}
        actions = action_mask[part, : longest - 1]
        batches.append(
            Experience(
                sequences=sequences[part, :longest],
                attention_mask=attention_mask[part, :longest],
                action_mask=actions,
                advantages=values[part, None] * actions,
                returns=values[part, None] * actions,
                rewards=rewards[part],
                response_length=lengths[part, 0],
                truncated=torch.zeros(len(part)),
                total_length=(prompts + lengths)[part, 0].float(),
                info=info,
            )
        )
    return batches


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
