"""Off-policy weights to first order in δ = ρ − 1 (arXiv:2510.23393, section 3.3 and appendix E), in O(n log n)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import as_given, checked_ratios
from .choices import Form
from .order import SortedGroups, rank_shares, sorted_groups, sum_above, sum_below
from .strategy import MAX, RankWeights, Strategy, rank_weights_of


def first_order_weights(
    rewards: Tensor,
    ratios: Tensor,
    k: int,
    form: Form | str = Form.RATIO,
    *,
    strategy: Strategy | str | Sequence[float] = MAX,
    scores: Tensor | None = None,
) -> Tensor:
    """Off-policy weights with the product of ratios over a subset replaced by 1 + Σ δ.

    * ``ratio``: w″_i = (1/C(n,k)) Σ_{I∋i} (1 + Σ_{l∈I, l≠i} δ_l) f(I), for the surrogate Σ_i ρ_i w″_i (PPO's).
    * ``score``: w′_i, the paper's for f = max, the same sum with l = i in it, for Σ_i w′_i log π(y_i|x).

    The error of the gradient is of second order in δ. A weight can have the wrong sign where |δ| is not small.

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
    return as_given(groups.restore(first_order(groups, rho, rank_weights_of(strategy, k), form)), rewards)


def first_order(groups: SortedGroups, rho: Tensor, ranks: RankWeights, form: Form) -> Tensor:
    """:func:`first_order_weights` of sorted groups and ratios, in their order."""
    r, n, k, c, device = groups.rewards, groups.rewards.shape[-1], ranks.k, ranks.values, groups.rewards.device
    pairs, triples = max(n * (n - 1), 1), max(n * (n - 1) * (n - 2), 1)

    def shares(above: int, below: int) -> Tensor:
        """Of the subsets that hold so many given members above and below rank j, what j counts in them: (n,)."""
        given = above + below
        scale = (k / n, k * (k - 1) / pairs, k * (k - 1) * (k - 2) / triples)[given]
        counts = r.new_zeros(n)
        if n > given:
            counts[below : n - above] = scale * rank_shares(n - 1 - given, k - 1 - given, c[above:], device)
        return counts

    delta = rho - 1
    lower = sum_below(delta[..., :-1])  # Σ_{l<j} δ_l
    alone, one_below, two_below = shares(0, 0), shares(0, 1), shares(0, 2)

    # i itself; then j above it. δ_i is in ``lower`` of every such j, where only further members belong. What it counts
    # depends on the form.
    weights = torch.addcmul(alone, one_below, lower)
    pairs_above = torch.addcmul(one_below, one_below, delta).addcmul_(two_below, lower)
    own = -two_below
    if form is Form.SCORE:
        own = one_below - two_below
        weights.addcmul_(alone, delta)
    if ranks.last == 0:  # nothing above j counts: the maximum
        weights.mul_(r).add_(sum_above(pairs_above.mul_(r)[..., 1:]))
        return weights.addcmul_(delta, sum_above((own * r)[..., 1:]))

    # The same with members above j.
    upper = sum_above(delta[..., 1:])  # Σ_{l>j} δ_l
    one_above, one_each, two_above = shares(1, 0), shares(1, 1), shares(2, 0)
    weights.addcmul_(one_above, upper)
    pairs_above.addcmul_(one_each, upper)
    pairs_below = one_above * (1 + delta) + one_each * lower + two_above * upper
    own_above = one_above - two_above if form is Form.SCORE else -two_above
    weights.mul_(r).add_(sum_above((pairs_above * r)[..., 1:])).add_(sum_below((pairs_below * r)[..., :-1]))
    return weights.addcmul_(delta, sum_above((own * r)[..., 1:]) + sum_below((own_above * r)[..., :-1]))
