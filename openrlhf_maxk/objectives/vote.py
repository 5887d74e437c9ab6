"""Majority vote: of k samples the answer is kept that is given most often.

Each completion has a *key*, its answer (for a program: what it prints on given inputs). A k-subset is worth the mean
reward of the completions that have its most frequent key; keys that are tied share evenly. A completion that gives no
answer (``NO_VOTE``) takes a place among the k and has no vote: a key of its own would tie with every answer that is
given once. A subset in which nobody votes is worth its mean reward, one of it being handed on. With E_d(m) the
elementary symmetric polynomials of the ratios of the completions with key d, and E_∅ those without a vote, the
off-policy estimate of what the vote is worth is

    F(ρ) = (1/C(n,k)) (R_∅(k) + Σ_a [z^k] Σ_m E_∅(m) z^m
               Σ_T (1/|T|) Σ_{c∈T} R_c(a) z^a Π_{d∈T, d≠c} E_d(a) z^a Π_{d∉T} Σ_{m<a} E_d(m) z^m),

over the most votes a and the sets T of keys that have so many, where R_c(a) is Σ ρ(A) mean r(A) over the subsets A of
a completions with key c. Keys are taken one after the other, in polynomials of z, for each |T| and with or without c
being among them already. F is linear in each ρ_i; derivatives are by automatic differentiation of just this, in
float64. Dividing a key out of a product would be unstable.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor
from torch.nn.functional import pad

from .checks import as_given, checked_keys, checked_ratios, checked_rewards
from .choices import Baseline

NO_VOTE = -1  # the key of a completion that gives no answer; so is every other key below 0
AT_ONCE = 16  # groups: what differentiation keeps of them


def vote_at_k(rewards: Tensor, keys: Tensor, k: int) -> Tensor:
    """Unbiased estimate of maj@k, what the majority of k samples is worth: its mean over all k-subsets.

    Args:
        rewards: (..., n), finite. Independent samples for one prompt.
        keys: (..., n) integers; equal ones are votes for the same answer, those below 0 (``NO_VOTE``) are none.
        k: 1..n.

    Returns:
        (...), in the floating type of ``rewards``.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`.
    """
    checked = checked_rewards(rewards, k)
    keys = checked_keys(keys, rewards)
    n = checked.shape[-1]
    if checked.numel() == 0:
        return as_given(checked.sum(-1), rewards)
    rows = (x.reshape(-1, n).split(AT_ONCE) for x in (checked, torch.ones_like(checked), keys))
    values = [_value(r, one, votes, k) for r, one, votes in zip(*rows, strict=True)]
    return as_given(torch.cat(values).reshape(rewards.shape[:-1]), rewards)


def vote_weights(
    rewards: Tensor,
    keys: Tensor,
    k: int,
    ratios: Tensor | None = None,
    baseline: Baseline | str = Baseline.MARGINAL,
) -> Tensor:
    """Weights of majority voting in ratio form (on-policy: Tang et al. 2025, arXiv:2503.19595).

    A_i = ∂F/∂ρ_i − b_i = (1/C(n,k)) Σ_{S∌i} ρ(S) (vote(S+i) − baseline), S of k − 1 others; without ratios all are 1.
    Unbiased at any distance between π and μ, with any baseline, as none of them depends on completion i:

    * ``marginal``: vote(S). With k = 1, the mean of the other rewards (RLOO); a group of one gets 0.
    * ``leave_one_out``: the mean of vote(S+l) over the others l; sums to 0. A group of just k completions has no
      others, and gets ``marginal``.
    * ``none``: 0.

    O(keys · votes · k³) time, votes being the most that a key has.

    Args:
        rewards, keys, k: as for :func:`vote_at_k`.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        baseline: what is subtracted.

    Returns:
        (..., n), in the floating type of ``rewards``: the sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`; an unknown ``baseline``.
    """
    checked = checked_rewards(rewards, k)
    baseline = Baseline.named(baseline, "baseline")
    n = checked.shape[-1]
    rho = torch.ones_like(checked) if ratios is None else checked_ratios(ratios, rewards)
    if checked.numel() == 0 or (n == 1 and baseline is not Baseline.NONE):
        return as_given(torch.zeros_like(checked), rewards)
    if k == 1 and baseline is Baseline.MARGINAL:
        baseline = Baseline.LEAVE_ONE_OUT
    elif k == n and baseline is Baseline.LEAVE_ONE_OUT:
        baseline = Baseline.MARGINAL
    if baseline is not Baseline.NONE:
        checked = checked - checked[..., :1]  # changes nothing, but equal rewards are exactly 0
    rows = [x.reshape(-1, n).split(AT_ONCE) for x in (checked, rho, checked_keys(keys, rewards))]
    parts = [_weights(r, rho, votes, k, baseline) for r, rho, votes in zip(*rows, strict=True)]
    return as_given(torch.cat(parts).reshape(rewards.shape), rewards)


def _weights(rewards: Tensor, ratios: Tensor, keys: Tensor, k: int, baseline: Baseline) -> Tensor:
    """:func:`vote_weights` of (batch, n)."""
    n = rewards.shape[1]
    with torch.inference_mode(False), torch.enable_grad():
        rewards, keys, rho = rewards.clone(), keys.clone(), ratios.clone().requires_grad_()
        (weights,) = torch.autograd.grad(_value(rewards, rho, keys, k).sum(), rho, create_graph=True)
        if baseline is Baseline.LEAVE_ONE_OUT:
            # With ε added to every ratio, dF/dε = Σ_l A_l. At ρ_i = 0, without A_i, it is (n−k) times the baseline.
            (mixed,) = torch.autograd.grad(weights.sum(), rho, allow_unused=True, materialize_grads=True)
            baselines = (weights.sum(-1, keepdim=True) - weights - rho * mixed) / (n - k)
        elif baseline is Baseline.MARGINAL:
            fewer = _value(rewards, rho, keys, k - 1)
            (slopes,) = torch.autograd.grad(fewer.sum(), rho)
            baselines = (fewer.unsqueeze(-1) - rho * slopes) * (k / (n - k + 1))  # C(n, k−1)/C(n, k)
        else:
            baselines = torch.zeros_like(weights)
        return (weights - baselines).detach()


def _value(rewards: Tensor, ratios: Tensor, keys: Tensor, k: int) -> Tensor:
    """F of (batch, n), open to autograd by the ratios: (batch,)."""
    batch, n = rewards.shape
    sums, means = _of_keys(rewards, ratios, keys, k)
    abstained = pad(sums[:, 0], (0, k + 1 - sums.shape[-1]))
    total = means[:, 0, k] if k < means.shape[-1] else rewards.new_zeros(batch)
    for most in range(1, sums.shape[-1]):
        # Products over the keys so far: by how many have the most votes, and powers of z. With c among those, or not.
        without = pad(abstained[:, None], (0, 0, 0, k // most))
        with_c = torch.zeros_like(without)
        for key in range(1, sums.shape[1]):
            fewer = pad(sums[:, key, :most], (k, k + 1 - most)).unfold(-1, k + 1, 1).flip(-2)  # row z: from z to z′
            same, winner = sums[:, key, most, None, None], means[:, key, most, None, None]
            with_c = with_c @ fewer + _joined(with_c, most) * same + _joined(without, most) * winner
            without = without @ fewer + _joined(without, most) * same
        ties = torch.arange(1, k // most + 1, dtype=rewards.dtype, device=rewards.device)
        total = total + (with_c[:, 1:, k] / ties).sum(-1)
    return total / float(comb(n, k))  # torch takes integers of 64 bits


def _joined(products: Tensor, most: int) -> Tensor:
    """One key more, with ``most`` votes: (batch, keys, powers)."""
    return pad(products[:, :-1, : products.shape[2] - most], (most, 0, 1, 0))


def _of_keys(rewards: Tensor, ratios: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """E_d(m) and R_d(m) for m from 0 to the most that have a key: (batch, keys, m) each. Key 0 is no vote."""
    ordered, order = keys.clamp(min=NO_VOTE).sort(dim=-1, stable=True)
    new = pad((ordered.diff(dim=-1) != 0).long(), (1, 0))
    key = new.cumsum(-1) + (ordered[..., :1] > NO_VOTE)
    place = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
    turn = place - torch.where(new.bool(), place, 0).cummax(-1).values  # which of the completions with its key
    shape = (len(keys), int(key.max()) + 1, int(turn.max()) + 1)
    row = torch.arange(len(keys), device=keys.device)[:, None].expand_as(keys)
    rho, r = (
        torch.zeros(shape).to(rewards).index_put((row, key, turn), x.gather(-1, order)) for x in (ratios, rewards)
    )
    top = min(shape[2], k)
    sums = pad(rho.new_ones(*shape[:2], 1), (0, top))
    values = torch.zeros_like(sums)  # Σ_A ρ(A) Σ r(A)
    for ratio, reward in zip(rho.unbind(-1), r.unbind(-1), strict=True):
        ratio, one_more = ratio.unsqueeze(-1), pad(sums[..., :-1], (1, 0))
        values = values + ratio * (pad(values[..., :-1], (1, 0)) + reward.unsqueeze(-1) * one_more)
        sums = sums + ratio * one_more
    return sums, values / torch.arange(top + 1, device=keys.device).clamp(min=1)
