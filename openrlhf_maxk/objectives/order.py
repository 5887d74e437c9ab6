"""Groups in ascending order of reward, and the share of k-subsets that each rank decides.

In this package a group is sorted by reward before anything is computed, and results are put back in the order given.
Ranks i are 1-based in formulas and 0-based in tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SortedGroups:
    """Groups sorted by reward, ascending and stably."""

    rewards: Tensor  # (..., n)
    order: Tensor  # (..., n) int64: the place each sorted element had

    @classmethod
    def of(cls, rewards: Tensor) -> SortedGroups:
        """Sort finite float64 rewards of shape (..., n).

        As integers of the same order, which torch sorts in two thirds of the time: the bits of a positive float64 grow
        with it, and so do those of a negative one once all below the sign are flipped.
        """
        bits = rewards.contiguous().view(torch.int64)
        keys = (bits >> 63).bitwise_and_(torch.iinfo(torch.int64).max).bitwise_xor_(bits)
        order = keys.sort(dim=-1, stable=True).indices
        return cls(rewards.gather(-1, order), order)

    @property
    def gaps(self) -> Tensor:
        """r_(i+1) − r_(i) for i = 1..n−1, never negative: (..., n−1)."""
        return self.rewards.diff(dim=-1)

    def sort(self, values: Tensor) -> Tensor:
        """Bring values of the completions, (..., n), into this order."""
        return values.gather(-1, self.order)

    def restore(self, values: Tensor) -> Tensor:
        """Put values in this order, (..., n), back where their completions were."""
        return torch.empty_like(values).scatter_(-1, self.order, values)


def subset_shares(n: int, k: int, fixed: int, device: torch.device) -> Tensor:
    """C(i − fixed, k − fixed) / C(n, k) for ranks i = 1..n: (n,) float64.

    The share of all k-subsets of a group whose best member is i and which hold ``fixed`` − 1 given members below it.
    Binomials overflow float64 from n = 1030; this uses the ratio of neighbours instead, downwards from i = n, where
    the share is k(k−1).../(n(n−1)...) with ``fixed`` factors: relative error below 3e-14 up to n = 4096.
    """
    shares = torch.zeros(n, dtype=torch.float64, device=device)
    if k < fixed:
        return shares
    last = 1.0
    for j in range(fixed):
        last *= (k - j) / (n - j)
    rank = torch.arange(n, k, -1, dtype=torch.float64, device=device)
    shares[k - 1 :] = last * torch.cat([rank.new_ones(1), ((rank - k) / (rank - fixed)).cumprod(0)]).flip(0)
    return shares


def sum_below(steps: Tensor) -> Tensor:
    """Σ_{t<i} steps_t for i = 1..n, where step t = 1..n−1 leads from rank t to t + 1: (..., n−1) -> (..., n)."""
    sums = steps.new_zeros(*steps.shape[:-1], steps.shape[-1] + 1)
    torch.cumsum(steps, -1, out=sums[..., 1:])
    return sums


def sum_above(steps: Tensor) -> Tensor:
    """Σ_{t>=i} steps_t for i = 1..n: (..., n−1) -> (..., n). Summed from the far end, nothing is subtracted."""
    return sum_below(steps.flip(-1)).flip(-1)
