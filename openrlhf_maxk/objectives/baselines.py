"""max@k weights with a baseline: what a completion adds, rather than what its subsets are worth.

Subtracting b_i from weight i leaves the expected gradient as it is if b_i does not depend on completion i:
E[b_i ∇ρ_i] = E[b_i] ∇E_μ[ρ_i] = E[b_i] ∇1 = 0, for any π and μ. Both baselines here are of that kind, with and without
ratios. With S a (k−1)-subset of the others and ρ(S) the product of its ratios:

* marginal gain:  (1/C(n,k)) Σ_S ρ(S) (max r(S+i) − max r(S))                    (take i away)
* leave one out:  (1/C(n,k)) Σ_S ρ(S) (max r(S+i) − mean_{l∉S+i} max r(S+l))     (put another in its place)

Both depend on the gaps between neighbouring rewards only. With the group sorted, S has a part in
gap_t = r_(t+1) − r_(t) exactly if it lies within the t lowest, [t]. The weight of all such S together is
s_t = (1/C(n,k)) Σ_{S⊆[t]} ρ(S), and s_{t∖i} that of those without i:

    order    s_t                                  s_{t∖i}
    none     a_{t+1}                              a_t                                        a_i = C(i−1,k−1)/C(n,k)
    first    a_{t+1} (1 + (k−1)/t Σ_{l<=t} δ_l)   a_t (1 + (k−1)/(t−1) (Σ_{l<=t} δ_l − δ_i))
    exact    e_{k−1}(ρ_1..ρ_t)/C(n,k)             the same at ρ_i = 0                        (``symmetric.py``)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .checks import as_given, checked_ratios, checked_rewards
from .choices import Order
from .columns import by_columns
from .order import SortedGroups, subset_shares, sum_above, sum_below
from .symmetric import leading_shares, shares_and_removal


def marginal_gain(rewards: Tensor, k: int, ratios: Tensor | None = None, order: Order | str | None = None) -> Tensor:
    """LOO-1: what completion i adds to the best of its k-subsets (Tang et al. 2025; Walder & Karkhanis 2025).

    A_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) (max r(I) − max r(I∖i)), by A_(1) = 0, A_(i+1) = A_(i) + s_i (r_(i+1) − r_(i)).
    Unbiased, the same for shifted rewards, 0 for equal ones; never negative with order ``none`` or ``exact``.
    In ratio form: the surrogate carries ρ_i. The score form is ρ_i A_i.

    With k = 1 there is nothing to add to, and the baseline is the mean of the other rewards (RLOO):
    A_i = (r_i − mean_{l≠i} r_l)/n, unbiased without any ratios. It sums to 0. A group of one has no others and gets 0.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        order: ``none`` or ``first``, in O(n log n), or ``exact``, in O(n·k); the last two need ratios. By default
            ``exact`` with ratios, ``none`` without.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`; an unknown ``order``, or one that lacks its ratios.
    """
    return as_given(gain(*_checked(rewards, k, ratios, order)), rewards)


def leave_one_out(rewards: Tensor, k: int, ratios: Tensor | None = None, order: Order | str | None = None) -> Tensor:
    """LOO(k): completion i against the others that could stand in its place (Walder & Karkhanis 2025).

    A_i = (1/C(n,k)) Σ_{S∌i} ρ(S) (max r(S+i) − mean_{l∉S+i} max r(S+l)), S of size k − 1. Without ratios the baseline
    is (k/n) mean_{I∌i} max r(I), and A_i = n/(n−k) (r̃_i − mean r̃). Unbiased, the same for shifted rewards, 0 for
    equal ones, and Σ_i A_i = 0, so it also pushes down. k = 1 is RLOO. In ratio form, as :func:`marginal_gain`.

    Args:
        rewards: (..., n), any order, finite.
        k: 1..n−1; with k = n no subset leaves a completion out.
        ratios: as for :func:`marginal_gain`.
        order: as for :func:`marginal_gain`.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: as :func:`marginal_gain`; k = n.
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
    if ratios is None or order is Order.NONE:
        shares = subset_shares(n, k, 1, rewards.device)[1:]
    elif order is Order.FIRST:
        shares, _, _ = _first_order_shares(groups.sort(ratios), k)
    else:
        (shares,) = by_columns(lambda rho: (leading_shares(rho, k - 1),), groups.sort(ratios), k=k, outputs=1)
        shares = shares[..., 1:] * (k / n)
    return groups.restore(sum_below(shares * groups.gaps))


def contrast(rewards: Tensor, k: int, ratios: Tensor | None, order: Order) -> Tensor:
    """:func:`leave_one_out` of checked arguments, k < n.

    A_(i) = 1/(n−k) (Σ_{t<i} (t−k+1) gap_t s_t − Σ_{t>=i} (n−t) gap_t s_{t∖i}): across a gap below, i beats the
    t − (k−1) others that S leaves of the t lowest; across a gap above, it loses to the n − t beyond.
    """
    groups = SortedGroups.of(rewards)
    n = rewards.shape[-1]
    rank = torch.arange(1, n, dtype=rewards.dtype, device=rewards.device)
    wins, losses = (rank - (k - 1)) * groups.gaps, (n - rank) * groups.gaps
    if ratios is None or order is Order.NONE:
        best = subset_shares(n, k, 1, rewards.device)
        shares, lost = best[1:], sum_above(losses * best[:-1])
    elif order is Order.FIRST:
        rho = groups.sort(ratios)
        shares, without, own = _first_order_shares(rho, k)
        lost = sum_above(losses * without) - (rho - 1) * sum_above(losses * own)
    else:
        shares, lost = by_columns(
            lambda rho, losses: shares_and_removal(rho, k - 1, losses),
            groups.sort(ratios),
            pad(losses, (1, 0)),
            k=k,
            outputs=2,
        )
        shares, lost = shares[..., 1:] * (k / n), lost * (k / n)
    return groups.restore((sum_below(wins * shares) - lost) / (n - k))


def _first_order_shares(rho: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """s_t and, with s_{t∖i} = u_t − δ_i v_t, u_t and v_t: (..., n−1) each, for t = 1..n−1."""
    n = rho.shape[-1]
    best = subset_shares(n, k, 1, rho.device)
    rank = torch.arange(1, n, dtype=rho.dtype, device=rho.device)
    total = (rho - 1).cumsum(-1)[..., :-1]
    own = best[:-1] * (k - 1) / (rank - 1).clamp(min=1)  # t = 1 matters with k = 1 only, where k − 1 is 0
    return best[1:] * (1 + (k - 1) / rank * total), best[:-1] + own * total, own


def _checked(
    rewards: Tensor, k: int, ratios: Tensor | None, order: Order | str | None
) -> tuple[Tensor, int, Tensor | None, Order]:
    checked = checked_rewards(rewards, k)
    if order is None:
        order = Order.NONE if ratios is None else Order.EXACT
    order = Order.named(order, "order")
    if ratios is None:
        if order is not Order.NONE:
            raise ValueError(f"order {order.value!r} needs ratios")
        return checked, k, None, Order.NONE
    return checked, k, checked_ratios(ratios, rewards), order
