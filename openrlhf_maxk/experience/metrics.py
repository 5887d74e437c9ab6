"""What a step's rollouts say: unbiased max@k and pass@k, diversity, signal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import FILLER, SEQUENCE_ADVANTAGE, K, group_ids
from openrlhf_maxk.objectives import Strategy, max_at_k, pass_at_k, value_at_k
from openrlhf_maxk.objectives.strategy import MAX


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    ks = [2**i for i in range(n.bit_length()) if 2**i <= n]
    return ks if ks[-1] == n else [*ks, n]


def mean_at_k(
    groups: Sequence[tuple[torch.Tensor, torch.Tensor]], prefix: str = "", strategy: str = "max"
) -> dict[str, float]:
    """max@k of the rewards of groups and pass@k of their scores (1 passes), by the unbiased estimators.

    Args:
        groups: rewards and scores of each group, any sizes. A group smaller than a k does not count for that k.
        prefix: before every name.
        strategy: the worth of k samples by their rewards, if another than ``max``, is also told: ``min@k``.
    """
    told = Strategy.parse(strategy)
    by_size: dict[int, list[torch.Tensor]] = defaultdict(list)
    for rewards, scores in groups:
        by_size[len(rewards)].append(torch.stack([rewards.float(), (scores >= 1).float()]))
    stacks = {size: torch.stack(same, dim=1) for size, same in by_size.items()}  # (2, groups, size)
    metrics = {}
    for k in powers_of_two(max(stacks)):
        large = [stack for size, stack in stacks.items() if size >= k]
        metrics[f"{prefix}max@{k}"] = torch.cat([max_at_k(rewards, k) for rewards, _ in large]).mean().item()
        if told != MAX and k >= told.smallest_k:
            worths = [value_at_k(rewards, k, told) for rewards, _ in large]
            metrics[f"{prefix}{told}@{k}"] = torch.cat(worths).mean().item()
        metrics[f"{prefix}pass@{k}"] = torch.cat([pass_at_k(passed, k) for _, passed in large]).mean().item()
    return metrics


def rollout_metrics(experiences: Sequence[Experience], strategy: str = "max") -> dict[str, float]:
    """The metrics of one step's experience, fillers left out.

    max@k, and the same of another ``strategy``, is that of the rewards, which training maximises; pass@k that of the
    task's scores, before any terms for form or length.

    ``policy_entropy`` is the mean of −log π over the sampled tokens: an unbiased estimate of the policy's token entropy
    at the sampling temperature with top-p 1, at no cost. ``sampler_mismatch`` is the mean difference, over those
    tokens, between the learner's log-probs and vLLM's own, where vLLM was asked for them.
    """
    rewards: dict[int, list[float]] = defaultdict(list)
    scores: dict[int, list[float]] = defaultdict(list)
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
            signal[number] |= bool(advantages[row] != 0)
            response = experience.sequences[row, 1:][mask[row]]
            texts[number].add(tuple(response.tolist()))
            surprise -= experience.action_log_probs[row][mask[row]].sum().item()
            tokens += len(response)
            if experience.rollout_log_probs is not None:
                difference = experience.action_log_probs[row] - experience.rollout_log_probs[row]
                mismatch += difference[mask[row]].abs().sum().item()
    sampler = {} if experiences[0].rollout_log_probs is None else {"rollout/sampler_mismatch": mismatch / tokens}
    return {
        **mean_at_k([(torch.tensor(rewards[g]), torch.tensor(scores[g])) for g in rewards], "rollout/", strategy),
        "rollout/k": float(torch.as_tensor(experiences[0].info[K]).float()[0]),
        "rollout/groups": float(len(rewards)),
        "rollout/no_signal": 1 - sum(signal.values()) / len(rewards),
        "rollout/distinct": sum(len(texts[g]) / len(rewards[g]) for g in rewards) / len(rewards),
        "rollout/policy_entropy": surprise / max(tokens, 1.0),
        **sampler,
    }
