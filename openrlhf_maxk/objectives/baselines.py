"""max@k weights with a baseline: what a completion adds, rather than what its subsets are worth.

Subtracting b_i from weight i leaves the expected gradient as it is if b_i does not depend on completion i:
E[b_i ∇ρ_i] = E[b_i] ∇E_μ[ρ_i] = E[b_i] ∇1 = 0, for any π and μ. Both baselines here are of that kind, with and without
ratios, and both make the weights depend on the *gaps* between neighbouring rewards only. With the group sorted, for a
(k−1)-subset S of the others and ρ(S) the product of its ratios:

* marginal gain:  (1/C(n,k)) Σ_S ρ(S) (max r(S+i) − max r(S))                        (take i away)
* leave one out:  (1/C(n,k)) Σ_S ρ(S) (max r(S+i) − mean_{l∉S+i} max r(S+l))         (put another in its place)

A subset S has its share of the gap above rank t exactly if it lies within the t lowest, [t]. The mean of ρ(S) over those is
e_t = E_{k−1}(t), and over those without i it is e_{t∖i}; there are C(n,k) a_{t+1} and C(n,k) a_t of them, with
a_i = C(i−1,k−1)/C(n,k). Hence the sums over gaps below.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from .checks import as_given, checked_ratios, checked_rewards
from .columns import by_columns
from .order import SortedGroups, pad_last, subset_shares, sum_below, sum_from
from .symmetric import leading_means, weighted_without


class Order(StrEnum):
    """How the product of ratios over a subset, ρ(S), is taken into account."""

    NONE = "none"  # 1: right where the samples are on-policy
    FIRST = "first"  # 1 + Σ δ: an error of second order in δ = ρ − 1
    EXACT = "exact"  # the product: no error


def marginal_gain(rewards: Tensor, k: int, ratios: Tensor | None = None, order: Order | str | None = None) -> Tensor:
    """LOO-1: what completion i adds to the best of its k-subsets (Tang et al. 2025, arXiv:2503.19595).

    A_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) (max r(I) − max r(I∖i)), by the recursion over ranks
    A_(1) = 0, A_(i+1) = A_(i) + a_{i+1} (r_(i+1) − r_(i)) e_i. In ratio form: the surrogate carries ρ_i; multiply by ρ_i for the score form.
    Unbiased, never negative (orders ``none`` and ``exact``), the same for shifted rewards, 0 for equal ones.

    With k = 1 there is nothing to add to, and the baseline is the mean of the other rewards (RLOO):
    A_i = (r_i − mean_{l≠i} r_l)/n, which needs no ratios and sums to 0. A group of one has no others: 0.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive. Needed by orders ``first`` and ``exact``.
        order: ``none`` O(n log n), ``first`` O(n log n), ``exact`` O(n·k). Default: ``exact`` with ratios, ``none`` without.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`, an unknown ``order``, or one that lacks its ratios.
    """
    return as_given(gain(*_checked(rewards, k, ratios, order)), rewards)


def leave_one_out(rewards: Tensor, k: int, ratios: Tensor | None = None, order: Order | str | None = None) -> Tensor:
    """LOO(k): completion i against the others that could stand in its place.

    A_i = (1/C(n,k)) Σ_{S∌i} ρ(S) (max r(S+i) − mean_{l∉S+i} max r(S+l)), S of size k − 1. The baseline is made of the
    k-subsets without i, each with the mean product of its ratios over all ways to leave one member out; without ratios it is
    (k/n) mean_{I∌i} max r(I), and A_i = n/(n−k) (r̃_i − mean r̃). In ratio form, as :func:`marginal_gain`.
    Unbiased, the same for shifted rewards, 0 for equal ones, and Σ_i A_i = 0: it also pushes down. k = 1 is RLOO.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n−1. With k = n no subset leaves a completion out.
        ratios: as for :func:`marginal_gain`.
        order: as for :func:`marginal_gain`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: as :func:`marginal_gain`, or k = n.
    """
    checked = _checked(rewards, k, ratios, order)
    if k == rewards.shape[-1]:
        raise ValueError(f"leave_one_out needs k below the group size, got k = n = {k}: use marginal_gain")
    return as_given(contrast(*checked), rewards)


def gain(rewards: Tensor, k: int, ratios: Tensor | None, order: Order) -> Tensor:
    """:func:`marginal_gain` of checked arguments."""
    n = rewards.shape[-1]
    if n == 1:
        return torch.zeros_like(rewards)
    if k == 1:
        return contrast(rewards, k, ratios, order)
    groups = SortedGroups.of(rewards)
    steps = subset_shares(n, k, 1, rewards.device)[1:] * groups.gaps
    if ratios is not None and order is not Order.NONE:
        steps = steps * _mean_products(groups.sort(ratios), k, order)
    return groups.restore(sum_below(pad_last(steps)))


def contrast(rewards: Tensor, k: int, ratios: Tensor | None, order: Order) -> Tensor:
    """:func:`leave_one_out` of checked arguments, k < n.

    A_(i) = 1/(n−k) (Σ_{t<i} t a_t gap_t e_t − Σ_{t>=i} (n−t) a_t gap_t e_{t∖i}): across a gap below i it beats the
    t − (k−1) others left in [t], and (t−k+1) a_{t+1} = t a_t; across a gap above i it loses to the n − t beyond.
    """
    groups = SortedGroups.of(rewards)
    n, device = rewards.shape[-1], rewards.device
    best = subset_shares(n, k, 1, device)
    rank = torch.arange(1, n, dtype=rewards.dtype, device=device)
    beaten = rank * best[:-1] * groups.gaps
    beaten_by = (n - rank) * best[:-1] * groups.gaps
    if ratios is None or order is Order.NONE:
        lost = sum_from(pad_last(beaten_by))
    else:
        rho = groups.sort(ratios)
        beaten = beaten * _mean_products(rho, k, order)
        if order is Order.FIRST:
            each = (k - 1) / (rank - 1).clamp(min=1)  # of the t − 1 others, i's own δ is taken out
            delta = rho - 1
            with_own = beaten_by * (1 + each * delta.cumsum(-1)[..., :-1])
            lost = sum_from(pad_last(with_own)) - delta * sum_from(pad_last(beaten_by * each))
        else:
            held = torch.nn.functional.pad((n - rank) * best[1:] * groups.gaps, (1, 0))
            lost = by_columns(lambda *columns: weighted_without(columns[0], k - 1, columns[1]), rho, held, k=k)
    return groups.restore((sum_below(pad_last(beaten)) - lost) / (n - k))


def _mean_products(rho: Tensor, k: int, order: Order) -> Tensor:
    """e_t for t = 1..n−1, (..., n−1): the mean of ρ(S) over the (k−1)-subsets S of the t lowest."""
    if order is Order.FIRST:
        rank = torch.arange(1, rho.shape[-1], dtype=rho.dtype, device=rho.device)
        return 1 + (k - 1) / rank * (rho - 1).cumsum(-1)[..., :-1]
    return by_columns(lambda columns: leading_means(columns, k - 1), rho, k=k)[..., 1:]


def _checked(
    rewards: Tensor, k: int, ratios: Tensor | None, order: Order | str | None
) -> tuple[Tensor, int, Tensor | None, Order]:
    checked = checked_rewards(rewards, k)
    if order is None:
        order = Order.NONE if ratios is None else Order.EXACT
    if order not in tuple(Order):
        raise ValueError(f"order must be one of {', '.join(Order)}, got {order!r}")
    if ratios is None:
        if order != Order.NONE:
            raise ValueError(f"order={str(order)!r} needs ratios")
        return checked, k, None, Order.NONE
    return checked, k, checked_ratios(ratios, rewards), Order(order)
