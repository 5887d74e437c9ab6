"""Upstream's learner and ours in one process, on one DeepSpeed engine, with experience for both. No Ray, no vLLM.

What a program must do before: apply the seams (``openrlhf_maxk.install()``), since OpenRLHF is imported here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ray import ppo_actor
from openrlhf.utils import get_strategy

from openrlhf_maxk.cli.train import parse
from openrlhf_maxk.experience.advantages import group_advantages
from openrlhf_maxk.experience.behaviour import unknown
from openrlhf_maxk.experience.group import GROUP, SEQUENCE_ADVANTAGE, K
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.rows.check import OFF
from openrlhf_maxk.upstream import seams

ACTOR_FILE = "openrlhf.trainer.ray.ppo_actor"


@dataclass(frozen=True, slots=True)
class Rollout:
    """The shape of random experience: groups of n completions; lengths in tokens, the same for all prompts."""

    prompts: int
    n: int
    prompt: int
    shortest: int
    longest: int
    vocabulary: int

    @property
    def rows(self) -> int:
        """The number of completions."""
        return self.prompts * self.n


@dataclass(frozen=True, slots=True)
class Learners:
    """Two trainers of one policy."""

    args: Any
    policy: Any
    upstream: Any
    ours: Any
    verdicts: dict[bool, Any] = field(default_factory=lambda: {True: None, False: OFF})  # whether groups are rows

    @classmethod
    def make(cls, model: str, folder: str, *options: str) -> Learners:
        """Both trainers, of one rank.

        Args:
            model: a Hugging Face folder.
            folder: for what a run would write, and for a data file that the options are checked with.
            options: of the training's command line; those given here win.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        _, args = parse(arguments(model, folder, *options))
        args.actor.eps_clip_low_high = (0.2, 0.2)
        strategy = get_strategy(args)
        actor_class = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class
        policy = actor_class.__new__(actor_class)
        policy.init_model_from_pretrained(strategy, model, max_steps=10_000, vllm_engines=None)
        ours = policy.trainer
        ppo_actor.NaiveReplayBuffer = _upstream_buffer(seams.original(f"{ACTOR_FILE}:NaiveReplayBuffer"))
        upstream = seams.original(f"{ACTOR_FILE}:ActorPPOTrainer")(
            strategy,
            policy.actor,
            ema_model=None,
            actor_optim=policy.actor_optim,
            actor_scheduler=policy.actor_scheduler,
            micro_train_batch_size=args.train.micro_batch_size,
            tokenizer=policy.tokenizer,
            vllm_engines=None,
        )
        return cls(args, policy, upstream, ours)

    def experience(
        self, rollout: Rollout, ours: bool, rows: bool | None = None, left_out: bool = False
    ) -> list[Experience]:
        """The same random micro-batches every time, with advantages for our trainer or for upstream's ``group_norm``.

        k is half of a group. The log-probs are those of the policy as it is, of groups as rows (by default: if ours) or
        padded, and so are they computed until this is called again. ``left_out``: after the first time they are left to
        the learner, for those who only want to know how long it takes.
        """
        rows = ours if rows is None else rows
        self.policy.actor.rows = self.verdicts[rows]
        sequences, action_mask, attention_mask = random_rows(rollout)
        random = torch.Generator().manual_seed(1)
        rewards = torch.randint(0, 9, (rollout.rows,), generator=random) / 8
        groups, ks = torch.arange(rollout.rows) // rollout.n, torch.full((rollout.rows,), rollout.n // 2)
        if ours:
            values = group_advantages(groups, rewards, None, ks, options_of(self.args)).values
        else:
            grouped = rewards.view(rollout.prompts, rollout.n)
            values = ((grouped - grouped.mean(-1, keepdim=True)) / (grouped.std(-1, keepdim=True) + 1e-9)).view(-1)
        left_out = left_out and self.verdicts[rows] is not None
        batches = []
        for part in torch.arange(rollout.rows).split(self.args.train.micro_batch_size):
            if left_out:
                log_probs = unknown(action_mask[part])
            else:
                log_probs = self.policy.forward(sequences[part], action_mask[part], attention_mask[part])
            info = {"reward": rewards[part]}
            if ours:
                info |= {GROUP: groups[part], K: ks[part], SEQUENCE_ADVANTAGE: values[part]}
            batches.append(
                Experience(
                    sequences=sequences[part],
                    attention_mask=attention_mask[part],
                    action_mask=action_mask[part],
                    action_log_probs=log_probs,
                    base_action_log_probs=torch.full_like(log_probs, -1.0) if left_out else log_probs,
                    advantages=values[part, None] * action_mask[part],
                    returns=values[part, None] * action_mask[part],
                    rewards=rewards[part],
                    response_length=action_mask[part].sum(-1),
                    truncated=torch.zeros(len(part)),
                    total_length=attention_mask[part].sum(-1).float(),
                    info=info,
                )
            )
        self.verdicts[rows] = self.policy.actor.rows
        return batches

    def update(
        self,
        trainer: Any,
        rollout: Rollout,
        timed: Callable[[Callable[[], Any]], float],
        rows: bool | None = None,
    ) -> float:
        """What ``timed`` says of one PPO update with fresh experience."""
        for batch in self.experience(rollout, trainer is self.ours, rows):
            trainer.replay_buffer.append(batch)
        try:
            return timed(lambda: trainer.ppo_train(0.01))
        finally:
            trainer.replay_buffer.clear()


