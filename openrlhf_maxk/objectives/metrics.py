"""The metric: the expected best reward among k of a group's n completions."""

from __future__ import annotations

from torch import Tensor

from .checks import as_given, checked_correct, checked_rewards
from .order import subset_shares


def max_at_k(rewards: Tensor, k: int) -> Tensor:
    """Unbiased estimate of the expected best reward among k samples: the mean of max r(I) over all k-subsets I.

    max@k = Σ_i C(i−1, k−1)/C(n, k) r_(i), rewards in ascending order (arXiv:2510.23393, appendix C.1).

    Args:
        rewards: (..., n), any order, finite. Independent samples for one prompt.
        k: 1..n.

    Returns:
        (...), in the floating type of ``rewards``.

    Raises:
        ValueError: see :func:`~openrlhf_maxk.objectives.checks.checked_rewards`.
    """
    ascending = checked_rewards(rewards, k).sort(dim=-1).values
    return as_given(ascending @ subset_shares(ascending.shape[-1], k, 1, ascending.device), rewards)


def pass_at_k(correct: Tensor, k: int) -> Tensor:
    """Unbiased estimate of the chance that at least one of k samples is correct (Chen et al. 2021, arXiv:2107.03374).

    pass@k = 1 − C(n−c, k)/C(n, k) for c correct of n, which is max@k of 0/1 rewards.

    Args:
        correct: (..., n) of 0/1 or booleans.
        k: 1..n.

    Returns:
        (...), in the floating type of ``correct`` (torch's default type for booleans and integers).

    Raises:
        ValueError: as :func:`max_at_k`, or a value other than 0 and 1.
    """
    checked_correct(correct, k)
    return max_at_k(correct, k)
