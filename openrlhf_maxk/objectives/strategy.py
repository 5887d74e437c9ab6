"""What k samples are worth: how the model will be used, as data.

A strategy keeps some of the k samples it draws. The *order statistics* look at the samples in order of reward (or of a
score) and are worth Σ_m c_m · (m-th best of k): the weights c are all that the formulas need. Names are read in one
place, :meth:`Strategy.parse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, isfinite
from numbers import Real

from .choices import _Choice


class Kind(_Choice):
    """The strategies that have a name. Those with a parameter have it after a colon."""

    MAX = "max"  # the best: max@k, pass@k
    MIN = "min"  # the worst: for 0/1 rewards pass^k, all k succeed
    MEAN_OF_BEST = "mean_of_best"  # :q, the mean of the q best
    MEDIAN = "median"  # the middle one, or the mean of the two
    QUANTILE = "quantile"  # :p, between 0 (the worst) and 1 (the best), interpolated
    SELECTED = "selected"  # the reward of the sample with the highest score
    VOTE = "vote"  # the reward of the answer that is given most often


PARAMETERS = {Kind.MEAN_OF_BEST: "q", Kind.QUANTILE: "p"}


@dataclass(frozen=True, slots=True)
class RankWeights:
    """c_1 … c_k: what the best, the second best, … of k samples count.

    Raises:
        ValueError: no weight, one that is not finite, or none that is not 0.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(c, Real) and isfinite(c) for c in self.values) or not any(self.values):
            raise ValueError(f"rank weights must be finite numbers, not all 0: got {self.values}")

    @property
    def k(self) -> int:
        """How many samples are drawn."""
        return len(self.values)

    @property
    def first(self) -> int:
        """How many samples are better than the best that counts."""
        return next(a for a, c in enumerate(self.values) if c)

    @property
    def last(self) -> int:
        """How many samples are better than the worst that counts."""
        return next(a for a in reversed(range(self.k)) if self.values[a])

    @property
    def of_lowest(self) -> float:
        """c_k."""
        return self.values[-1]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named strategy.

    Attributes:
        kind: which one.
        parameter: q of ``mean_of_best``, p of ``quantile``; None for the others.

    Raises:
        ValueError: a parameter that is missing, out of range, or not wanted.
    """

    kind: Kind
    parameter: float | None = None

    def __post_init__(self) -> None:
        p = self.parameter
        if (letter := PARAMETERS.get(self.kind)) is None:
            if p is not None:
                raise ValueError(f"strategy {self.kind} has no parameter, got {p!r}")
            return
        if p is None:
            raise ValueError(f"strategy {self.kind} needs its {letter}: {self.kind}:{letter}")
        if self.kind is Kind.MEAN_OF_BEST and not (1 <= p < inf and p == floor(p)):
            raise ValueError(f"strategy {self.kind}:q needs a whole number q from 1 on, got {p!r}")
        if self.kind is Kind.QUANTILE and not 0 <= p <= 1:
            raise ValueError(f"strategy {self.kind}:p needs p between 0 (the worst) and 1 (the best), got {p!r}")

    @classmethod
    def parse(cls, text: str | Strategy) -> Strategy:
        """Read ``max|min|mean_of_best:q|median|quantile:p|selected|vote``.

        Raises:
            ValueError: it is none of these; the message lists them.
        """
        if isinstance(text, Strategy):
            return text
        name, colon, parameter = str(text).partition(":")
        if name not in tuple(Kind):
            known = ", ".join(f"{kind}:{PARAMETERS[kind]}" if kind in PARAMETERS else kind for kind in Kind)
            raise ValueError(f"strategy must be one of {known}, got {text!r}")
        try:
            number = float(parameter) if colon else None
        except ValueError:
            raise ValueError(f"strategy {text!r}: {parameter!r} is not a number") from None
        return cls(Kind(name), number)

    def __str__(self) -> str:
        return self.kind if self.parameter is None else f"{self.kind}:{self.parameter:g}"

    @property
    def smallest_k(self) -> int:
        """The fewest samples that it can look at."""
        return int(self.parameter or 1) if self.kind is Kind.MEAN_OF_BEST else 1

    @property
    def by_rewards(self) -> bool:
        """Whether it needs to know no more of the samples than their rewards."""
        return self.kind not in (Kind.SELECTED, Kind.VOTE)

    def rank_weights(self, k: int) -> RankWeights:
        """c_1 … c_k of an order statistic; ``selected`` is the best in order of the score.

        Raises:
            ValueError: q above k; ``vote``, which is no order statistic.
        """
        if self.kind is Kind.VOTE:
            raise ValueError("strategy vote goes by keys: use vote_at_k and vote_weights")
        if k < self.smallest_k:
            raise ValueError(f"strategy {self} needs k of at least {self.smallest_k}, got k = {k}")
        weights = [0.0] * k
        if self.kind is Kind.MEAN_OF_BEST:
            q = self.smallest_k
            weights[:q] = [1 / q] * q
            return RankWeights(tuple(weights))
        quantiles = {Kind.MIN: 0.0, Kind.MEDIAN: 0.5, Kind.QUANTILE: self.parameter}
        # How many are above, not always a whole number; 10 · (1 − 0.9) is a little less than 1 in floating point.
        place = round((k - 1) * (1 - (quantiles.get(self.kind, 1.0) or 0.0)), 12)
        above = min(floor(place), k - 1)
        weights[above] = 1 - (place - above)
        if place > above:
            weights[above + 1] = place - above
        return RankWeights(tuple(weights))


MAX = Strategy(Kind.MAX)


def rank_weights_of(strategy: Strategy | str | Sequence[float], k: int) -> RankWeights:
    """The rank weights of a strategy for k samples, of its name, or of the k weights themselves.

    Raises:
        ValueError: an unknown name, not k weights, or no order statistic.
    """
    if isinstance(strategy, Strategy | str):
        return Strategy.parse(strategy).rank_weights(k)
    weights = RankWeights(tuple(strategy))
    if weights.k != k:
        raise ValueError(f"rank weights are one for each of k = {k} samples, got {weights.k}")
    return weights


def needs_scores(strategy: Strategy | str | Sequence[float]) -> bool:
    """Whether the samples are chosen by something else than their rewards."""
    return isinstance(strategy, Strategy | str) and Strategy.parse(strategy).kind is Kind.SELECTED
