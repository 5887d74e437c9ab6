"""Objectives of other papers, by the names that they go by, for comparison. As :mod:`.maxk`, for averaging losses.

All of them take their samples as on-policy: the others' ratios have no part in the advantages. In formulas c of the n
completions of a group are correct, and mean is over the group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..baselines import contrast
from ..choices import Order
from ..order import SortedGroups, rank_shares
from ..registry import ObjectiveOptions, register
from ..strategy import MAX
from .maxk import on_policy_gains

RISK = 2.0  # β of RS-GRPO: the default of its authors' code
RIGHT = 0.1  # λ of W-REINFORCE, from its paper


@register("pkpo")
def pkpo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """PKPO (Walder & Karkhanis 2025, arXiv:2505.15201), with LOO-1: A_i = (n/C(n,k)) Σ_{I∋i} (max r(I) − max r(I∖i)).

    Its unbiased gradient of max@k from on-policy samples: the same as ``bon_loo1``, and as ``offpolicy_bon`` where the
    policy has not moved. Its LOO is ``maxpo``. k = 1 is RLOO.
    """
    return on_policy_gains(rewards, k)


@register("maxpo")
def maxpo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """MaxPO (Takashiro et al. 2026, arXiv:2606.06080): A_i = k (g_i − mean_{j≠i} g_j without i), leave two out.

    g_j is the mean of max r(S+j) − max r(S) over the (k−1)-subsets S of the others, and g_j without i that of the group
    without i, so that i and j are both left out of S. It coincides with LOO(k), n²/(n−k) (r̃_i − mean r̃), and is
    computed so, in O(n log n); exactly centred. A group of just k completions has none to leave out, and gets LOO-1.
    """
    n = rewards.shape[-1]
    if k == n:
        return on_policy_gains(rewards, k)
    groups = SortedGroups.of(rewards)
    return n * groups.restore(contrast(groups, None, MAX.rank_weights(k), Order.NONE))


@register("maxrl")
def maxrl(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """MaxRL (Tajwar et al. 2026, arXiv:2602.02710): A_i = (r_i − mean r)/mean r, and 0 where mean r is not positive.

    With 0/1 rewards, the log-likelihood of being right to the order n − 1: Σ pass@k/k for k = 1 … n − 1. Assumes
    rewards that are not negative. k has no part in it.
    """
    mean = rewards.mean(-1, keepdim=True)
    spread = rewards.amax(-1, keepdim=True) > rewards.amin(-1, keepdim=True)
    return torch.where(spread & (mean > 0), (rewards - mean) / mean.where(mean > 0, 1.0), 0.0)


@register("passk_training", binary=True)
def passk_training(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """Pass@k Training (Chen et al. 2025, arXiv:2508.10751): A_i = (E[R | i in the draw] − R)/s, s = √(R (1 − R)).

    R = 1 − C(n−c,k)/C(n,k) is the share of draws of k that have a right answer: all of them with a right one in it, and
    1 − C(n−c−1,k−1)/C(n−1,k−1) of them with a wrong one. 0 where s is. Dividing by s weighs prompts otherwise than
    pass@k does. Assumes 0/1 rewards.
    """
    n = rewards.shape[-1]
    wrong = n - rewards.sum(-1, keepdim=True).long()
    missed = rank_shares(n, k, (1.0,), rewards.device)[wrong]  # C(n−c, k)/C(n, k)
    missed_with = rank_shares(n - 1, k - 1, (1.0,), rewards.device)[(wrong - 1).clamp(min=0)]
    spread = (missed * (1 - missed)).sqrt()
    lead = missed - (1 - rewards) * missed_with
    return torch.where(spread > 0, lead / spread.where(spread > 0, 1.0), 0.0)


@register("rs_grpo")
def rs_grpo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """RS-GRPO (arXiv:2509.24261): A_i = (e^{βr_i}/mean e^{βr} − 1)/β, with β = 2.

    The gradient of (1/β) log E e^{βr}, between the mean reward (β → 0) and the largest (β → ∞). k has no part in it.
    """
    spread = rewards.amax(-1, keepdim=True) > rewards.amin(-1, keepdim=True)
    weights = (RISK * (rewards - rewards.amax(-1, keepdim=True))).exp()
    return torch.where(spread, (weights / weights.mean(-1, keepdim=True) - 1) / RISK, 0.0)


@register("dr_grpo")
def dr_grpo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """Dr. GRPO (Liu et al. 2025, arXiv:2503.20783): A_i = r_i − mean r.

    With a constant to divide tokens by, which is the default of training. (n−1)/n of RLOO; k has no part in it.
    """
    spread = rewards.amax(-1, keepdim=True) > rewards.amin(-1, keepdim=True)
    return torch.where(spread, rewards - rewards.mean(-1, keepdim=True), 0.0)


@register("w_reinforce", binary=True)
def w_reinforce(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """W-REINFORCE (Zhu et al. 2025, arXiv:2506.01347): A_i = 0.1 where right, −1 where wrong.

    No baseline: a group of equal rewards keeps its advantages. Assumes 0/1 rewards. k has no part in it.
    """
    return torch.where(rewards > 0, RIGHT, -1.0).to(rewards)


@register("nsr", binary=True)
def nsr(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """NSR, negative samples only (Zhu et al. 2025, arXiv:2506.01347): A_i = 0 where right, −1 where wrong.

    No baseline: a group of wrong answers keeps its advantages. Assumes 0/1 rewards. k has no part in it.
    """
    return rewards - 1
