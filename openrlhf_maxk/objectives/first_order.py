"""Off-policy weights to first order in δ = ρ − 1 (arXiv:2510.23393, section 3.3 and appendix E), in O(n log n)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import as_given, checked_ratios, checked_rewards
from .choices import Form
from .order import SortedGroups, subset_shares, sum_above, sum_below


def first_order_weights(rewards: Tensor, ratios: Tensor, k: int, form: Form | str = Form.RATIO) -> Tensor:
    """Off-policy max@k weights with the product of ratios over a subset replaced by 1 + Σ δ.

    * ``ratio``: w″_i = (1/C(n,k)) Σ_{I∋i} (1 + Σ_{l∈I, l≠i} δ_l) max r(I), for the surrogate Σ_i ρ_i w″_i (PPO's).
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
    form = Form.named(form, "form")
    checked = checked_rewards(rewards, k)
    return as_given(first_order(checked, checked_ratios(ratios, rewards), k, form), rewards)


def first_order(rewards: Tensor, ratios: Tensor, k: int, form: Form) -> Tensor:
    """:func:`first_order_weights` of checked arguments."""
    groups = SortedGroups.of(rewards)
    n, device = rewards.shape[-1], rewards.device
    best, best_of_pair, best_of_triple = (subset_shares(n, k, fixed, device) for fixed in (1, 2, 3))
    r, delta = groups.rewards, groups.sort(ratios).sub_(1)
    lower = sum_below(delta[..., :-1])  # Σ_{l<j} δ_l

    # i is the best of its subset; then j is, with i below it.
    weights = torch.addcmul(best, best_of_pair, lower)
    pairs = torch.addcmul(best_of_pair, best_of_pair, delta).addcmul_(best_of_triple, lower).mul_(r)
    # δ_i is in ``lower`` of every j above, where only further members belong. What it counts depends on the form.
    own = -best_of_triple
    if form is Form.SCORE:
        own = best_of_pair - best_of_triple
        weights.addcmul_(best, delta)
    weights.mul_(r).add_(sum_above(pairs[..., 1:])).addcmul_(delta, sum_above((own * r)[..., 1:]))
    return groups.restore(weights)
