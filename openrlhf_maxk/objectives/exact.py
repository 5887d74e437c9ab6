"""Exact off-policy weights: eq. 10 of arXiv:2510.23393 in O(n·k), with no approximation.

The off-policy estimate of what k samples of π are worth, from samples of μ, sorted, is

    F(ρ) = (1/C(n,k)) Σ_I ρ(I) Σ_m c_m · (m-th best of I) = (1/C(n,k)) Σ_j r_(j) ρ_(j) Σ_m c_m e_{k−m}(<j) e_{m−1}(>j),

with e the elementary symmetric polynomials of the ratios below and above j (``symmetric.py``). F is linear in each ρ_i,
so ∂F/∂ρ_i is the sum over the subsets that hold i, without ρ_i: the ratio form of eq. 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import as_given, checked_ratios
from .choices import Form
from .columns import by_columns
from .order import SortedGroups, sorted_groups
from .strategy import MAX, RankWeights, Strategy, rank_weights_of
from .symmetric import derivative


def exact_weights(
    rewards: Tensor,
    ratios: Tensor,
    k: int,
    form: Form | str = Form.RATIO,
    *,
    strategy: Strategy | str | Sequence[float] = MAX,
    scores: Tensor | None = None,
) -> Tensor:
    """Off-policy weights, unbiased at any distance between π and μ. With the default strategy, of max@k.

    * ``ratio``: A_i = ∂F/∂ρ_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) f(I), for Σ_i ρ_i A_i (PPO's).
    * ``score``: g_i = ρ_i A_i, eq. 10 itself, for Σ_i g_i log π(y_i|x).

    f(I) = Σ_m c_m · (m-th best of I). Σ_i ρ_i A_i = k F. O(n·k) time a group; memory linear in n.

    Args:
        rewards: (..., n), any order, finite.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        k: 1..n.
        form: which surrogate the weights are for.
        strategy, scores: as for :func:`~openrlhf_maxk.objectives.metrics.value_at_k`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks` and :func:`~.strategy.rank_weights_of`, or an unknown
            ``form``.
    """
    form = Form.named(form, "form")
    groups = sorted_groups(rewards, k, strategy, scores)
    rho = groups.sort(checked_ratios(ratios, rewards))
    return as_given(groups.restore(exact(groups, rho, rank_weights_of(strategy, k), form)), rewards)


def exact(groups: SortedGroups, rho: Tensor, ranks: RankWeights, form: Form) -> Tensor:
    """:func:`exact_weights` of sorted groups and ratios, in their order."""
    n, k, values = groups.rewards.shape[-1], ranks.k, torch.tensor(ranks.values, dtype=torch.float64)
    (weights,) = by_columns(lambda r, rho: (derivative(rho, k - 1, r, values),), groups.rewards, rho, k=k, outputs=1)
    weights = weights * (k / n)
    return rho * weights if form is Form.SCORE else weights
