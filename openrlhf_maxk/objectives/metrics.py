"""The metrics: what k of a group's n completions are expected to be worth, by how they are used."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .checks import as_given, checked_choices, checked_correct
from .order import rank_shares, sorted_groups
from .strategy import MAX, Kind, Strategy, rank_weights_of
from .vote import vote_at_k


def value_at_k(
    rewards: Tensor, k: int, strategy: Strategy | str | Sequence[float], scores: Tensor | None = None
) -> Tensor:
    """Unbiased estimate of what k samples are worth: the mean of Σ_m c_m · (m-th best of I) over all k-subsets I.

    Σ_j r_(j) Σ_m c_m C(j−1, k−m) C(n−j, m−1)/C(n, k), rewards in ascending order. On 0/1 rewards, ``max`` is pass@k and
    ``min`` is pass^k (Yao et al. 2024, arXiv:2406.12045), the chance that all k samples are correct.

    Args:
        rewards: (..., n), any order, finite. Independent samples for one prompt.
        k: 1..n.
        strategy: a :class:`Strategy`, its name, or c_1 … c_k, the weight of the best first.
        scores: (..., n), finite; samples are put in order by these instead of by their rewards, of equal ones the first
            drawn is the better. ``selected`` needs them.

    Returns:
        (...), in the floating type of ``rewards``.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks` and :func:`~.strategy.rank_weights_of`.
    """
    groups = sorted_groups(rewards, k, strategy, scores)
    weights = rank_weights_of(strategy, k)
    n = rewards.shape[-1]
    shares = rank_shares(n - 1, k - 1, weights.values, rewards.device)
    return as_given(groups.rewards @ (k / n * shares), rewards)


def worth_at_k(rewards: Tensor, k: int, strategy: Strategy | str, chosen_by: Tensor | None = None) -> Tensor:
    """Unbiased estimate of what k samples are worth by any strategy that has a name.

    Args:
        rewards, k: as for :func:`value_at_k`.
        strategy: a :class:`Strategy` or its name.
        chosen_by: (..., n), scores of ``selected``, integer keys of ``vote``; other strategies do not look at it.

    Returns:
        (...), in the floating type of ``rewards``.

    Raises:
        ValueError: as :func:`value_at_k`; ``selected`` or ``vote`` without anything to choose by.
    """
    strategy = Strategy.parse(strategy)
    chosen_by = checked_choices(chosen_by, rewards, strategy)
    if strategy.kind is Kind.VOTE:
        assert chosen_by is not None
        return vote_at_k(rewards, chosen_by, k)
    return value_at_k(rewards, k, strategy, chosen_by)


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
    return value_at_k(rewards, k, MAX)


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
