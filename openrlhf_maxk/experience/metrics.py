"""What a step's rollouts say: unbiased max@k and pass@k, diversity, signal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.behaviour import are_unknown
from openrlhf_maxk.experience.group import CHOSEN_BY, FILLER, SEQUENCE_ADVANTAGE, K, group_ids
from openrlhf_maxk.objectives import Strategy, max_at_k, pass_at_k, worth_at_k
from openrlhf_maxk.objectives.strategy import MAX

POLICY_ENTROPY = "rollout/policy_entropy"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the completions of a group came out, shape (n,) each.

    Attributes:
        rewards: what training maximises.
        scores: what tells whether they pass (1 does).
        chosen_by: what a strategy chooses them by, int64; None where it goes by rewards.
    """

    rewards: torch.Tensor
    scores: torch.Tensor
    chosen_by: torch.Tensor | None = None


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    ks = [2**i for i in range(n.bit_length()) if 2**i <= n]
    return ks if ks[-1] == n else [*ks, n]


def names_at_k(n: int, strategy: Strategy) -> list[str]:
    """The names of what :func:`mean_at_k` says of groups of n, without prefix."""
    names = []
    for k in powers_of_two(n):
        told = [f"{strategy}@{k}"] if strategy != MAX and k >= strategy.smallest_k else []
        names += [f"max@{k}", *told, f"pass@{k}"]
    return names


def mean_at_k(groups: Sequence[Outcomes], prefix: str = "", strategy: Strategy = MAX) -> dict[str, float]:
    """max@k of the rewards of groups and pass@k of their scores (1 passes), by the unbiased estimators.

    Args:
        groups: of any sizes. A group smaller than a k does not count for that k.
        prefix: before every name.
        strategy: the worth of k samples by it, if another than ``max``, is also told: ``min@k``.
    """
    stacks = _by_size(groups)
    metrics = {}
    for name in names_at_k(max(stack.rewards.shape[1] for stack in stacks), strategy):
        kind, _, k = name.rpartition("@")
        large = [stack for stack in stacks if stack.rewards.shape[1] >= int(k)]
        if kind == "max":
            worths = [max_at_k(stack.rewards, int(k)) for stack in large]
        elif kind == "pass":
            worths = [pass_at_k((stack.scores >= 1).float(), int(k)) for stack in large]
        else:
            worths = [worth_at_k(stack.rewards, int(k), strategy, stack.chosen_by) for stack in large]
        metrics[prefix + name] = torch.cat(worths).mean().item()
    return metrics


def mean_worth(groups: Sequence[Outcomes], ks: Sequence[int], strategy: Strategy) -> float:
    """What training maximises: the mean worth of k samples by the strategy, for the k of each group, unbiased."""
    worths = [worth_at_k(group.rewards, k, strategy, group.chosen_by) for group, k in zip(groups, ks, strict=True)]
    return torch.stack(worths).mean().item()


def _by_size(groups: Sequence[Outcomes]) -> list[Outcomes]:
    """The groups of each size together: (groups, size) each."""
    found: dict[int, list[Outcomes]] = defaultdict(list)
    for group in groups:
        found[len(group.rewards)].append(group)
    return [
        Outcomes(
            torch.stack([group.rewards.float() for group in same]),
            torch.stack([group.scores.float() for group in same]),
            torch.stack(chosen_by) if len(chosen_by) == len(same) else None,
        )
        for same in found.values()
        for chosen_by in [[group.chosen_by for group in same if group.chosen_by is not None]]
    ]


def rollout_metrics(experiences: Sequence[Experience], strategy: str = "max") -> dict[str, float]:
    """The metrics of one step's experience, fillers left out.

    max@k, and the same of another ``strategy``, is that of the rewards, which training maximises; pass@k that of the
    task's scores, before any terms for form or length. ``worth`` is that of the step's own k.

    ``policy_entropy`` is the mean of −log π over the sampled tokens: an unbiased estimate of the policy's token entropy
    at the sampling temperature with top-p 1, at no cost; where log-probs are left to the learner, the learner says it.
    ``sampler_mismatch`` is the mean difference, over those tokens, between the learner's log-probs and vLLM's own,
    where vLLM was asked for them.
    """
    rewards: dict[int, list[float]] = defaultdict(list)
    scores: dict[int, list[float]] = defaultdict(list)
    chosen_by: dict[int, list[int]] = defaultdict(list)
    ks: dict[int, int] = {}
    texts: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    signal: dict[int, bool] = defaultdict(bool)
    surprise = tokens = mismatch = 0.0
    for experience in experiences:
        advantages = torch.as_tensor(experience.info[SEQUENCE_ADVANTAGE])
        mask = experience.action_mask.bool()
        for row, number in enumerate(group_ids(experience.info).tolist()):
            if number == FILLER:
                continue
            rewards[number].append(experience.rewards[row].item())
            score = experience.rewards if experience.scores is None else experience.scores
            scores[number].append(score[row].item())
            ks[number] = int(experience.info[K][row])
            if CHOSEN_BY in experience.info:
                chosen_by[number].append(int(experience.info[CHOSEN_BY][row]))
            signal[number] |= bool(advantages[row] != 0)
            response = experience.sequences[row, 1:][mask[row]]
            texts[number].add(tuple(response.tolist()))
            surprise -= experience.action_log_probs[row][mask[row]].sum().item()
            tokens += len(response)
            if experience.rollout_log_probs is not None:
                difference = experience.action_log_probs[row] - experience.rollout_log_probs[row]
                mismatch += difference[mask[row]].abs().sum().item()
    policy = {} if are_unknown(experiences[0]) else {POLICY_ENTROPY: surprise / max(tokens, 1.0)}
    if experiences[0].rollout_log_probs is not None:
        policy["rollout/sampler_mismatch"] = mismatch / tokens
    groups = [
        Outcomes(
            torch.tensor(rewards[g]),
            torch.tensor(scores[g]),
            torch.tensor(chosen_by[g]) if g in chosen_by else None,
        )
        for g in rewards
    ]
    told = Strategy.parse(strategy)
    return {
        **mean_at_k(groups, "rollout/", told),
        "rollout/worth": mean_worth(groups, [ks[g] for g in rewards], told),
        "rollout/k": float(max(ks.values())),
        "rollout/groups": float(len(rewards)),
        "rollout/no_signal": 1 - sum(signal.values()) / len(rewards),
        "rollout/distinct": sum(len(texts[g]) / len(rewards[g]) for g in rewards) / len(rewards),
        **policy,
    }
