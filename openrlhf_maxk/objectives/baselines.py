"""Weights with a baseline: what a completion adds, rather than what its subsets are worth.

Subtracting b_i from weight i leaves the expected gradient as it is if b_i does not depend on completion i:
E[b_i ∇ρ_i] = E[b_i] ∇E_μ[ρ_i] = E[b_i] ∇1 = 0, for any π and μ. Both baselines here are of that kind, with and without
ratios. With S a (k−1)-subset of the others and ρ(S) the product of its ratios:

* marginal gain:  (1/C(n,k)) Σ_S ρ(S) (f(S+i) − f(S+lowest of the others))       for max: f(S+i) − f(S)
* leave one out:  (1/C(n,k)) Σ_S ρ(S) (f(S+i) − mean_{l∉S+i} f(S+l))             (put another in its place)

Both depend on the gaps between neighbours only. With the group sorted, let S have a members above
gap_t = r_(t+1) − r_(t) and the others among the t lowest, [t]. A completion above the gap then counts c_{a+1} gap_t
more than one below. What all S without i weigh together, each times its c_{a+1}, is s_t for i above the gap and s_{t∖i}
for i below. For the maximum a is 0, S is within [t], and i above has no part in s_t:

    order    s_t of the maximum                   s_{t∖i} of the maximum
    none     a_{t+1}                              a_t                                        a_i = C(i−1,k−1)/C(n,k)
    first    a_{t+1} (1 + (k−1)/t Σ_{l<=t} δ_l)   a_t (1 + (k−1)/(t−1) (Σ_{l<=t} δ_l − δ_i))
    exact    e_{k−1}(ρ_1..ρ_t)/C(n,k)             the same at ρ_i = 0                        (``symmetric.py``)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from .checks import as_given, checked_ratios
from .choices import Order
from .columns import by_columns
from .order import SortedGroups, rank_shares, sorted_groups, sum_above, sum_below
from .strategy import MAX, RankWeights, Strategy, rank_weights_of
from .symmetric import leading_shares, removal, shares_and_removal


def marginal_gain(
    rewards: Tensor,
    k: int,
    ratios: Tensor | None = None,
    order: Order | str | None = None,
    *,
    strategy: Strategy | str | Sequence[float] = MAX,
    scores: Tensor | None = None,
) -> Tensor:
    """LOO-1: what completion i adds to its k-subsets (Tang et al. 2025; Walder & Karkhanis 2025).

    For the maximum, A_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) (max r(I) − max r(I∖i)), by A_(1) = 0,
    A_(i+1) = A_(i) + s_i (r_(i+1) − r_(i)). Unbiased, the same for shifted rewards, 0 for equal ones; never negative
    with order ``none`` or ``exact``. In ratio form: the surrogate carries ρ_i. The score form is ρ_i A_i.

    For other ranks the same subsets with the lowest of the others in the place of i:
    A_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) (f(I) − f(I∖i + lowest)), which for the maximum is that. Where the worst of the k
    counts, c_k ≠ 0, the lowest completion is itself compared with the second lowest, and pushed down.

    With k = 1 the baseline is the mean of the other rewards (RLOO): A_i = c_1 (r_i − mean_{l≠i} r_l)/n, unbiased
    without any ratios. It sums to 0. A group of one has no others and gets 0.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        order: ``none`` or ``first``, in O(n log n), or ``exact``, in O(n·k); the last two need ratios. By default
            ``exact`` with ratios, ``none`` without.
        strategy, scores: as for :func:`~openrlhf_maxk.objectives.metrics.value_at_k`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks` and :func:`~.strategy.rank_weights_of`; an unknown
            ``order``, or one that lacks its ratios.
    """
    groups, rho, order = _checked(rewards, k, ratios, order, strategy, scores)
    return as_given(groups.restore(gain(groups, rho, rank_weights_of(strategy, k), order)), rewards)


def leave_one_out(
    rewards: Tensor,
    k: int,
    ratios: Tensor | None = None,
    order: Order | str | None = None,
    *,
    strategy: Strategy | str | Sequence[float] = MAX,
    scores: Tensor | None = None,
) -> Tensor:
    """LOO(k): completion i against the others that could stand in its place (Walder & Karkhanis 2025).

    A_i = (1/C(n,k)) Σ_{S∌i} ρ(S) (f(S+i) − mean_{l∉S+i} f(S+l)), S of size k − 1, f = max by default. Without ratios
    the baseline is (k/n) mean_{I∌i} f(I), and A_i = n/(n−k) (r̃_i − mean r̃). Unbiased, the same for shifted rewards, 0
    for equal ones, and Σ_i A_i = 0, so it also pushes down. k = 1 is RLOO. In ratio form, as :func:`marginal_gain`.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n−1; with k = n no subset leaves a completion out.
        ratios, order, strategy, scores: as for :func:`marginal_gain`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: as :func:`marginal_gain`; k = n.
    """
    groups, rho, order = _checked(rewards, k, ratios, order, strategy, scores)
    if k == rewards.shape[-1]:
        raise ValueError(f"leave_one_out needs k below the group size, got k = n = {k}: use marginal_gain")
    return as_given(groups.restore(contrast(groups, rho, rank_weights_of(strategy, k), order)), rewards)


def gain(groups: SortedGroups, rho: Tensor | None, ranks: RankWeights, order: Order) -> Tensor:
    """:func:`marginal_gain` of sorted groups and ratios, in their order."""
    n, k, gaps = groups.rewards.shape[-1], ranks.k, groups.gaps
    if n == 1:
        return torch.zeros_like(groups.rewards)
    if k == 1:
        return contrast(groups, rho, ranks, order)
    all_above = gaps.new_tensor(k / n)  # what the subsets S of all but the lowest weigh, with which that is compared
    if rho is None or order is Order.NONE:
        gains = sum_below(k / n * rank_shares(n - 1, k - 1, ranks.values, gaps.device)[1:] * gaps)
    elif order is Order.FIRST:
        gains = _first_order_wins(gaps, rho, ranks)
        all_above = k / n * (1 + (k - 1) / (n - 1) * (rho[..., 1:] - 1).sum(-1))
    elif ranks.last == 0:
        (shares,) = by_columns(lambda rho: (leading_shares(rho, k - 1),), rho, k=k, outputs=1)
        return sum_below(ranks.values[0] * k / n * shares[..., 1:] * gaps)
    else:
        (gains,) = by_columns(
            lambda rho, gaps: (_removal_above(rho, gaps, _table(ranks, n)),), rho, pad(gaps, (1, 0)), k=k, outputs=1
        )
        gains = gains * (k / n)
        if ranks.of_lowest:
            (shares,) = by_columns(lambda rho: (leading_shares(rho, k - 1),), rho.flip(-1), k=k, outputs=1)
            all_above = k / n * shares[..., -1]
    if ranks.of_lowest:
        gains[..., 0] = -ranks.of_lowest * gaps[..., 0] * all_above
    return gains


def contrast(groups: SortedGroups, rho: Tensor | None, ranks: RankWeights, order: Order) -> Tensor:
    """:func:`leave_one_out` of sorted groups and ratios, in their order; k < n.

    A_(i) = 1/(n−k) (Σ_{t<i} gap_t [(t−k+1+a) s_t] − Σ_{t>=i} gap_t [(n−t−a) s_{t∖i}]), brackets inside the sums over a:
    across a gap below, i beats the others that S leaves of the t lowest; across a gap above, it loses to those that S
    leaves beyond.
    """
    n, k, gaps = groups.rewards.shape[-1], ranks.k, groups.gaps
    rank = torch.arange(1, n, dtype=gaps.dtype, device=gaps.device)
    if rho is None or order is Order.NONE:
        # Of the t lowest, S leaves some that i beats: t C(t−1, k−1−a) in all. Beyond, (n−t) C(n−t−1, a).
        both = k / n / max(n - 1, 1) * rank_shares(n - 2, k - 1, ranks.values, gaps.device) * gaps
        return sum_below(rank * both) - sum_above((n - rank) * both)
    if order is Order.FIRST:
        return (_first_order_wins(gaps, rho, ranks, left=True) - _first_order_losses(gaps, rho, ranks)) / (n - k)
    padded = pad(gaps, (1, 0))
    if ranks.last == 0:
        wins = (rank - (k - 1)) * gaps
        losses = pad((n - rank) * gaps, (1, 0))
        shares, lost = by_columns(
            lambda rho, losses: shares_and_removal(rho, k - 1, losses), rho, losses, k=k, outputs=2
        )
        return (sum_below(wins * shares[..., 1:]) - lost) * (ranks.values[0] * k / n / (n - k))
    beyond = torch.arange(n, 0, -1, dtype=torch.float64)[:, None] - torch.arange(k)  # n − t − a
    table = _table(ranks, n)
    won, lost = by_columns(
        lambda rho, gaps: (
            _removal_above(rho, gaps, table * (n - k + 1 - beyond)),
            removal(rho, k - 1, gaps, table * beyond),
        ),
        rho,
        padded,
        k=k,
        outputs=2,
    )
    return (won - lost) * (k / n / (n - k))


def _table(ranks: RankWeights, n: int) -> Tensor:
    """c_{a+1} for every t: (n, k) on the CPU."""
    return torch.tensor(ranks.values, dtype=torch.float64).expand(n, -1)


def _removal_above(rho: Tensor, gaps: Tensor, table: Tensor) -> Tensor:
    """Σ_{t<i} gap_t Σ_a table[t, a] ē_a(t) e_{s−a}(t) at ρ_i = 0, over C(n−1, s): (n, batch).

    As :func:`~openrlhf_maxk.objectives.symmetric.removal` of the reversed group, in which t becomes n − t and a
    becomes s − a; gap 0 is none.
    """

    def mirrored(levels: Tensor) -> Tensor:
        return torch.cat([levels[:1], levels[1:].flip(0)])

    return removal(rho.flip(0), table.shape[1] - 1, mirrored(gaps), mirrored(table).flip(1)).flip(0)


def _first_order_wins(gaps: Tensor, rho: Tensor, ranks: RankWeights, left: bool = False) -> Tensor:
    """Σ_{t<i} gap_t Σ_a c_{a+1} Σ_S (1 + Σ_{l∈S} δ_l), times what S leaves of the t lowest if ``left``.

    S has no i, a members above t and the others below. A given member of S above or below takes one from what can be
    chosen there; so does what is left, which is t C(t−1, …) in all.
    """
    share, above, below = _first_order_shares(gaps, ranks, 1 if left else 0)
    rank = torch.arange(1, gaps.shape[-1] + 1, dtype=gaps.dtype, device=gaps.device)
    if left:
        share, above, below = share * rank, above * rank, below * (rank - 1)
    delta = rho - 1
    lower = delta.cumsum(-1)[..., :-1]
    if ranks.last == 0:
        return sum_below(gaps * (share + below * lower))
    upper = sum_above(delta[..., 1:])[..., :-1]
    return sum_below(gaps * (share + below * lower + above * upper)) - delta * sum_below(gaps * above)


def _first_order_losses(gaps: Tensor, rho: Tensor, ranks: RankWeights) -> Tensor:
    """Σ_{t>=i} gap_t Σ_a c_{a+1} Σ_S (1 + Σ_{l∈S} δ_l) times what S leaves above t, which is (n−t) C(n−t−1, …)."""
    share, above, below = _first_order_shares(gaps, ranks, 1)
    beyond = torch.arange(gaps.shape[-1], 0, -1, dtype=gaps.dtype, device=gaps.device)
    delta = rho - 1
    lower = delta.cumsum(-1)[..., :-1]
    steps = gaps * (beyond * (share + below * lower))
    if ranks.last:
        steps = steps + gaps * ((beyond - 1) * above * sum_above(delta[..., 1:])[..., :-1])
    return sum_above(steps) - delta * sum_above(gaps * beyond * below)


def _first_order_shares(gaps: Tensor, ranks: RankWeights, left: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of S, for t = 1..n−1: (n−1,) each. All, those with a given member above, those with a given member below.

    Besides i and the given member, ``left`` completions are not chosen from.
    """
    n, k, c, device = gaps.shape[-1] + 1, ranks.k, ranks.values, gaps.device
    spare = (n - k) / max(n - 1, 1) if left else 1.0
    share = k / n * spare * rank_shares(n - 1 - left, k - 1, c, device)
    pairs = k * (k - 1) / (n * (n - 1)) * ((n - k) / max(n - 2, 1) if left else 1.0)
    above, below = gaps.new_zeros(n - 1), gaps.new_zeros(n - 1)
    if n > 1 + left:
        above[: n - 2] = pairs * rank_shares(n - 2 - left, k - 2, c[1:], device)[1 - left : n - 1 - left]
        below[left:] = pairs * rank_shares(n - 2 - left, k - 2, c, device)
    return share[1 - left :], above, below


def _checked(
    rewards: Tensor,
    k: int,
    ratios: Tensor | None,
    order: Order | str | None,
    strategy: Strategy | str | Sequence[float],
    scores: Tensor | None,
) -> tuple[SortedGroups, Tensor | None, Order]:
    groups = sorted_groups(rewards, k, strategy, scores)
    if order is None:
        order = Order.NONE if ratios is None else Order.EXACT
    order = Order.named(order, "order")
    if ratios is None:
        if order is not Order.NONE:
            raise ValueError(f"order {order.value!r} needs ratios")
        return groups, None, Order.NONE
    return groups, groups.sort(checked_ratios(ratios, rewards)), order
