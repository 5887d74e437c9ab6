"""The score loss on the device: its gradient against automatic differentiation through the estimate of max@k."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from .parts import TINY, Bench, Record

GROUPS, N, K = 4, 6, 3
MOST = 1e-4  # of the difference, relative to the gradient's norm; float32


def gradient_part(bench: Bench) -> Iterator[Record]:
    """Through the log-probs alone, and down to the parameters of a small Qwen2 in float32 behind upstream's actor."""
    from learners import Rollout, random_rows
    from openrlhf.models import Actor
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    rows = random_rows(Rollout(GROUPS, N, prompt=5, shortest=3, longest=9, vocabulary=TINY.model["vocab_size"]))
    sequences, action_mask, attention_mask = (column.to(bench.device) for column in rows)
    actor = Actor(AutoModelForCausalLM.from_config(Qwen2Config(**TINY.model), dtype=torch.float32).to(bench.device))
    actor.packing_samples = False
    log_probs = actor(sequences, action_mask, attention_mask)
    moved = 0.1 * torch.randn(rows[1].shape).to(bench.device)
    behaviour = log_probs.detach() + moved * action_mask
    rewards = (torch.arange(GROUPS * N) % 5).float().to(bench.device) / 4

    loss = score_loss(log_probs, behaviour, action_mask, rewards)
    expected = -N * estimate(log_probs, behaviour, action_mask, rewards)
    parameters = list(actor.parameters())
    for case, at in (("by the log-probs", [log_probs]), (f"by {len(parameters)} parameters", parameters)):
        found, true = (_flat(torch.autograd.grad(of, at, retain_graph=True)) for of in (loss, expected))
        relative = float((found - true).norm() / true.norm())
        problem = "" if relative <= MOST else f"the gradient differs by {relative:.1e} of its norm"
        yield Record(case, {"norm": float(true.norm()), "relative difference": relative}, problem)


def score_loss(log_probs: Tensor, behaviour: Tensor, action_mask: Tensor, rewards: Tensor) -> Tensor:
    """The learner's own loss on a micro-batch of whole groups, without baseline and clamp; a sum over tokens."""
    from openrlhf.models.loss import PolicyLoss

    from openrlhf_maxk.learner.batch import GroupBatch
    from openrlhf_maxk.learner.loss import GroupPolicyLoss
    from openrlhf_maxk.options.maxk import MaxKOptions

    options = MaxKOptions.make(loss="score", baseline="none", delta_clip=float("inf"), min_ess=0.0)
    groups = torch.arange(len(rewards), device=rewards.device) // N
    loss = GroupPolicyLoss(PolicyLoss(), options)
    loss.batch = GroupBatch(groups, rewards, torch.full_like(groups, K), torch.zeros_like(rewards))
    value, *_ = loss(log_probs, behaviour, torch.zeros_like(log_probs), action_mask, batch_num_tokens=1.0)
    return value


def estimate(log_probs: Tensor, behaviour: Tensor, action_mask: Tensor, rewards: Tensor) -> Tensor:
    """Σ over groups of the mean over K-subsets of the product of ratios times the best reward, in float64."""
    ratios = ((log_probs - behaviour).double() * action_mask).sum(-1).exp().view(-1, N)
    subsets = torch.tensor(list(combinations(range(N), K)), device=ratios.device)
    best = rewards.double().view(-1, N)[:, subsets].amax(-1)
    return (ratios[:, subsets].prod(-1) * best).mean(-1).sum()


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.reshape(-1).double() for gradient in gradients])
