"""Unbiased estimates of what k samples of a problem are worth, by how they are used, from its n samples.

The formulas are those that training follows (:mod:`openrlhf_maxk.objectives`): the mean over all k-subsets. A problem
with fewer than k samples has no unbiased estimate: its value is NaN. What a verifier selects is in ``selection.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import ceil

import numpy as np
import numpy.typing as npt
import torch

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, by_size, checked_ks
from openrlhf_maxk.objectives import Strategy, value_at_k, vote_at_k


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

    Args:
        rewards: as for :func:`strategy_at_k`.
        answers: one a sample, whatever can be compared: equal ones are votes for the same.
        ks: shape (K,).

    Returns:
        Shape (P, K), NaN where k exceeds a problem's samples.

    Raises:
        ValueError: a problem with another number of answers than rewards; a reward that is not finite.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in rewards]
    out = np.full((len(groups), len(checked_ks(ks))), np.nan)
    for p, (group, own) in enumerate(zip(groups, answers, strict=True)):
        if len(group) != len(own):
            raise ValueError(f"problem {p} has {len(group)} rewards and {len(own)} answers")
        number = {answer: index for index, answer in enumerate(dict.fromkeys(own))}
        keys = torch.tensor([[number[answer] for answer in own]])
        out[p] = _by_group([group], ks, partial(_majority, keys))[0]
    return out


def _majority(keys: torch.Tensor, rewards: torch.Tensor, k: int) -> torch.Tensor:
    return vote_at_k(rewards, keys, k)


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
