"""Objectives by name: what turns a group's rewards and ratios into advantages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from .baselines import Order
from .checks import as_given, checked_rewards, clamped_ratios
from .form import Form


class Baseline(StrEnum):
    """What ``offpolicy_bon`` subtracts."""

    MARGINAL = "marginal"  # LOO-1: the subset without the completion; never negative
    LEAVE_ONE_OUT = "leave_one_out"  # LOO(k): the subset with another in its place; sums to zero
    NONE = "none"  # nothing


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """Options of all objectives; one that has no use for an option ignores it. Plain strings are accepted."""

    correction: Order = Order.EXACT  # offpolicy_bon: how the others' ratios enter the weights
    baseline: Baseline = Baseline.MARGINAL  # offpolicy_bon
    delta_clip: float | None = None  # δ = ρ − 1 is clamped to [−delta_clip, delta_clip]; None: not at all

    def __post_init__(self) -> None:
        for name, choices in (("correction", Order), ("baseline", Baseline)):
            value = getattr(self, name)
            if value not in tuple(choices):
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
            object.__setattr__(self, name, choices(value))
        if self.delta_clip is not None and not self.delta_clip > 0:
            raise ValueError(f"delta_clip must be positive, or None for no clamp, got {self.delta_clip!r}")


@dataclass(frozen=True, slots=True)
class Advantages:
    """What an objective gives for groups of shape (..., n). No gradient flows through any of it."""

    values: Tensor  # (..., n), for the loss that averages over completions; in the floating type of the rewards
    ratios: Tensor  # (..., n), float64: the ratios as used, after clamping
    clamped: Tensor  # (..., n), bool: which ratios were moved by delta_clip
    form: Form  # the surrogate that ``values`` are for

    def for_score_loss(self) -> Tensor:
        """Weights g for a loss of the form −mean_i log π(y_i|x) · g_i, (..., n).

        g_i = ρ_i A_i has the gradient that the ratio surrogate ρ_i A_i has without its clipping; ``values`` that are in
        score form already carry ρ_i and are returned as they are.
        """
        if self.form is Form.SCORE:
            return self.values
        return as_given(self.values.double() * self.ratios, self.values)


Formula = Callable[[Tensor, int, Tensor, ObjectiveOptions], Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """A named objective. Calling it checks the arguments and clamps the ratios, then applies the formula."""

    name: str
    formula: Formula
    form: Form = Form.RATIO

    @property
    def description(self) -> str:
        """The docstring of the formula: paper, assumption, formula."""
        return (self.formula.__doc__ or "").strip()

    def __call__(
        self,
        rewards: Tensor,
        k: int,
        ratios: Tensor | None = None,
        options: ObjectiveOptions = ObjectiveOptions(),  # noqa: B008
    ) -> Advantages:
        """Advantages of whole groups.

        Args:
            rewards: (..., n), any order, finite.
            k: 1..n, how many samples will be drawn when the policy is used.
            ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; None where the samples are
                on-policy, ρ = 1.
            options: see :class:`ObjectiveOptions`.

        Raises:
            ValueError: see :mod:`~openrlhf_maxk.objectives.checks`.
        """
        checked = checked_rewards(rewards, k)
        used, clamped = clamped_ratios(
            torch.ones_like(checked) if ratios is None else ratios, checked, options.delta_clip
        )
        values = self.formula(checked, k, used, options)
        if values.shape != rewards.shape:
            raise ValueError(
                f"objective {self.name!r} returned shape {tuple(values.shape)} for rewards of shape {tuple(rewards.shape)}"
            )
        return Advantages(as_given(values.detach(), rewards), used, clamped, self.form)


_OBJECTIVES: dict[str, Objective] = {}


def register(name: str, form: Form | str = Form.RATIO) -> Callable[[Formula], Objective]:
    """Decorator: make ``formula(rewards, k, ratios, options) -> advantages`` an objective that can be asked for by name.

    The formula gets checked float64 tensors of shape (..., n), the ratios clamped, and returns advantages of that
    shape for a loss that averages over completions. ``form`` says which surrogate they are for.

    Raises:
        ValueError: the name is taken, or there is no such form.
    """
    form = Form.named(form)

    def add(formula: Formula) -> Objective:
        if name in _OBJECTIVES:
            raise ValueError(f"an objective named {name!r} is registered already")
        _OBJECTIVES[name] = Objective(name, formula, form)
        return _OBJECTIVES[name]

    return add


def get_objective(name: str) -> Objective:
    """Return the objective of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in _OBJECTIVES:
        raise ValueError(f"no objective named {name!r}; known: {', '.join(objective_names())}")
    return _OBJECTIVES[name]


def objective_names() -> tuple[str, ...]:
    """Names of all registered objectives, sorted."""
    return tuple(sorted(_OBJECTIVES))
