"""The definitions, by brute force over all subsets, in exact rational numbers. Slow, and obvious."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from math import comb, prod

import torch
from torch import Tensor

from openrlhf_maxk.objectives import Objective

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


Worth = Callable[[Sequence[int]], Fraction]  # of the completions in a subset, by their places in the group


def ranked(rewards: Rationals, scores: Rationals, weights: Rationals) -> Worth:
    """Σ_m c_m · (reward of the m-th best by score); of equal scores the first drawn is the better."""

    def worth(subset: Sequence[int]) -> Fraction:
        best_first = sorted(subset, key=lambda i: (-scores[i], i))
        return sum((c * rewards[i] for c, i in zip(weights, best_first, strict=True)), Fraction(0))

    return worth


def voted(rewards: Rationals, keys: Sequence[int]) -> Worth:
    """The mean reward of the completions with the most frequent key; ties share evenly. Keys below 0 are no votes."""

    def worth(subset: Sequence[int]) -> Fraction:
        votes = Counter(keys[i] for i in subset if keys[i] >= 0)
        if not votes:
            return mean([rewards[i] for i in subset])
        winners = [key for key in votes if votes[key] == max(votes.values())]
        return mean([mean([rewards[i] for i in subset if keys[i] == key]) for key in winners])

    return worth


def mean_worth(worth: Worth, n: int, k: int) -> Fraction:
    """The mean over all k-subsets."""
    return mean([worth(subset) for subset in combinations(range(n), k)])


def worth_weights(
    worth: Worth, ratios: Rationals, k: int, weight: SubsetWeight, baseline: Callable[[int, Sequence[int]], Fraction]
) -> list[Fraction]:
    """(1/C) Σ_{S∌i} weight(ρ of S) (worth(S+i) − baseline(i, S)), S of k − 1."""
    n = len(ratios)
    sums = [Fraction(0)] * n
    for i in range(n):
        for rest in combinations([l for l in range(n) if l != i], k - 1):
            sums[i] += weight([ratios[l] for l in rest]) * (worth([*rest, i]) - baseline(i, rest))
    return [total / comb(n, k) for total in sums]


def no_baseline(i: int, rest: Sequence[int]) -> Fraction:
    return Fraction(0)


def stand_ins(worth: Worth, n: int) -> Callable[[int, Sequence[int]], Fraction]:
    """Each of the others in the place of i."""
    return lambda i, rest: mean([worth([*rest, l]) for l in range(n) if l != i and l not in rest])


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


def rewards_for(objective: Objective, rewards: Tensor) -> Tensor:
    """Rewards that it takes: right and wrong, where it is about that."""
    return (rewards > 0).to(rewards) if objective.binary else rewards


def tensor(values: Sequence[Rationals] | Rationals, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers as a tensor."""
    rows = [[float(value) for value in row] if isinstance(row, Sequence) else float(row) for row in values]
    return torch.tensor(rows, dtype=dtype)
