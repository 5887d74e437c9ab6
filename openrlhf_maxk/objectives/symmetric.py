"""Elementary symmetric polynomials of growing prefixes, and their derivatives, without overflow or cancellation.

e_m(t) is the sum, over all m-subsets of the first t of n numbers, of the product of the subset's members:

    e_0 = 1,   e_m(t) = e_m(t−1) + ρ_t e_{m−1}(t−1),

and ē_a(t) the same for the last n − t. Asked for are sums over t of products of the two, of degree s = a + m together,
by a weight for each t and a: a subset has a of its members above t. They are divided by C(n−1, s). Both parts leave the
range of float64 (C(1030, 515) does), so the states are kept as e_m(t) · 2^(tilt·m − shrink), where shrink grows with
every stretch of t: with all numbers 1 they are about the chance of m successes in t trials, at the rate of s in n − 1.
Powers of two round nothing, and every step adds non-negative numbers. What belongs to single numbers comes from a
backward sweep; dividing a factor out of a finished polynomial would be unstable.

Arrays have the numbers along the first dimension: (n, batch). What is asked for depends on e_m(t) only for
t − (n−1−s) <= m, on ē_a(t) only for a in the range that counts, and e_m(t) = 0 for m > t: each stretch computes no more
than it needs. For the maximum a is 0, and no ē is computed at all. The loops over t are bare of all else, since with
small batches what they cost is the number of calls.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, isqrt, ldexp, log2

import torch
from torch import Tensor


def leading_shares(ratios: Tensor, size: int) -> Tensor:
    """e_s(t)/C(n−1, s), t = 0..n−1: (n, batch) float64. O(n·size) time; memory for a few states of ``size`` numbers."""
    return _Sweep(ratios, size, 0, 0, stretch=8).forward(keep=False)


def shares_and_removal(ratios: Tensor, size: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """g(t) = :func:`leading_shares`, and Σ_{t>=i} weights[t] g(t) at ρ_i = 0 for every i: (n, batch) each.

    O(n·size) time; memory for 2√n states.
    """
    sweep = _Sweep(ratios, size, 0, 0)
    return sweep.forward(keep=True), sweep.backward(weights, None)


def removal(ratios: Tensor, size: int, weights: Tensor, table: Tensor) -> Tensor:
    """Σ_{t>=i} weights[t] Σ_a table[t, a] ē_a(t) e_{s−a}(t) at ρ_i = 0 for every i, over C(n−1, s): (n, batch).

    ``table``: (n, s + 1), on the CPU. O(n·size) time; memory for 2√n states.
    """
    sweep = _Sweep(ratios, size, *_support(table))
    sweep.forward(keep=True)
    return sweep.backward(weights, table)


def derivative(ratios: Tensor, size: int, values: Tensor, ranks: Tensor) -> Tensor:
    """∂/∂ρ_i of Σ_j values[j] ρ_j Σ_a ranks[a] ē_a(j) e_{s−a}(j−1), over C(n−1, s), for every i: (n, batch).

    ``ranks``: (s + 1,), on the CPU. Terms in which j is above i come from a sweep over prefixes, those in which it is
    below from the same over suffixes, and are none for the maximum. O(n·size) time; memory for 2√n states.
    """
    first, last = _support(ranks)
    weights = values * ratios
    sweep = _Sweep(ratios, size, first, last)
    shares = sweep.forward(keep=True)
    if last == 0:  # j itself: no member above it
        return sweep.backward(weights, None, joined=1).addcmul_(values, shares).mul_(ranks[0])
    table = ranks.expand(len(ratios), -1)
    result = sweep.backward(weights, table, joined=1, own=values)
    mirrored = _Sweep(ratios.flip(0), size, size - last, size - first)
    mirrored.forward(keep=True)
    return result + mirrored.backward(weights.flip(0), table.flip(1), joined=1).flip(0)


def _support(table: Tensor) -> tuple[int, int]:
    """The smallest and the largest a that counts."""
    counts = table.reshape(-1, table.shape[-1]).ne(0).any(0).nonzero()
    return (int(counts[0]), int(counts[-1])) if len(counts) else (0, 0)


class _Sweep:
    """Forward over the numbers, then backward with the states computed a second time, one stretch at a time.

    A subset has between ``first`` and ``last`` members above t, so that e is needed up to degree s − first.
    """

    def __init__(self, ratios: Tensor, size: int, first: int, last: int, stretch: int | None = None) -> None:
        self.n, batch = ratios.shape
        self.size, self.first, self.last = size, first, last
        self.top = size - first
        self.stretch = isqrt(self.n) + 1 if stretch is None else stretch
        self.starts = range(0, self.n - 1, self.stretch)
        self.tilt = round(log2((size + 1) / (self.n - size)))
        self.rate = log2(1 + 2.0**self.tilt)
        self.shrink = [round(start * self.rate) for start in self.starts]  # of a stretch
        self.tilted = (ratios * 2.0**self.tilt).unbind(0)
        self.states = ratios.new_zeros(self.stretch + 1, self.top + 1, batch)  # of one stretch, both its ends included
        subsets = comb(self.n - 1, size)
        self.subset_bits = subsets.bit_length()
        self.per_subset = float(Fraction(2**self.subset_bits, subsets))  # 2^subset_bits / C(n−1, s), rounded once
        self.kept: list[Tensor] = []  # the state at the start of each stretch, as much as the stretch needs of it

    def forward(self, keep: bool) -> Tensor:
        """e_s(t)/C(n−1, s) where it is of use, with first = 0: (n, batch). ``keep`` what :meth:`backward` needs."""
        shares = self.states.new_zeros(self.n, self.states.shape[-1])
        if self.size == 0:
            shares[0] = 1
        state = torch.ones_like(self.states[0, :1])
        for index, start in enumerate(self.starts):
            low, high = self._band(index)
            if low > high:
                return shares  # from here on, more members would be above t than count
            if index > 0:
                state = self.states[-1, low : min(start, self.top) + 1] * self._rescale(index)
            if keep:
                self.kept.append(state)
            stop = self._fill(index, state)
            if self.first == 0:
                tops = self.states[1 : stop - start + 1, self.size]
                torch.mul(tops, self._unit(index), out=shares[start + 1 : stop + 1])
        return shares

    def backward(self, weights: Tensor, table: Tensor | None, joined: int = 0, own: Tensor | None = None) -> Tensor:
        """Σ_m λ_m(i) e_{m−joined}(i−1) for every i: (n, batch).

        λ_m(t) is what e_m(t) counts at t and later: λ_m(t−1) = λ_m(t) + ρ_t λ_{m+1}(t), and with each t joins what it
        counts there, weights[t] table[t, s−m] ē_{s−m}. Where not computed, λ is 0. With ``joined``, ē is of what is
        above t + 1, and ``own`` times Σ_a table[i−1, a] ē_a(i) e_{s−a}(i−1) is added.
        """
        tail = None if table is None else _Tail(self, weights, table, joined)
        weights_from = weights.flip(0).cumsum(0).flip(0)  # of the maximum: λ_s
        result, alone = torch.zeros_like(weights), torch.zeros_like(weights)
        results, alones = result.unbind(0), alone.unbind(0)
        now, then = (self.states.new_zeros(self.top + 2, weights.shape[1]) for _ in range(2))  # λ(t), λ(t−1)
        products = torch.empty_like(now)
        for index in reversed(range(len(self.starts))):
            start, (low, high) = self.starts[index], self._band(index)
            if tail is not None:
                tail.enter(index)
                if low > high:
                    tail.pass_by(index)
                    continue
            stop = self._fill(index, self.kept.pop())
            if stop < self.n - 1:
                now[low : high + 2] *= self._rescale(index + 1)
            first, end = max(low, joined), high + 1 if tail is not None else min(high + 1, self.size)
            now[end], then[end] = 0, 0  # λ_m(t) with m > t, left over from later t: meets e_m(t) = 0 only
            partners = self.states[:, first - joined : high + 1 - joined].unbind(0)
            product = products[first : high + 1]
            if tail is None:
                tops = (weights_from[start : stop + 1] * self._unit(index)).unbind(0)
                views = [(x, x[self.size], x[first : high + 1], x[low:end], x[low + 1 : end + 1]) for x in (now, then)]
                for t in range(stop, start, -1):
                    _, top, factors, same, next_higher = views[0]
                    top.copy_(tops[t - start])
                    torch.mul(factors, partners[t - 1 - start], out=product)
                    torch.sum(product, 0, out=results[t - 1])
                    torch.addcmul(same, next_higher, self.tilted[t - 1], out=views[1][3])
                    views.reverse()
            else:
                rows = tail.rows(low, high)
                views = [(x, x[rows], x[first : high + 1], x[low:end], x[low + 1 : end + 1]) for x in (now, then)]
                these = self.states[:, rows].unbind(0)
                for t in range(tail.last_t(index), start, -1):
                    _, counting, factors, same, next_higher = views[0]
                    counted = tail.counted(t)
                    if not joined and t < self.n:
                        counting.addcmul_(counted, tail.weight(t))
                    torch.mul(factors, partners[t - 1 - start], out=product)
                    torch.sum(product, 0, out=results[t - 1])
                    torch.addcmul(same, next_higher, self.tilted[t - 1], out=views[1][3])
                    if joined:
                        views[1][1].addcmul_(counted, tail.weight(t - 1))
                    if own is not None:
                        torch.sum(counted.mul_(these[t - 1 - start]), 0, out=alones[t - 1])
                    tail.step(t)
                    views.reverse()
                alone[start : tail.last_t(index)] *= tail.unit(index)
            now, then = views[0][0], views[1][0]
        if joined:
            result.mul_(2.0**self.tilt)
        return result if own is None else result.addcmul_(own, alone)

    def _fill(self, index: int, state: Tensor) -> int:
        """Put the states of a stretch, which starts with ``state``, into ``states``; return its last t."""
        start = self.starts[index]
        stop = self.stop(index)
        low, high = self._band(index)
        self.states[:, low] = 2.0 ** -self.shrink[index] if low == 0 else 0  # e_0; else not needed beyond the start
        self.states[0] = 0
        self.states[0, low : low + state.shape[0]] = state
        upper = self.states[:, low + 1 : high + 1].unbind(0)
        lower = self.states[:, low:high].unbind(0)
        for step, ratio in enumerate(self.tilted[start:stop]):
            torch.addcmul(upper[step], lower[step], ratio, out=upper[step + 1])
        return stop

    def stop(self, index: int) -> int:
        """The last t of a stretch, with which the next one starts."""
        return min(self.starts[index] + self.stretch, self.n - 1)

    def _band(self, index: int) -> tuple[int, int]:
        """The lowest m needed in a stretch, and the highest for which e_m is not 0 in all of it."""
        missing = self.n - 1 - self.size if self.last == 0 else self.n - self.size
        return max(0, self.starts[index] - missing), min(self.stop(index), self.top)

    def _rescale(self, index: int) -> float:
        """From the unit of the stretch before to that of stretch ``index``."""
        return 2.0 ** (self.shrink[index - 1] - self.shrink[index])

    def _unit(self, index: int, shrink: int = 0) -> float:
        """What a state e_s(t) of stretch ``index``, times a state shrunk by so many bits, is to be multiplied with."""
        return ldexp(self.per_subset, self.shrink[index] + shrink - self.tilt * self.size - self.subset_bits)


class _Tail:
    """ē_a(t) as t goes down, for a backward sweep: in rows m = s − a, so that ē and λ have the same recursion.

    Scaled as the states of the sweep are, by 2^(tilt·a − shrink).
    """

    def __init__(self, sweep: _Sweep, weights: Tensor, table: Tensor, joined: int) -> None:
        self.sweep, self.weights = sweep, weights
        self.table = table.flip(1).to(weights).unsqueeze(-1)  # (n, rows, 1)
        self.shrink = [round((sweep.n - 1 - sweep.stop(index)) * sweep.rate) for index in range(len(sweep.starts))]
        self.now, self.then = (sweep.states.new_zeros(sweep.size + 2, weights.shape[1]) for _ in range(2))
        self.now[sweep.size] = self.then[sweep.size] = 1  # ē_0(n)
        self.product = torch.empty_like(self.now)
        self.constant = joined == 1  # the table is the same for every t

    def enter(self, index: int) -> None:
        """Go on to stretch ``index``, from the one after it or from the end."""
        sweep = self.sweep
        start, stop = sweep.starts[index], sweep.stop(index)
        low = max(sweep.size - sweep.last, sweep.size - (sweep.n - start), 0)
        high = min(stop if stop < sweep.n - 1 else sweep.n, sweep.size)
        if index + 1 < len(sweep.starts):
            self.now *= 2.0 ** (self.shrink[index + 1] - self.shrink[index])
            self.then[sweep.size] = self.now[sweep.size]
        self.now[high + 1], self.then[high + 1] = 0, 0  # m > t: meets e_m(t) = 0 only
        self.views = [(x, x[low : high + 1], x[low + 1 : high + 2]) for x in (self.now, self.then)]
        self.start = start
        self.scaled = (self.weights[start : stop + 1] * self.unit(index)).unbind(0)

    def rows(self, low: int, high: int) -> slice:
        """The rows of ē that count in a stretch whose states have the rows from ``low`` to ``high``."""
        rows = slice(max(self.sweep.size - self.sweep.last, low), high + 1)
        self.counting = [x[rows] for x in (self.views[0][0], self.views[1][0])]
        self.tables = self.table[:, rows].unbind(0)
        self.out = self.product[rows]
        return rows

    def counted(self, t: int) -> Tensor:
        """table[t, s−m] ē_{s−m}(t), for the rows that count."""
        table = self.tables[0 if self.constant else min(t, self.sweep.n - 1)]
        return torch.mul(self.counting[0], table, out=self.out)

    def weight(self, t: int) -> Tensor:
        """weights[t], in the unit of λ in this stretch."""
        return self.scaled[t - self.start]

    def step(self, t: int) -> None:
        """From t to t − 1."""
        _, same, next_higher = self.views[0]
        torch.addcmul(same, next_higher, self.sweep.tilted[t - 1], out=self.views[1][1])
        self.views.reverse()
        self.counting.reverse()
        self.now, self.then = self.views[0][0], self.views[1][0]

    def pass_by(self, index: int) -> None:
        """Go through a stretch in which nothing counts."""
        self.counting = []
        for t in range(self.last_t(index), self.sweep.starts[index], -1):
            self.step(t)

    def last_t(self, index: int) -> int:
        """The t that a stretch is entered with: the last one also has t = n, with nothing above."""
        stop = self.sweep.stop(index)
        return stop if stop < self.sweep.n - 1 else self.sweep.n

    def unit(self, index: int) -> float:
        """What a product of e and ē of stretch ``index`` is multiplied with to be over C(n−1, s)."""
        return self.sweep._unit(index, self.shrink[index])
