"""max@k, one sample, and the paper's comparisons. Each is for a loss that averages over the n completions of a group.

In formulas, mean and std are over the group; std divides by n − 1 and has 1e-9 added, as in OpenRLHF. A group of equal
rewards gets 0 everywhere; ``offpolicy_bon_paper`` and ``offpolicy_bon`` without a baseline differ, as said there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..baselines import contrast, gain
from ..choices import Baseline, Form, Order
from ..exact import exact
from ..first_order import first_order
from ..on_policy import on_policy
from ..order import SortedGroups
from ..registry import ObjectiveOptions, register
from ..strategy import MAX, Kind, rank_weights_of
from ..vote import vote_weights


@register("grpo")
def grpo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """GRPO (Shao et al. 2024, arXiv:2402.03300): A_i = (r_i − mean r)/std r.

    Assumes that one sample is drawn when the policy is used: k has no part in it.
    """
    return _z_score(rewards)


@register("rloo")
def rloo(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740): A_i = r_i − mean_{l≠i} r_l.

    The unbiased gradient of the mean reward, at any distance from the sampling policy; k has no part in it.
    """
    return on_policy_gains(rewards, 1)


@register("bon_max_mean")
def bon_max_mean(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """BoN-max mean (Chow et al. 2024, arXiv:2412.15287): A_i = r_i − mean r where r_i = max r, else 0.

    Assumes k = n: only the best of the whole group counts. k has no part in it.
    """
    best = rewards.amax(-1, keepdim=True)
    spread = best > rewards.amin(-1, keepdim=True)  # the mean of equal numbers can differ from them by a rounding
    return torch.where(spread & (rewards == best), best - rewards.mean(-1, keepdim=True), 0.0)


@register("bon_max_second")
def bon_max_second(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """BoN-max second (Tang et al. 2025, arXiv:2503.19595): A_i = r_i − r_second where r_i = max r, else 0.

    r_second is the largest reward below max r, whatever the number of best completions.

    Assumes k = n: only the best of the whole group counts. k has no part in it.
    """
    best = rewards.amax(-1, keepdim=True)
    second = rewards.masked_fill(rewards == best, -torch.inf).amax(-1, keepdim=True)
    return torch.where((rewards == best) & second.isfinite(), best - second, 0.0)


@register("bon_loo1")
def bon_loo1(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """BoN LOO-1 (Tang et al. 2025, arXiv:2503.19595): A_i = (n/C(n,k)) Σ_{I∋i} (max r(I) − max r(I∖i)).

    The definition, not the recursion printed in arXiv:2510.23393, appendix A, which differs from it and is biased.
    Assumes on-policy samples: the others' ratios are taken as 1. k = 1 is RLOO.
    """
    return on_policy_gains(rewards, k)


@register("bon_mean")
def bon_mean(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """BoN mean (arXiv:2510.23393, appendix A): A_i = (r̃_i − mean r̃)/std r̃, with r̃ of eq. 9.

    Assumes on-policy samples. The z-score bends the direction of the gradient, and leaves nothing at k = n.
    """
    groups = SortedGroups.of(rewards)
    return _z_score(groups.restore(on_policy(groups, MAX.rank_weights(k))))


@register("offpolicy_bon_paper", form=Form.SCORE)
def offpolicy_bon_paper(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """Off-policy BoN as arXiv:2510.23393 describes it: the z-score of w′r (section 3.3), used as GRPO's advantage.

    Assumes ratios near 1. Kept as it is, for comparison: w′ carries the completion's own ratio already, so in a PPO
    loss that ratio counts twice; the z-score bends the direction; a group of equal rewards gets advantages that come
    from its ratios alone. ``offpolicy_bon`` has none of the three.
    """
    groups = SortedGroups.of(rewards)
    weights = first_order(groups, groups.sort(ratios), MAX.rank_weights(k), Form.SCORE)
    return _z_score(groups.restore(weights))


@register("offpolicy_bon")
def offpolicy_bon(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """Off-policy max@k: A_i = n · (1/C(n,k)) Σ_{I∋i} ρ(I∖i) (max r(I) − baseline), eq. 10 in ratio form.

    With the exact correction the expected gradient is that of max@k at any distance between π and μ, with any baseline:

    * ``marginal``: max r(I∖i), LOO-1. Never negative.
    * ``leave_one_out``: the mean of max r(I∖i+l) over the others l, LOO(k). Sums to 0. A group of just k completions
      has no others, and gets ``marginal``.
    * ``none``: 0. A group of equal rewards keeps its weights: without them the gradient would be biased.

    ``correction``: ``exact``; ``first`` replaces ρ(I∖i) by 1 + Σδ; ``none`` by 1. ``strategy``: another worth of k
    samples than their maximum; then ``marginal`` is the worth with the lowest of the others in the place of i.
    ``selected`` goes by scores, ``vote`` by keys; ``vote`` has no first-order correction, and its ``marginal`` is the
    worth without i.
    """
    n = rewards.shape[-1]
    if options.strategy.kind is Kind.VOTE:
        return n * _vote(rewards, k, ratios, options)
    groups, ranks = SortedGroups.of(rewards, options.chosen_by), rank_weights_of(options.strategy, k)
    rho = groups.sort(ratios)
    if options.baseline is Baseline.LEAVE_ONE_OUT and k < n:
        weights = contrast(groups, rho, ranks, options.correction)
    elif options.baseline is not Baseline.NONE:
        weights = gain(groups, rho, ranks, options.correction)
    elif options.correction is Order.NONE:
        weights = on_policy(groups, ranks)
    else:
        order = exact if options.correction is Order.EXACT else first_order
        weights = order(groups, rho, ranks, Form.RATIO)
    return n * groups.restore(weights)


def _vote(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    assert options.chosen_by is not None
    if options.correction is Order.FIRST:
        raise ValueError("strategy vote has no first-order correction: use exact or none")
    given = None if options.correction is Order.NONE else ratios
    return vote_weights(rewards, options.chosen_by, k, given, options.baseline)


@register("grpo_passk")
def grpo_passk(rewards: Tensor, k: int, ratios: Tensor, options: ObjectiveOptions) -> Tensor:
    """verl's ``grpo_passk``: A_i = (r_(n) − r_(n−1))/std r for one best completion, else 0.

    Assumes k = n: only the best of the whole group counts, and two equally good ones get nothing. k has no part in it.
    """
    if rewards.shape[-1] == 1:
        return torch.zeros_like(rewards)
    top = rewards.topk(2, dim=-1)
    lead = (top.values[..., :1] - top.values[..., 1:]) / _std(rewards)
    return torch.zeros_like(rewards).scatter_(-1, top.indices[..., :1], lead)


def on_policy_gains(rewards: Tensor, k: int) -> Tensor:
    """n times the marginal gain of on-policy samples."""
    groups = SortedGroups.of(rewards)
    return rewards.shape[-1] * groups.restore(gain(groups, None, MAX.rank_weights(k), Order.NONE))


def _z_score(values: Tensor) -> Tensor:
    """(x − mean)/(std + 1e-9) of each group, exactly 0 where all are equal."""
    spread = values.amax(-1, keepdim=True) > values.amin(-1, keepdim=True)
    return torch.where(spread, (values - values.mean(-1, keepdim=True)) / _std(values), 0.0)


def _std(values: Tensor) -> Tensor:
    """std + 1e-9 of each group, (..., 1)."""
    squares = (values - values.mean(-1, keepdim=True)).square().sum(-1, keepdim=True)
    return (squares / max(values.shape[-1] - 1, 1)).sqrt() + 1e-9
