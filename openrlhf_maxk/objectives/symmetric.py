"""Elementary symmetric polynomials of growing prefixes, and their derivatives, without overflow or cancellation.

e_m(t) is the sum, over all m-subsets of the first t of n numbers, of the product of the subset's members:

    e_0 = 1,   e_m(t) = e_m(t−1) + ρ_t e_{m−1}(t−1).

Asked for is g(t) = e_s(t)/C(n−1, s) for one s and t = 0..n−1. Both parts leave the range of float64 (C(1030, 515)
does), so the states are kept as e_m(t) · 2^(tilt·m − shrink), where shrink grows with every stretch of t: with all
numbers 1 they are about the chance of m successes in t trials, at the rate of s in n − 1. Powers of two round nothing,
and every step adds non-negative numbers. What belongs to single numbers comes from a backward sweep; dividing a factor
out of a finished polynomial would be unstable.

Arrays have the numbers along the first dimension: (n, batch). g depends on e_m(t) only for t − (n−1−s) <= m <= s, and
e_m(t) = 0 for m > t: each stretch computes no more m than it needs. The loops over t are bare of all else, since with
small batches what they cost is the number of calls.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, isqrt, ldexp, log2

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
        self.stretch = stretch
        self.starts = range(0, self.n - 1, stretch)
        self.tilt = round(log2((size + 1) / (self.n - size)))
        self.shrink = [round(start * log2(1 + 2.0**self.tilt)) for start in self.starts]  # of a stretch
        self.tilted = (ratios * 2.0**self.tilt).unbind(0)
        self.states = ratios.new_zeros(stretch + 1, size + 1, batch)  # of one stretch, both its ends included
        subsets = comb(self.n - 1, size)
        self.subset_bits = subsets.bit_length()
        self.per_subset = float(Fraction(2**self.subset_bits, subsets))  # 2^subset_bits / C(n−1, s), rounded once
        self.kept: list[Tensor] = []  # the state at the start of each stretch, as much as the stretch needs of it

    def forward(self, keep: bool) -> Tensor:
        """g(t), (n, batch). ``keep`` what :meth:`backward` needs."""
        shares = self.states.new_zeros(self.n, self.states.shape[-1])
        if self.size == 0:
            shares[0] = 1
        state = torch.ones_like(self.states[0, :1])
        for index, start in enumerate(self.starts):
            if index > 0:
                low, _ = self._band(index)
                state = self.states[-1, low : min(start, self.size) + 1] * self._rescale(index)
            if keep:
                self.kept.append(state)
            stop = self._fill(index, state)
            tops = self.states[1 : stop - start + 1, self.size]
            torch.mul(tops, self._unit(index), out=shares[start + 1 : stop + 1])
        return shares

    def backward(self, weights: Tensor, joined: int) -> Tensor:
        """Σ_m λ_m(i) e_{m−joined}(i−1) for every i, with λ_m(t) = Σ_t' weights[t'] ∂g(t')/∂e_m(t): (n, batch).

        λ_s(t) = Σ_{t'>=t} weights[t'], and λ_m(t−1) = λ_m(t) + ρ_t λ_{m+1}(t) for m < s. Where not computed, λ is 0.
        """
        weights_from = weights.flip(0).cumsum(0).flip(0)
        result = torch.zeros_like(weights)
        results = result.unbind(0)
        now, then = torch.zeros_like(self.states[0]), torch.zeros_like(self.states[0])  # λ(t), λ(t−1)
        products = torch.empty_like(now)
        for index in reversed(range(len(self.starts))):
            start, stop = self.starts[index], self._fill(index, self.kept.pop())
            low, high = self._band(index)
            if stop < self.n - 1:
                now[low : high + 1] *= self._rescale(index + 1)
            tops = (weights_from[start : stop + 1] * self._unit(index)).unbind(0)
            first, end = max(low, joined), min(high + 1, self.size)
            now[end], then[end] = 0, 0  # λ_m(t) with m > t, left over from later t: meets e_m(t) = 0 only
            partners = self.states[:, first - joined : high + 1 - joined].unbind(0)
            product = products[first : high + 1]
            views = [(x, x[self.size], x[first : high + 1], x[low:end], x[low + 1 : end + 1]) for x in (now, then)]
            for t in range(stop, start, -1):
                _, top, factors, same, next_higher = views[0]
                top.copy_(tops[t - start])
                torch.mul(factors, partners[t - 1 - start], out=product)
                torch.sum(product, 0, out=results[t - 1])
                torch.addcmul(same, next_higher, self.tilted[t - 1], out=views[1][3])
                views.reverse()
            now, then = views[0][0], views[1][0]
        return result.mul_(2.0**self.tilt) if joined else result

    def _fill(self, index: int, state: Tensor) -> int:
        """Put the states of a stretch, which starts with ``state``, into ``states``; return its last t."""
        start = self.starts[index]
        stop = min(start + self.stretch, self.n - 1)
        low, high = self._band(index)
        self.states[:, low] = 2.0 ** -self.shrink[index] if low == 0 else 0  # e_0; else not needed beyond the start
        self.states[0] = 0
        self.states[0, low : low + state.shape[0]] = state
        upper = self.states[:, low + 1 : high + 1].unbind(0)
        lower = self.states[:, low:high].unbind(0)
        for step, ratio in enumerate(self.tilted[start:stop]):
            torch.addcmul(upper[step], lower[step], ratio, out=upper[step + 1])
        return stop

    def _band(self, index: int) -> tuple[int, int]:
        """The lowest m needed in a stretch, and the highest for which e_m is not 0 in all of it."""
        start = self.starts[index]
        return max(0, start - (self.n - 1 - self.size)), min(start + self.stretch, self.n - 1, self.size)

    def _rescale(self, index: int) -> float:
        """From the unit of the stretch before to that of stretch ``index``."""
        return 2.0 ** (self.shrink[index - 1] - self.shrink[index])

    def _unit(self, index: int) -> float:
        """What a state e_s(t) of stretch ``index`` is multiplied with to be g(t)."""
        return ldexp(self.per_subset, self.shrink[index] - self.tilt * self.size - self.subset_bits)
