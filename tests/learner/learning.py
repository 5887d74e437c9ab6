"""A learner around a table of logits: upstream's real training step, and a strategy that does what DeepSpeed does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import torch

import openrlhf_maxk

openrlhf_maxk.install()  # this module is imported by processes of its own too

from openrlhf.trainer.ppo_trainer import RemoteExperienceMaker  # noqa: E402
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer  # noqa: E402

from openrlhf_maxk.experience.behaviour import unknown  # noqa: E402
from openrlhf_maxk.experience.group import Group  # noqa: E402
from openrlhf_maxk.objectives.strategy import Kind  # noqa: E402
from openrlhf_maxk.options.maxk import MaxKOptions  # noqa: E402
from openrlhf_maxk.rows.check import OFF  # noqa: E402

from ..rollouts import PAD, arguments  # noqa: E402

VOCABULARY = 7
K = 2


class Policy(torch.nn.Module):
    """Next-token logits by the last token, in place of a language model; tokens are taken modulo the vocabulary."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(1)
        table = torch.randn(VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
        self.logits = torch.nn.Parameter(table)
        self.passes_without_grad = 0
        self.rows = OFF
        self.at_boundary: bool | None = None  # None: DeepSpeed counts micro-batches

    @property
    def model(self) -> Policy:
        return self

    def set_gradient_accumulation_boundary(self, boundary: bool) -> None:
        self.at_boundary = boundary

    def forward(self, sequences, action_mask, attention_mask=None, return_output=False, **_: Any) -> Any:
        self.passes_without_grad += not torch.is_grad_enabled()
        log_probs = log_probs_of(self.dropout(self.logits), sequences) * action_mask
        return (log_probs, None) if return_output else log_probs


def log_probs_of(logits: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """Log-probs of every token but the first, (B, T − 1)."""
    tokens = sequences % VOCABULARY
    return logits.log_softmax(-1)[tokens[:, :-1], tokens[:, 1:]]


class Strategy:
    """Adds up gradients over micro-batches and ranks as DeepSpeed does, takes plain steps, and keeps what it saw."""

    ring_attn_group = None

    def __init__(self, args: Any) -> None:
        self.args = args
        ranks = args.actor.num_gpus_per_node
        self.accumulated_gradient = args.train.batch_size // args.train.micro_batch_size // ranks
        self.divisor = 1 if args.train.dynamic_batch_enable else self.accumulated_gradient
        self.micro_batches: list[SimpleNamespace] = []  # of the current optimizer step
        self.steps: list[SimpleNamespace] = []

    def is_rank_0(self) -> bool:
        return False  # no progress bar

    def backward(self, loss: torch.Tensor, actor: Policy, optimizer: Any) -> None:
        (loss / self.divisor).backward()

        loss_fn = self.trainer.actor_loss_fn
        self.micro_batches.append(
            SimpleNamespace(
                groups=loss_fn.batch.groups.tolist(),
                on_policy=loss_fn.policy_is_behaviour,
                at_boundary=actor.at_boundary,
            )
        )

    def optimizer_step(self, optimizer: Any, actor: Policy, scheduler: Any, name: str) -> None:
        if actor.at_boundary is None:
            if len(self.micro_batches) < self.accumulated_gradient:
                return
        else:
            *others, last = [batch.at_boundary for batch in self.micro_batches]
            assert last, "upstream takes a step where the buffer says so"
            assert not any(others), "DeepSpeed reduces gradients at each boundary"
        gradient = actor.logits.grad.clone()
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
        self.steps.append(
            SimpleNamespace(
                micro_batches=self.micro_batches,
                groups={g for batch in self.micro_batches for g in batch.groups if g >= 0},
                on_policy=[batch.on_policy for batch in self.micro_batches],
                logits=actor.logits.detach().clone(),
                gradient=gradient,
            )
        )
        with torch.no_grad():
            actor.logits -= self.args.actor.adam.lr * gradient
        actor.logits.grad = None
        self.micro_batches = []

    def get_grad_norm(self, actor: Policy) -> float:
        return 1.25


def make_arguments(n: int, batch: int, micro: int, ranks: int = 1, **changes: object) -> SimpleNamespace:
    """Arguments of a learner; the loss is the score loss without baseline and clamp unless ``changes`` say so."""
    maxk = {field.name: getattr(MaxKOptions(), field.name) for field in fields(MaxKOptions)}
    maxk |= {"k": str(K), "loss": "score", "aggregate": "token", "baseline": "none", "delta_clip": math.inf}
    maxk |= {"min_ess": 0.0}
    options: dict[str, object] = {
        "rollout__n_samples_per_prompt": n,
        "rollout__micro_batch_size": 3,
        "rollout__max_new_tokens": 40,
        "train__batch_size": batch,
        "train__micro_batch_size": micro,
        "train__max_epochs": 2,
        "train__seed": 5,
        "train__dynamic_batch_enable": False,
        "train__max_tokens_per_gpu": 16192,
        "rollout__max_tokens_per_gpu": None,
        "train__colocate_all": False,
        "train__async_enable": False,
        "actor__num_nodes": 1,
        "actor__num_gpus_per_node": ranks,
        "actor__eps_clip_low_high": (0.2, 0.2),
        "actor__dual_clip": None,
        "actor__loss_agg_mode": "token-mean",
        "actor__policy_loss_type": "ppo",
        "actor__aux_loss_coef": 0,
        "actor__entropy_coef": None,
        "actor__adam__lr": 3.0,
        "algo__advantage__estimator": "group_norm",
        "algo__advantage__is_correction_level": "off",
        "algo__advantage__is_correction_mode": "mask",
        "algo__advantage__is_correction_gating": "ratio",
        "algo__advantage__is_correction_threshold": (0.5, 5.0),
        "algo__kl__use_loss": False,
        "algo__kl__init_coef": 0.0,
        "algo__kl__estimator": "k2",
        "algo__kl__unbiased_gradient": False,
        "ds__packing_samples": False,
        "vllm__sync_backend": "gloo",
        "reward__clip_range": (-10, 10),
        "maxk": SimpleNamespace(**maxk),
        **changes,
    }
    return arguments(**options)


def experiences_of(groups: Sequence[Group], args: SimpleNamespace, known: bool = True) -> list[Experience]:
    """What the experience maker hands to the learner, with log-probs of the policy as it starts, or without any."""
    tokenizer = SimpleNamespace(pad_token_id=PAD)
    strategy = SimpleNamespace(args=args)
    maker: Any = RemoteExperienceMaker(None, None, None, None, SimpleNamespace(value=0.0), strategy, tokenizer)
    start = Policy().logits.detach()
    experiences = maker.split_rollout_samples(groups)
    for experience in experiences:
        experience.action_log_probs = (log_probs_of(start, experience.sequences) * experience.action_mask).float()
        # vLLM's differ from the learner's a little, and by the token.
        noise = torch.sin(experience.sequences[:, 1:].float()) * experience.action_mask
        experience.rollout_log_probs = experience.action_log_probs + 0.1 * noise
        experience.base_action_log_probs = experience.action_log_probs - 0.1 * experience.action_mask
        if not known:
            experience.action_log_probs, experience.rollout_log_probs = unknown(experience.action_mask), None
        experience.kl = torch.zeros_like(experience.action_log_probs)
    return maker.compute_advantages_and_returns(experiences)


def make_trainer(experiences: Sequence[Experience], args: SimpleNamespace, dropout: float = 0.0) -> ActorPPOTrainer:
    """A learner that has received ``experiences``; its strategy has seen nothing yet."""
    strategy, scheduler = Strategy(args), SimpleNamespace(get_last_lr=lambda: [0.5])
    trainer = ActorPPOTrainer(
        strategy, Policy(dropout), None, None, scheduler, micro_train_batch_size=args.train.micro_batch_size
    )
    strategy.trainer = trainer
    for experience in experiences:
        trainer.replay_buffer.append(experience)
    return trainer


def objective(worth: Callable[[list[int]], torch.Tensor], ratios: torch.Tensor) -> torch.Tensor:
    """F(ρ): the mean over subsets of K of the product of their ratios times their worth."""
    subsets = [list(subset) for subset in combinations(range(len(ratios)), K)]
    return torch.stack([ratios[s].prod() * worth(s) for s in subsets]).mean()


def worth(group: Group, pair: list[int]) -> torch.Tensor:
    """The best reward of two completions, that of the selected one, or that of the answer most of them give."""
    assert group.rewards is not None
    rewards = group.rewards.double()[pair]
    if group.chosen_by is None:
        return rewards.max()
    by = group.chosen_by[pair]
    if group.strategy.kind is Kind.SELECTED:
        return rewards[by.argmax()]
    return rewards[by >= 0].mean() if bool((by >= 0).any()) else rewards.mean()


def true_gradient(logits: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    """−Σ over groups of n ∇F at ``logits``, over their number of action tokens, in float64."""
    logits = logits.detach().clone().requires_grad_()
    start = Policy().logits.detach()
    total = torch.zeros((), dtype=torch.float64)
    tokens = 0
    for group in groups:
        log_ratios = []
        for member in group.members:
            moved = log_probs_of(logits, member.sequences) - log_probs_of(start, member.sequences)
            log_ratios.append((moved * member.action_mask).sum())
            tokens += int(member.action_mask.sum())
        total = total - group.size * objective(partial(worth, group), torch.stack(log_ratios).exp())
    return torch.autograd.grad(total / tokens, logits)[0]


def on_a_rank(rank: int, ranks: int, folder: str, cases: dict[str, tuple[list[Group], SimpleNamespace]]) -> None:
    """Train one of several learner ranks, in a process of its own, on every case; rank 0 saves what all of them saw."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    for name, (groups, args) in cases.items():
        experiences = experiences_of(groups, args, known=not name.endswith("left out"))
        share = len(experiences) // ranks
        trainer = make_trainer(experiences[rank * share : (rank + 1) * share], args)
        status = trainer.ppo_train(0.0)
        everyone: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(everyone, ([step.groups for step in trainer.strategy.steps], status))
        if rank == 0:
            steps = [(step.logits, step.gradient) for step in trainer.strategy.steps]
            torch.save({"steps": steps, "ranks": everyone}, f"{folder}/{name}.pt")
    torch.distributed.destroy_process_group()
