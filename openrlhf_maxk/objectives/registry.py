"""Objectives by name: what turns the rewards and ratios of whole groups into advantages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from .checks import as_given, checked_choices, checked_correct, checked_rewards, clamped_ratios
from .choices import Baseline, Form, Order
from .strategy import MAX, Strategy


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """The choices that a formula may look at.

    Attributes:
        correction: how the other completions' ratios enter the weights.
        baseline: what is subtracted.
        strategy: what k samples are worth.
        chosen_by: of a strategy that does not go by rewards alone, what it chooses by, as the rewards: float64 scores
            of ``selected``, int64 keys of ``vote``.
    """

    correction: Order
    baseline: Baseline
    strategy: Strategy = MAX
    chosen_by: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Advantages:
    """What an objective makes of groups of shape (..., n). No gradient flows through any of it.

    Attributes:
        values: (..., n), in the floating type of the rewards, for a loss that averages over completions.
        ratios: (..., n) float64, as they were used: after clamping, 1 where none were given.
        clamped: (..., n) bool, which ratios were moved by the clamp.
        form: the surrogate that ``values`` are for.
    """

    values: Tensor
    ratios: Tensor
    clamped: Tensor
    form: Form

    def for_score_loss(self) -> Tensor:
        """Weights g, (..., n), for the loss −mean_i log π(y_i|x) · g_i.

        Advantages in ratio form get their own ρ_i: g_i = ρ_i A_i has the gradient of the surrogate ρ_i A_i, unclipped.
        Those in score form (``offpolicy_bon_paper``) carry it already and are returned as they are.
        """
        if self.form is Form.SCORE:
            return self.values
        return as_given(self.values.double() * self.ratios, self.values)


Formula = Callable[[Tensor, int, Tensor, ObjectiveOptions], Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """A named objective: the checks and the clamp that all share, then a formula.

    Attributes:
        name: what users ask for.
        formula: (rewards, k, ratios, options) -> advantages, on checked float64 tensors of shape (..., n).
        form: the surrogate that the advantages are for.
        binary: whether it is about right and wrong, and takes no other rewards than 0 and 1.
    """

    name: str
    formula: Formula
    form: Form
    binary: bool = False

    @property
    def description(self) -> str:
        """The formula's docstring: paper, assumption, formula."""
        return (self.formula.__doc__ or "").strip()

    @property
    def summary(self) -> str:
        """The description's first line."""
        return self.description.partition("\n")[0]

    def __call__(
        self,
        rewards: Tensor,
        k: int,
        ratios: Tensor | None = None,
        *,
        correction: Order | str = Order.EXACT,
        baseline: Baseline | str = Baseline.MARGINAL,
        delta_clip: float = inf,
        strategy: Strategy | str = MAX,
        chosen_by: Tensor | None = None,
    ) -> Advantages:
        """Advantages of whole groups.

        Args:
            rewards: (..., n), any order, finite.
            k: 1..n, how many samples the policy is trained to be the best of.
            ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions; μ sampled them. None: π is μ, every ρ is 1.
            correction, baseline: for objectives that have the choice; see :class:`ObjectiveOptions`.
            delta_clip: ratios are clamped to 1 ± this, and kept positive. inf: not at all.
            strategy: what k samples are worth, for objectives that have the choice.
            chosen_by: (..., n), for the strategies that choose by something else than rewards: finite scores of
                ``selected``, integer keys of ``vote``. Others do not look at it.

        Raises:
            ValueError: see :mod:`~openrlhf_maxk.objectives.checks`; an unknown ``correction``, ``baseline`` or
                ``strategy``; rewards other than 0 and 1 for an objective that is :attr:`binary`.
        """
        strategy = Strategy.parse(strategy)
        checked = checked_correct(rewards, k, f"rewards of {self.name}") if self.binary else checked_rewards(rewards, k)
        options = ObjectiveOptions(
            Order.named(correction, "correction"),
            Baseline.named(baseline, "baseline"),
            strategy,
            checked_choices(chosen_by, checked, strategy),
        )
        given = torch.ones_like(checked) if ratios is None else ratios
        used, clamped = clamped_ratios(given, checked, delta_clip)
        values = self.formula(checked, k, used, options)
        if values.shape != checked.shape:
            raise ValueError(f"objective {self.name!r} made {tuple(values.shape)} of rewards {tuple(checked.shape)}")
        return Advantages(as_given(values.detach(), rewards), used, clamped, self.form)


_OBJECTIVES: dict[str, Objective] = {}
_FILES: dict[str, Objective] = {}


def register(name: str, form: Form | str = Form.RATIO, *, binary: bool = False) -> Callable[[Formula], Objective]:
    """Decorator: make ``formula(rewards, k, ratios, options) -> advantages`` an objective of this name.

    The formula gets checked float64 tensors of shape (..., n), the ratios clamped, and returns advantages of that shape
    for a loss that averages over completions. ``form`` says which surrogate they are for, ``binary`` that rewards must
    be 0 or 1.

    Raises:
        ValueError: the name is taken; an unknown ``form``.
    """
    form = Form.named(form, "form")

    def add(formula: Formula) -> Objective:
        if name in _OBJECTIVES:
            raise ValueError(f"there is an objective named {name!r} already")
        _OBJECTIVES[name] = Objective(name, formula, form, binary)
        return _OBJECTIVES[name]

    return add


def get_objective(name: str) -> Objective:
    """Return the objective of that name, or the one that the Python file ``name`` (``….py``) registers.

    Raises:
        ValueError: there is none; the message lists those there are. The file is missing, or does not register one.
    """
    if name.endswith(".py"):
        return _from_file(name)
    if name not in _OBJECTIVES:
        raise ValueError(f"no objective named {name!r}; known: {', '.join(objective_names())}")
    return _OBJECTIVES[name]


def _from_file(path: str) -> Objective:
    if path in _FILES:
        return _FILES[path]
    spec = importlib.util.spec_from_file_location("openrlhf_maxk_objective", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise ValueError(f"the objective's file {path} does not exist")
    before = set(_OBJECTIVES)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    added = [objective for name, objective in _OBJECTIVES.items() if name not in before]
    if len(added) != 1:
        raise ValueError(f'{path} must register one objective, not {len(added)}: @register("name") on its function')
    _FILES[path] = added[0]
    return added[0]


def objective_names() -> tuple[str, ...]:
    """The names of all registered objectives, sorted."""
    return tuple(sorted(_OBJECTIVES))
