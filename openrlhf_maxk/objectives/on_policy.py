"""On-policy weights: r̃ of Walder & Karkhanis (2025, arXiv:2505.15201), eq. 9 of arXiv:2510.23393."""

from __future__ import annotations

from torch import Tensor

from .checks import as_given, checked_rewards
from .order import SortedGroups, subset_shares, sum_below


def on_policy_weights(rewards: Tensor, k: int) -> Tensor:
    """r̃_i = (1/C(n,k)) Σ_{I∋i} max r(I): what Σ_i r̃_i ∇log π(y_i|x) needs to be an unbiased ∇max@k.

    Args:
        rewards: (..., n), any order, finite. Independent samples of the current policy for one prompt.
        k: 1..n.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :func:`~openrlhf_maxk.objectives.checks.checked_rewards`.
    """
    return as_given(transformed_rewards(checked_rewards(rewards, k), k), rewards)


def transformed_rewards(rewards: Tensor, k: int) -> Tensor:
    """:func:`on_policy_weights` of checked rewards.

    r̃_(1) = a_1 r_(1) + Σ_{j>1} c_j r_(j) and r̃_(i+1) = r̃_(i) + a_i (r_(i+1) − r_(i)), with a_i = C(i−1,k−1)/C(n,k) and
    c_j = C(j−2,k−2)/C(n,k). Equal rewards, and all of the k lowest, get exactly equal weights.
    """
    groups = SortedGroups.of(rewards)
    n, device = rewards.shape[-1], rewards.device
    best, best_of_pair = subset_shares(n, k, 1, device), subset_shares(n, k, 2, device)
    lowest = best[0] * groups.rewards[..., :1] + (groups.rewards[..., 1:] @ best_of_pair[1:]).unsqueeze(-1)
    return groups.restore(sum_below(best[:-1] * groups.gaps).add_(lowest))