def arguments(model: str, folder: str, *options: str) -> list[str]:
    """The training's command line; see :meth:`Learners.make`."""
    data = Path(folder, "data.jsonl")
    data.write_text('{"input": "x"}\n')
    return [
        *("--actor.model_name_or_path", model, "--data.prompt_dataset", str(data)),
        *("--reward.remote_url", "http://unused", "--ckpt.output_dir", folder, "--ckpt.path", folder),
        *("--actor.num_gpus_per_node", "1", "--ref.num_gpus_per_node", "1", "--actor.adam.lr", "1e-6"),
        *("--algo.kl.use_loss", "--algo.kl.estimator", "k3"),
        *options,
    ]


def random_rows(rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (rows, T), action mask (rows, T − 1) and attention mask (rows, T), the same every time.

    Groups share their prompt. Nothing is wider than the longest completion of all.
    """
    random = torch.Generator().manual_seed(0)
    width = rollout.prompt + rollout.longest
    asked = torch.randint(4, rollout.vocabulary, (rollout.prompts, rollout.prompt), generator=random)
    answered = torch.randint(4, rollout.vocabulary, (rollout.rows, rollout.longest), generator=random)
    sequences = torch.cat([asked.repeat_interleave(rollout.n, 0), answered], dim=1)
    lengths = torch.randint(rollout.shortest, rollout.longest + 1, (rollout.rows, 1), generator=random)
    position = torch.arange(width - 1)
    action_mask = (position >= rollout.prompt - 1) & (position < rollout.prompt - 1 + lengths)
    attention_mask = (torch.arange(width) < rollout.prompt + lengths).long()
    return sequences, action_mask, attention_mask


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Time both in turn, after a round that does not count; who goes first changes every round."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        pair = [(0, first), (1, second)]
        for index, timed in pair if i % 2 else reversed(pair):
            seconds = timed()
            if i:
                times[index].append(seconds)
    return times


def _upstream_buffer(naive: Any) -> Any:
    """Upstream's buffer, made without asking for a CUDA device where there is none."""

    class CPUBuffer(naive):
        def __init__(self, sample_batch_size: int, *_: Any) -> None:
            self.sample_batch_size = sample_batch_size
            self.limit, self.cpu_offload, self.packing_samples, self.dynamic_batch = 0, True, False, False
            self.target_device = torch.device(torch.cuda.current_device())
            self.items = []

    return naive if torch.cuda.is_available() else CPUBuffer
