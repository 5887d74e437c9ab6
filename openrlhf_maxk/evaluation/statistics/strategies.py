"""Unbiased estimates of what k samples of a problem are worth, by how they are used, from its n samples.

The formulas are those that training follows (:mod:`openrlhf_maxk.objectives`): the mean over all k-subsets. A problem
with fewer than k samples has no unbiased estimate: its value is NaN. What a verifier selects is in ``selection.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray, by_size, checked_ks
from openrlhf_maxk.objectives import Strategy, value_at_k


def strategy_at_k(rewards: Sequence[npt.ArrayLike] | FloatArray, ks: npt.ArrayLike, strategy: str) -> FloatArray:
    """What k samples are worth by a strategy that looks at their rewards: ``min``, ``mean_of_best:q``, ``quantile:p``.

    With 0/1 rewards, ``min`` is pass^k (Yao et al. 2024, arXiv:2406.12045), the chance that all k samples are correct.

    Args:
        rewards: shape (P, n), or P one-dimensional groups whose sizes may differ; any finite numbers, in any order.
        ks: shape (K,).
        strategy: see :meth:`openrlhf_maxk.objectives.Strategy.parse`.

    Returns:
        Shape (P, K), NaN where k exceeds a problem's samples, or is below what the strategy looks at.

    Raises:
        ValueError: an unknown strategy, or one that rewards are not enough for; a reward that is not finite.
    """
    parsed = Strategy.parse(strategy)
    return _by_group(rewards, ks, lambda group, k: value_at_k(group, k, parsed), parsed.smallest_k)


def g_pass_at_k(correct: Sequence[npt.ArrayLike] | FloatArray, ks: npt.ArrayLike, share: float) -> FloatArray:
    """G-Pass@k (Liu et al. 2024, arXiv:2412.13147): the chance that at least ``share`` of k samples are correct.

    Σ_j C(c,j) C(n−c,k−j)/C(n,k) for j from ⌈share·k⌉ on, c of n being correct: the ⌈share·k⌉-th best of k 0/1 rewards.
    A small share makes it pass@k, 1 makes it pass^k.

    Args:
        correct: 0/1 or booleans, as the rewards of :func:`strategy_at_k`.
        ks: shape (K,).
        share: above 0, at most 1.

    Returns:
        Shape (P, K), NaN where k exceeds a problem's samples.

    Raises:
        ValueError: a share out of range, or a value other than 0 and 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of correct samples must be above 0 and at most 1, not {share}")
    groups = [np.asarray(group, dtype=np.float64) for group in correct]
    if any(not np.isin(group, (0.0, 1.0)).all() for group in groups):
        raise ValueError("correct must be 0 or 1 for every sample; leave unscored samples out")

    def estimate(group: torch.Tensor, k: int) -> torch.Tensor:
        needed = ceil(round(share * k, 9))  # 0.07 · 100 is a little more than 7 in floating point
        return value_at_k(group, k, [float(m == needed) for m in range(1, k + 1)])

    return _by_group(groups, ks, estimate)


def majority_at_k(
    rewards: Sequence[npt.ArrayLike] | FloatArray, answers: Sequence[Sequence[Hashable]], ks: npt.ArrayLike
) -> FloatArray:
    """maj@k: the mean reward of the samples with the answer that is given most often among k; ties share evenly.

    A sample that gives no answer takes a place among the k and has no vote. k samples without any answer are worth
    their mean reward.

    Args:
        rewards: as for :func:`strategy_at_k`.
        answers: one a sample, whatever can be compared: equal ones are votes for the same. None: there is no answer.
        ks: shape (K,).

    Returns:
        Shape (P, K), NaN where k exceeds a problem's samples.

    Raises:
        ValueError: a problem with another number of answers than rewards; a reward that is not finite.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in rewards]
    by_size(groups)  # every reward is a finite number
    ks = checked_ks(ks)
    out = np.full((len(groups), len(ks)), np.nan)
    for p, (group, own) in enumerate(zip(groups, answers, strict=True)):
        if len(group) != len(own):
            raise ValueError(f"problem {p} has {len(group)} rewards and {len(own)} answers")
        number = {answer: index for index, answer in enumerate(dict.fromkeys(a for a in own if a is not None), start=1)}
        keys = np.asarray([0 if answer is None else number[answer] for answer in own], dtype=np.int64)
        counts = np.bincount(keys, minlength=1)
        worth = np.bincount(keys, weights=group, minlength=1) / np.maximum(counts, 1)
        for column, k in enumerate(ks.tolist()):
            if k <= len(group):
                out[p, column] = group[0] if np.all(group == group[0]) else _majority(counts, worth, k)
    return out


def _majority(counts: IntArray, worth: FloatArray, k: int) -> float:
    """maj@k of a problem with so many samples of each answer, with this mean reward; the first are without answer.

    Let every sample be drawn by itself with probability k/n: given that k are drawn, they are a k-subset like any
    other. So answers are independent binomials, polynomials in z whose coefficient of z^k is wanted. For each number
    of votes that may be the most, those answers that cannot have so many are one binomial; the others are multiplied
    in one by one, in arrays of how many are tied (rows) by samples drawn (columns): without and with the answer whose
    worth it is. O(n k²), and no number is above 1.
    """
    n = int(counts.sum())
    most_votes = int(counts[1:].max(initial=0))
    if k == n:
        return float(worth[1:][counts[1:] == most_votes].mean() if most_votes else worth[0])
    rate = k / n
    chance = {c: binom.pmf(np.arange(c + 1), c, rate) for c in set(counts.tolist())}
    silent = int(counts[0])
    total = worth[0] * binom.pmf(k, silent, rate) * (1 - rate) ** (n - silent) if silent >= k else 0.0
    for most in range(1, min(most_votes, k) + 1):
        if silent + np.minimum(counts[1:], most).sum() < k:
            continue  # with k drawn, some answer has more votes
        able = np.flatnonzero(counts[1:] >= most) + 1
        ties = min(k // most, len(able))
        so_far = np.zeros((2, ties + 1, k + 1))
        so_far[0, 0] = binom.pmf(np.arange(k + 1), n - counts[able].sum(), rate)
        for answer in able:
            votes = chance[int(counts[answer])]
            grown = np.zeros_like(so_far)
            for fewer in range(most):
                grown[:, :, fewer:] += votes[fewer] * so_far[:, :, : k + 1 - fewer]
            tied = votes[most] * so_far[:, :-1, : k + 1 - most]
            tied[1] += worth[answer] * tied[0]
            grown[:, 1:, most:] += tied
            so_far = grown
        total += np.sum(so_far[1, 1:, k] / np.arange(1, ties + 1))
    return float(total / binom.pmf(k, n, rate))


def _by_group(
    rewards: Sequence[npt.ArrayLike] | FloatArray,
    ks: npt.ArrayLike,
    estimate: Callable[[torch.Tensor, int], torch.Tensor],
    smallest_k: int = 1,
) -> FloatArray:
    """``estimate`` of (groups, n) rewards and k, for all groups of one size together."""
    ks = checked_ks(ks)
    sizes, together = by_size(rewards)
    out = np.full((len(sizes), len(ks)), np.nan)
    for rows, group in together:
        for column, k in enumerate(ks):
            if smallest_k <= k <= group.shape[1]:
                out[rows, column] = estimate(torch.from_numpy(group), int(k)).numpy()
    return out
