"""Elementary symmetric polynomials of growing prefixes, and their derivatives, without overflow or cancellation.

e_m(t) is the sum, over all m-subsets of the first t of n numbers, of the product of the subset's members:

    e_0 = 1,   e_m(t) = e_m(t−1) + ρ_t e_{m−1}(t−1).

Asked for is g(t) = e_s(t)/C(n−1, s) for one s and t = 0..n−1. Both parts leave the range of float64 (C(1030, 515)
does), so the states are kept as e_m(t) · 2^(tilt·m) · 2^(−shrink·⌊t/stretch⌋): with all numbers 1 they are about the
probabilities of m successes in t trials, at the rate of s in n − 1. Powers of two round nothing, and every step adds
non-negative numbers. Dividing a factor out of a finished polynomial is unstable and never done here: what belongs to
single numbers comes from a backward sweep.

Arrays have the numbers along the first dimension: (n, batch). g depends on e_m(t) only within the band
t − (n−1−s) <= m <= min(t, s), at most min(s+1, n−s) states wide, and only the band is computed.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, isqrt, log2

import torch
from torch import Tensor


def leading_shares(ratios: Tensor, size: int) -> Tensor:
    """g(t) for t = 0..n−1: (n, batch) float64. O(n·size) time; memory for a few states of ``size`` numbers."""
    return _Sweep(ratios, size, stretch=8).forward(keep=False)


def shares_and_gradient(ratios: Tensor, size: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """g, and Σ_t weights[t] ∂g(t)/∂ρ_i for every i: (n, batch) each. O(n·size) time; memory for 2√n states."""
    sweep = _Sweep(ratios, size, stretch=isqrt(ratios.shape[0]) + 1)
    return sweep.forward(keep=True), sweep.backward(weights, joined=1)


def shares_and_removal(ratios: Tensor, size: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """g, and Σ_{t>=i} weights[t] g(t) at ρ_i = 0 for every i: (n, batch) each. Costs as :func:`shares_and_gradient`."""
    sweep = _Sweep(ratios, size, stretch=isqrt(ratios.shape[0]) + 1)
    return sweep.forward(keep=True), sweep.backward(weights, joined=0)


class _Sweep:
    """Forward over the numbers, then backward with the states computed a second time, one stretch at a time."""

    def __init__(self, ratios: Tensor, size: int, stretch: int) -> None:
        self.n, batch = ratios.shape
        self.size = size
        self.slack = self.n - 1 - size  # how many of the n − 1 numbers a subset leaves out
        self.stretch = stretch
        self.starts = range(0, self.n - 1, stretch)
        self.tilt = round(log2((size + 1) / (self.slack + 1)))
        self.shrink = round(stretch * log2(1 + 2.0**self.tilt))
        self.tilted = (ratios * 2.0**self.tilt).unbind(0)
        self.states = ratios.new_zeros(stretch + 1, size + 1, batch)  # of one stretch, both its ends included
        self.kept: list[Tensor] = []  # the band at the start of every stretch

    def forward(self, keep: bool) -> Tensor:
        """g(t), (n, batch). ``keep`` what :meth:`backward` needs."""
        size = self.size
        shares = self.states.new_zeros(self.n, self.states.shape[-1])
        band = torch.ones_like(self.states[0, :1])
        if size == 0:
            shares[0] = 1
        for index, start in enumerate(self.starts):
            if keep:
                self.kept.append(band)
            stop = self._fill(index, band)
            torch.mul(self.states[1 : stop - start + 1, size], self._unit(index), out=shares[start + 1 : stop + 1])
            low, high = self._band(stop)
            band = self.states[-1, low:high] * 2.0**-self.shrink
        return shares

    def backward(self, weights: Tensor, joined: int) -> Tensor:
        """Σ_m λ_m(i) e_{m−joined}(i−1) for every i, with λ_m(t) = Σ_t' weights[t'] ∂g(t')/∂e_m(t): (n, batch).

        λ_size(t) = Σ_{t'>=t} weights[t'], and λ_m(t−1) = λ_m(t) + ρ_t λ_{m+1}(t) below.
        """
        size = self.size
        of_top = weights.flip(0).cumsum(0).flip(0)
        result = torch.zeros_like(weights)
        results = result.unbind(0)
        adjoint, earlier, product = (torch.zeros_like(self.states[0]) for _ in range(3))
        for index in reversed(range(len(self.starts))):
            start, stop = self.starts[index], self._fill(index, self.kept.pop())
            states = self.states.unbind(0)
            tops = (of_top[start : stop + 1] * self._unit(index)).unbind(0)
            adjoint *= 2.0**-self.shrink
            for t in range(stop, start, -1):
                adjoint[size] = tops[t - start]
                low, high = self._band(t)
                low = max(low, joined)
                members = product[low:high]
                torch.mul(adjoint[low:high], states[t - 1 - start][low - joined : high - joined], out=members)
                torch.sum(members, 0, out=results[t - 1])
                low, high = self._band(t - 1)
                high = min(high, size)
                torch.addcmul(adjoint[low:high], adjoint[low + 1 : high + 1], self.tilted[t - 1], out=earlier[low:high])
                adjoint, earlier = earlier, adjoint
        return result.mul_(2.0**self.tilt) if joined else result

    def _fill(self, index: int, band: Tensor) -> int:
        """Put the states of stretch ``index``, which begins with ``band``, into ``states``; return its last t."""
        start = self.starts[index]
        stop = min(start + self.stretch, self.n - 1)
        low, high = self._band(start)
        self.states[0, low:high] = band
        self.states[:, 0] = 2.0 ** (-self.shrink * index)  # e_0
        self.states[:, start + 1 : stop + 1] = 0  # e_m(t) = 0 for m > t
        rows = self.states.unbind(0)
        for t in range(start + 1, stop + 1):
            low, high = self._band(t)
            low = max(low, 1)
            before = rows[t - 1 - start]
            torch.addcmul(
                before[low:high], before[low - 1 : high - 1], self.tilted[t - 1], out=rows[t - start][low:high]
            )
        return stop

    def _band(self, t: int) -> tuple[int, int]:
        """The first m for which e_m(t) is needed, and the one after the last that is not 0."""
        return max(0, t - self.slack), min(t, self.size) + 1

    def _unit(self, index: int) -> float:
        """What a state e_size(t) of stretch ``index`` is multiplied with to be g(t)."""
        return float(Fraction(2) ** (self.shrink * index - self.tilt * self.size) / comb(self.n - 1, self.size))
