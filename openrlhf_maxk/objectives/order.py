"""Groups in ascending order, and the share of k-subsets that each rank decides.

In this package a group is sorted before anything is computed, by reward or by a score, and results are put back in the
order given. Ranks i are 1-based in formulas and 0-based in tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from .checks import checked_rewards, checked_scores
from .strategy import Strategy


@dataclass(frozen=True, slots=True)
class SortedGroups:
    """Groups in ascending order of reward, or of a score."""

    rewards: Tensor  # (..., n)
    order: Tensor  # (..., n) int64: the place each sorted element had

    @classmethod
    def of(cls, rewards: Tensor, scores: Tensor | None = None) -> SortedGroups:
        """Sort finite float64 rewards of shape (..., n), stably, by themselves or by ``scores`` of the same shape.

        Of equal scores the first drawn is the highest, which is a rule that one can deploy.
        """
        if scores is None:
            order = _sortable(rewards).sort(dim=-1, stable=True).indices
        else:
            order = scores.shape[-1] - 1 - _sortable(scores).flip(-1).sort(dim=-1, stable=True).indices
        return cls(rewards.gather(-1, order), order)

    @property
    def gaps(self) -> Tensor:
        """r_(i+1) − r_(i) for i = 1..n−1, never negative where rewards are what is sorted by: (..., n−1)."""
        return self.rewards.diff(dim=-1)

    def sort(self, values: Tensor) -> Tensor:
        """Bring values of the completions, (..., n), into this order."""
        return values.gather(-1, self.order)

    def restore(self, values: Tensor) -> Tensor:
        """Put values in this order, (..., n), back where their completions were."""
        return torch.empty_like(values).scatter_(-1, self.order, values)


def places(scores: Tensor) -> Tensor:
    """The places of a group in ascending order of finite ``scores``, of equal ones the first last: (n,) int64."""
    order = SortedGroups.of(torch.zeros_like(scores), scores).order
    return torch.empty_like(order).scatter_(-1, order, torch.arange(len(order)))


def sorted_groups(
    rewards: Tensor, k: int, strategy: Strategy | str | Sequence[float], scores: Tensor | None
) -> SortedGroups:
    """Check groups and put them into the order that a strategy looks at: by their rewards, or by ``scores``.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`.
    """
    return SortedGroups.of(checked_rewards(rewards, k), checked_scores(scores, rewards, strategy))


def _sortable(values: Tensor) -> Tensor:
    """Integers in the order of finite float64 values, which torch sorts in two thirds of the time.

    The bits of a positive float64 grow with it, and so do those of a negative one once all below the sign are flipped.
    """
    bits = values.contiguous().view(torch.int64)
    return (bits >> 63).bitwise_and_(torch.iinfo(torch.int64).max).bitwise_xor_(bits)


def rank_shares(n: int, size: int, weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Σ_a weights[a] · C(t, size−a) C(n−t, a) / C(n, size) for t = 0..n: (n + 1,) float64.

    Of all subsets of ``size`` of n ranks, the share with a members above rank t, times what ``weights`` say of a. 0
    where there are no such subsets. Binomials overflow float64 from n = 1030; this uses the ratio of neighbours, from
    the largest share on, which is known exactly.
    """
    if n < 0 or not 0 <= size <= n:
        return torch.zeros(max(n + 1, 0), dtype=torch.float64, device=device)
    return _rank_shares(n, size, weights[: size + 1]).to(device)


@functools.lru_cache(maxsize=256)
def _rank_shares(n: int, size: int, weights: tuple[float, ...]) -> Tensor:
    with torch.inference_mode(False):  # what is kept may be used anywhere
        total = torch.zeros(n + 1, dtype=torch.float64)
        for a, weight in enumerate(weights):
            if weight == 0:
                continue
            below = size - a
            peak = min(max((below * n - a) // size + 1, below), n - a) if size else 0
            t = torch.arange(below, n - a, dtype=torch.float64)
            steps = (t + 1) / (t + 1 - below) * ((n - t - a) / (n - t))  # from t to t + 1
            rising, falling = steps[: peak - below], steps[peak - below :]
            shares = torch.cat([(1 / rising).flip(0).cumprod(0).flip(0), torch.ones(1).double(), falling.cumprod(0)])
            share = comb(peak, below) * comb(n - peak, a) / comb(n, size)
            total[below : n - a + 1] += weight * share * shares
        return total


def sum_below(steps: Tensor) -> Tensor:
    """Σ_{t<i} steps_t for i = 1..n, where step t = 1..n−1 leads from rank t to t + 1: (..., n−1) -> (..., n)."""
    sums = steps.new_zeros(*steps.shape[:-1], steps.shape[-1] + 1)
    torch.cumsum(steps, -1, out=sums[..., 1:])
    return sums


def sum_above(steps: Tensor) -> Tensor:
    """Σ_{t>=i} steps_t for i = 1..n: (..., n−1) -> (..., n). Summed from the far end, nothing is subtracted."""
    return sum_below(steps.flip(-1)).flip(-1)
