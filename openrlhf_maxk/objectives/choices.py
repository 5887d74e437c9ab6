"""The choices an objective leaves open. Plain strings are accepted wherever one is expected."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _Choice(StrEnum):
    @classmethod
    def named(cls, value: str, argument: str) -> Self:
        """Return the choice of that name.

        Raises:
            ValueError: there is none; the message names the ``argument`` and lists the known ones.
        """
        if value not in tuple(cls):
            raise ValueError(f"{argument} must be one of {', '.join(cls)}, got {value!r}")
        return cls(value)


class Form(_Choice):
    """The surrogate loss that a weight is for. Only one of the two carries the completion's own ratio ρ_i.

    ``RATIO``: Σ_i ρ_i · sg(A_i), as PPO does; its gradient is Σ_i ρ_i A_i ∇log π(y_i|x).
    ``SCORE``: Σ_i log π(y_i|x) · sg(g_i), as REINFORCE does; g_i = ρ_i A_i gives the same gradient.
    """

    RATIO = "ratio"
    SCORE = "score"


class Order(_Choice):
    """How the product of ratios over a subset, ρ(S), enters a weight."""

    NONE = "none"  # as 1: right where the samples are on-policy
    FIRST = "first"  # as 1 + Σ δ: an error of second order in δ = ρ − 1
    EXACT = "exact"  # as it is


class Baseline(_Choice):
    """What is subtracted from a weight. None of them changes the expected gradient."""

    MARGINAL = "marginal"  # LOO-1: the subset without the completion; for the maximum never negative
    LEAVE_ONE_OUT = "leave_one_out"  # LOO(k): the subset with another in its place; sums to zero
    NONE = "none"
