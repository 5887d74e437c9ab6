"""Means of products over subsets: normalised elementary symmetric polynomials, and their derivatives.

E_m(t) is the mean, over all m-subsets of the first t of n numbers, of the product of the subset's members:

    E_0 = 1,   E_m(t) = (1 − m/t) E_m(t−1) + (m/t) ρ_t E_{m−1}(t−1).

The mean stays within the range of the products, where the sum does not (C(1030, 515) products overflow float64). Every
step adds non-negative numbers, so nothing cancels. Dividing a factor out of a finished polynomial is unstable and never
done here: leave-one-out values come from a backward sweep.

Arrays have the numbers along the *first* dimension, (n, batch). Only E_s(t) with one s is asked for, at t = 0..n−1.
Such a value depends on E_m(t') only for t' − (n−1−s) <= m <= min(t', s): a band of at most min(s+1, n−s) states is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor


def leading_means(ratios: Tensor, size: int) -> Tensor:
    """E_size(t) for t = 0..n−1 (0 for t < size): (n, batch). O(n·size) time, O(n + size) memory a column."""
    means = torch.zeros_like(ratios)
    state, following = _first_state(ratios, size), _first_state(ratios, size)
    means[0] = state[size]
    for t in range(1, ratios.shape[0]):
        _advance(state, ratios, t, size, out=following)
        state, following = following, state
        means[t] = state[size]
    return means


def weighted_gradient(ratios: Tensor, size: int, weights: Tensor) -> Tensor:
    """Σ_t weights[t] ∂E_size(t)/∂ρ_i for every i: (n, batch). O(n·size) time, O(n + √n·size) memory a column."""
    gradient = torch.zeros_like(ratios)
    for step in _sweep(ratios, size, weights):
        torch.sum(step.chosen * step.before[step.first - 1 : step.high], 0, out=gradient[step.item])
    return gradient


def weighted_without(ratios: Tensor, size: int, weights: Tensor) -> Tensor:
    """Σ_{t>=i} weights[t] E_size(t) at ρ_i = 0, for every i: (n, batch). Costs as :func:`weighted_gradient`."""
    without = torch.zeros_like(ratios)
    for step in _sweep(ratios, size, weights):
        torch.sum(step.skipped * step.before[step.low : step.high + 1], 0, out=without[step.item])
    return without


class _Step(NamedTuple):
    """Number ``item`` joins a subset or stays out: how much either way counts, and the means of the numbers before it.

    λ_m = Σ_t weights[t] ∂E_size(t)/∂E_m(item + 1), for m = low..high.
    """

    item: int
    low: int
    first: int  # max(low, 1)
    high: int
    chosen: Tensor  # λ_m m/t, m = first..high
    skipped: Tensor  # λ_m (1 − m/t), m = low..high; valid until the next step
    before: Tensor  # E_m(item)


def _sweep(ratios: Tensor, size: int, weights: Tensor) -> Iterator[_Step]:
    """Reverse accumulation through the recursion, from the last number to the first.

    The states E_m(t) are kept at every √n-th t only, and computed a second time from there, a stretch at a time.
    """
    n = ratios.shape[0]
    stretch = isqrt(n - 1) + 1
    table = ratios.new_zeros(stretch, size + 1, ratios.shape[1])
    starts = range(0, n - 1, stretch)
    checkpoints = [_first_state(ratios, size)]
    for start in starts[1:]:
        table[0] = checkpoints[-1]
        _fill(table, ratios, start - stretch, start - 1, size)
        checkpoints.append(_first_state(ratios, size))
        _advance(table[-1], ratios, start, size, out=checkpoints[-1])

    adjoint = ratios.new_zeros(size + 1, ratios.shape[1])
    members = torch.arange(size + 1, dtype=ratios.dtype, device=ratios.device).unsqueeze(1)
    for start in reversed(starts):
        stop = min(start + stretch, n - 1)
        table[0] = checkpoints.pop()
        _fill(table, ratios, start, stop - 1, size)
        for t in range(stop, start, -1):
            if t >= size:
                adjoint[size] += weights[t]
            low, high = _band(t, n, size)
            first = max(low, 1)
            chosen = adjoint[first : high + 1] * (members[first : high + 1] / t)
            adjoint[first : high + 1] *= (t - members[first : high + 1]) / t
            yield _Step(t - 1, low, first, high, chosen, adjoint[low : high + 1], table[t - 1 - start])
            adjoint[first - 1 : high].addcmul_(chosen, ratios[t - 1])


def _fill(table: Tensor, ratios: Tensor, start: int, stop: int, size: int) -> None:
    """table[j] holds E(start + j): go on from j = 0 up to t = stop."""
    table[1:, 0] = 1
    table[1:, 1:] = 0
    for t in range(start + 1, stop + 1):
        _advance(table[t - 1 - start], ratios, t, size, out=table[t - start])


def _first_state(ratios: Tensor, size: int) -> Tensor:
    """E_m(0), m = 0..size."""
    state = ratios.new_zeros(size + 1, ratios.shape[1])
    state[0] = 1
    return state


def _band(t: int, n: int, size: int) -> tuple[int, int]:
    """The lowest and highest m for which E_m(t) is needed and not 0."""
    return max(0, t - (n - 1 - size)), min(t, size)


def _advance(state: Tensor, ratios: Tensor, t: int, size: int, out: Tensor) -> None:
    """Write E(t), made from ``state`` = E(t − 1), into ``out``: the band only, where E_0 = 1 stands already."""
    low, high = _band(t, ratios.shape[0], size)
    low = max(low, 1)
    if low > high:
        return
    share = torch.arange(low, high + 1, dtype=ratios.dtype, device=ratios.device).unsqueeze(1) / t
    torch.lerp(state[low : high + 1], state[low - 1 : high] * ratios[t - 1], share, out=out[low : high + 1])
