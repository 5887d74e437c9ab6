"""On-policy weights: r̃ of Walder & Karkhanis (2025, arXiv:2505.15201), eq. 9 of arXiv:2510.23393, for any ranks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .checks import as_given
from .order import SortedGroups, rank_shares, sorted_groups, sum_below
from .strategy import MAX, RankWeights, Strategy, rank_weights_of


def on_policy_weights(
    rewards: Tensor, k: int, *, strategy: Strategy | str | Sequence[float] = MAX, scores: Tensor | None = None
) -> Tensor:
    """r̃_i = (1/C(n,k)) Σ_{I∋i} f(I): what Σ_i r̃_i ∇log π(y_i|x) needs to be an unbiased gradient of what k samples
    are worth, f(I) = Σ_m c_m · (m-th best of I). With the default, f = max.

    Args:
        rewards: (..., n), any order, finite. Independent samples of the current policy for one prompt.
        k: 1..n.
        strategy, scores: as for :func:`~openrlhf_maxk.objectives.metrics.value_at_k`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks` and :func:`~.strategy.rank_weights_of`.
    """
    groups = sorted_groups(rewards, k, strategy, scores)
    return as_given(groups.restore(on_policy(groups, rank_weights_of(strategy, k))), rewards)


def on_policy(groups: SortedGroups, ranks: RankWeights) -> Tensor:
    """:func:`on_policy_weights` of sorted groups, in their order.

    The lowest rank has r̃_(1) = (k/n) c_k r_(1) + Σ_{j>1} r_(j) Σ_{m<k} c_m C(n−j,m−1) C(j−2,k−m−1)/C(n,k). Then, since
    subsets that hold both of i and i + 1 count for both,
    r̃_(i+1) − r̃_(i) = (r_(i+1) − r_(i)) Σ_m c_m C(n−i−1,m−1) C(i−1,k−m)/C(n,k). Equal rewards get exactly equal weights;
    with f = max so do all of the k lowest.
    """
    n, k, c, device = groups.rewards.shape[-1], ranks.k, ranks.values, groups.rewards.device
    pairs = max(n * (n - 1), 1)
    above_lowest = k * (k - 1) / pairs * rank_shares(n - 2, k - 2, c[:-1], device)
    lowest = (groups.rewards[..., 1:] @ above_lowest).unsqueeze(-1)
    if c[-1]:
        lowest = lowest + k / n * c[-1] * groups.rewards[..., :1]
    steps = k * (n - k) / pairs * rank_shares(n - 2, k - 1, c, device)
    return sum_below(steps * groups.gaps).add_(lowest)
