"""The definitions, by brute force over all subsets, in exact rational numbers. Slow, and obvious."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from math import comb, prod

import torch
from torch import Tensor

Rationals = Sequence[Fraction]
SubsetWeight = Callable[[Rationals], Fraction]  # of the ratios of a subset


def one(ratios: Rationals) -> Fraction:
    """Order none."""
    return Fraction(1)


def one_plus_deltas(ratios: Rationals) -> Fraction:
    """Order first."""
    return 1 + sum((ratio - 1 for ratio in ratios), Fraction(0))


def product(ratios: Rationals) -> Fraction:
    """Order exact."""
    return prod(ratios, start=Fraction(1))


ORDERS: dict[str, SubsetWeight] = {"none": one, "first": one_plus_deltas, "exact": product}


def max_at_k(rewards: Rationals, k: int) -> Fraction:
    """The mean of max r(I)."""
    return sum(max(subset) for subset in combinations(rewards, k)) / Fraction(comb(len(rewards), k))


def weights(rewards: Rationals, ratios: Rationals, k: int, weight: SubsetWeight, own: bool) -> list[Fraction]:
    """(1/C) Σ_{I∋i} weight(ρ of I) max r(I); the ratio of i itself is part of ρ of I only if ``own``."""
    n = len(rewards)
    sums = [Fraction(0)] * n
    for subset in combinations(range(n), k):
        best = max(rewards[l] for l in subset)
        for i in subset:
            sums[i] += weight([ratios[l] for l in subset if own or l != i]) * best
    return [total / comb(n, k) for total in sums]


def marginal_gain(rewards: Rationals, ratios: Rationals, k: int, weight: SubsetWeight) -> list[Fraction]:
    """(1/C) Σ_{I∋i} weight(ρ of I∖i) (max r(I) − max r(I∖i)); RLOO for k = 1."""
    n = len(rewards)
    if k == 1:
        return [(rewards[i] - mean(others(rewards, i))) / n if n > 1 else Fraction(0) for i in range(n)]
    sums = [Fraction(0)] * n
    for subset in combinations(range(n), k):
        for i in subset:
            rest = [l for l in subset if l != i]
            gain = max(rewards[l] for l in subset) - max(rewards[l] for l in rest)
            sums[i] += weight([ratios[l] for l in rest]) * gain
    return [total / comb(n, k) for total in sums]


def leave_one_out(rewards: Rationals, ratios: Rationals, k: int, weight: SubsetWeight) -> list[Fraction]:
    """(1/C) Σ_{I∋i} weight(ρ of I∖i) (max r(I) − mean over l∉I of max r(I∖i+l))."""
    n = len(rewards)
    sums = [Fraction(0)] * n
    for subset in combinations(range(n), k):
        for i in subset:
            rest = [l for l in subset if l != i]
            stand_ins = [max(rewards[m] for m in [*rest, l]) for l in range(n) if l not in subset]
            contrast = max(rewards[l] for l in subset) - mean(stand_ins)
            sums[i] += weight([ratios[l] for l in rest]) * contrast
    return [total / comb(n, k) for total in sums]


def mean(values: Rationals) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def others(values: Rationals, i: int) -> list[Fraction]:
    return [value for l, value in enumerate(values) if l != i]


def groups(n: int, count: int, seed: int) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """Rewards and ratios of groups, exact in float32: ties, negative rewards, any order; the last group all equal."""
    source = random.Random(seed)
    rewards = [[Fraction(source.randint(-6, 6), 4) for _ in range(n)] for _ in range(count - 1)]
    ratios = [[Fraction(source.randint(1, 40), 16) for _ in range(n)] for _ in range(count)]
    return [*rewards, [Fraction(3, 4)] * n], ratios


def tensor(values: Sequence[Rationals] | Rationals, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers as a tensor."""
    rows = [[float(value) for value in row] if isinstance(row, Sequence) else float(row) for row in values]
    return torch.tensor(rows, dtype=dtype)
