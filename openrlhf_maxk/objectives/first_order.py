"""Off-policy weights to first order in δ = ρ − 1 (arXiv:2510.23393, section 3.3 and appendix E), in O(n log n)."""

from __future__ import annotations

from torch import Tensor

from .checks import as_given, checked_ratios, checked_rewards
from .form import Form
from .order import SortedGroups, subset_shares, sum_above, sum_below


def first_order_weights(rewards: Tensor, ratios: Tensor, k: int, form: Form | str = Form.RATIO) -> Tensor:
    """Off-policy max@k weights with the product of ratios over a subset replaced by 1 + Σ δ.

    * ``ratio``: w″_i = (1/C(n,k)) Σ_{I∋i} (1 + Σ_{l∈I, l≠i} δ_l) max r(I), for Σ_i ρ_i w″_i (a PPO surrogate carries ρ_i).
    * ``score``: w′_i, the paper's, the same sum with l = i in it, for Σ_i w′_i log π(y_i|x).

    The error of the gradient is of second order in δ. A weight can have the wrong sign where |δ| is not small.

    Args:
        rewards: (..., n), any order, finite.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        k: 1..n.
        form: which surrogate the weights are for.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`, or an unknown ``form``.
    """
    form = Form.named(form)
    checked = checked_rewards(rewards, k)
    return as_given(first_order(checked, checked_ratios(ratios, rewards), k, form), rewards)


def first_order(rewards: Tensor, ratios: Tensor, k: int, form: Form) -> Tensor:
    """:func:`first_order_weights` of checked arguments."""
    groups = SortedGroups.of(rewards)
    n, device = rewards.shape[-1], rewards.device
    best, best_of_pair, best_of_triple = (subset_shares(n, k, fixed, device) for fixed in (1, 2, 3))
    r, delta = groups.rewards, groups.sort(ratios) - 1
    delta_below = sum_below(delta)

    i_is_best = best * r
    i_is_below_j = best_of_pair * r
    # C(j−3,k−3) goes to each l < j but i: all of them here, i itself is taken out below.
    corrected = i_is_below_j * (1 + delta) + best_of_triple * r * delta_below
    weights = i_is_best + best_of_pair * r * delta_below + sum_above(corrected) - delta * sum_above(best_of_triple * r)
    if form is Form.SCORE:
        weights = weights + delta * (i_is_best + sum_above(i_is_below_j))
    return groups.restore(weights)
