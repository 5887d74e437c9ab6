"""What every objective asks of its arguments, decided once.

Arguments are converted to float64, results go back to the caller's type; everything between works on float64. Weights
are constants of a loss, so arguments are detached.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from numbers import Integral

import torch
from torch import Tensor

from .strategy import MAX, Kind, Strategy, needs_scores

SMALLEST_RATIO = torch.finfo(torch.float32).tiny


def checked_rewards(rewards: Tensor, k: int, name: str = "rewards") -> Tensor:
    """Return ``rewards`` as detached float64 of shape (..., n), n >= 1.

    Raises:
        ValueError: not a real tensor, no completion along the last dimension, a value that is not finite, or k that is
            no integer in 1..n.
    """
    _require_real_tensor(rewards, name)
    if rewards.dim() == 0 or rewards.shape[-1] == 0:
        raise ValueError(f"{name} needs a last dimension of at least one completion, got shape {tuple(rewards.shape)}")
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise ValueError(f"k must be an integer, got {k!r}")
    n = rewards.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the group size n = {n}, got k = {k}")
    checked = rewards.detach().double()
    lowest, highest = _range(checked)
    if not (isfinite(lowest) and isfinite(highest)):
        raise _first(~torch.isfinite(checked), checked, name, "must be finite")
    return checked


def checked_correct(correct: Tensor, k: int, name: str = "correct") -> Tensor:
    """As :func:`checked_rewards`, for values that must be 0 or 1."""
    checked = checked_rewards(correct, k, name)
    invalid = (checked != 0) & (checked != 1)
    if bool(invalid.any()):
        raise _first(invalid, checked, name, "must be 0 or 1")
    return checked


def checked_scores(
    scores: Tensor | None, rewards: Tensor, strategy: Strategy | str | Sequence[float] = MAX
) -> Tensor | None:
    """Return what samples are chosen by as detached float64, or None where they are chosen by their rewards.

    Raises:
        ValueError: the strategy needs scores and there are none; not a real tensor, another shape or device than
            ``rewards``, or a value that is not finite.
    """
    if scores is None:
        if needs_scores(strategy):
            raise ValueError(f"strategy {strategy} needs scores: what the sample to keep is chosen by")
        return None
    checked = _like(scores, rewards, "scores")
    lowest, highest = _range(checked)
    if not (isfinite(lowest) and isfinite(highest)):
        raise _first(~torch.isfinite(checked), checked, "scores", "must be finite")
    return checked


def checked_keys(keys: Tensor, rewards: Tensor) -> Tensor:
    """Return the keys as int64.

    Raises:
        ValueError: not a tensor of integers or booleans, or another shape or device than ``rewards``.
    """
    _like(keys, rewards, "keys")
    if keys.dtype.is_floating_point:
        raise ValueError(f"keys must be integers, one for each answer, got {keys.dtype}")
    return keys.detach().long()


def checked_choices(chosen_by: Tensor | None, rewards: Tensor, strategy: Strategy) -> Tensor | None:
    """Return what a strategy chooses samples by: float64 scores of ``selected``, int64 keys of ``vote``, else None.

    Raises:
        ValueError: there is nothing to choose by; see :func:`checked_scores` and :func:`checked_keys`.
    """
    if strategy.by_rewards:
        return None
    if chosen_by is None:
        raise ValueError(f"strategy {strategy} needs to know more of the samples than their rewards: what to choose by")
    if strategy.kind is Kind.VOTE:
        return checked_keys(chosen_by, rewards)
    return checked_scores(chosen_by, rewards)


def checked_ratios(ratios: Tensor, rewards: Tensor) -> Tensor:
    """Return the importance ratios as detached float64.

    Raises:
        ValueError: not a real tensor, another shape or device than ``rewards``, or a value not positive and finite.
    """
    checked = _like(ratios, rewards, "ratios")
    lowest, highest = _range(checked)
    if not (lowest > 0 and highest < inf):
        raise _first(~((checked > 0) & (checked < inf)), checked, "ratios", "must be positive and finite")
    return checked


def clamped_ratios(ratios: Tensor, rewards: Tensor, delta_clip: float) -> tuple[Tensor, Tensor]:
    """Clamp δ = ρ − 1 to [−delta_clip, delta_clip], ρ staying positive; return the ratios and which were moved.

    This is the only place where ratios are clamped. A ratio that under- or overflowed to 0 or inf is brought back. With
    ``delta_clip`` inf nothing is clamped, and such a ratio is an error.

    Raises:
        ValueError: as :func:`checked_ratios`, for what cannot be clamped; ``delta_clip`` is not positive.
    """
    if not delta_clip > 0:
        raise ValueError(f"delta_clip must be positive (inf for no clamp), got {delta_clip!r}")
    if delta_clip == inf:
        return checked_ratios(ratios, rewards), torch.zeros_like(rewards, dtype=torch.bool)
    given = _like(ratios, rewards, "ratios")
    lowest, _ = _range(given)
    if not lowest >= 0:
        raise _first(~(given >= 0), given, "ratios", "must be positive")
    clamped = given.clamp(max(1 - delta_clip, SMALLEST_RATIO), 1 + delta_clip)
    return clamped, clamped != given


def as_given(values: Tensor, like: Tensor) -> Tensor:
    """Return float64 ``values`` in the floating type of ``like`` (torch's default type for integers and booleans).

    Raises:
        ValueError: a value is out of the range of that type, which only a product of extreme ratios is.
    """
    result = values.to(like.dtype if like.dtype.is_floating_point else torch.get_default_dtype())
    lowest, highest = _range(result)
    if not (isfinite(lowest) and isfinite(highest)):
        raise ValueError(f"a product of ratios is out of the range of {result.dtype}: clamp the ratios")
    return result


def _like(values: Tensor, rewards: Tensor, name: str) -> Tensor:
    _require_real_tensor(values, name)
    if values.shape != rewards.shape:
        raise ValueError(f"{name} must have the shape of rewards, {tuple(rewards.shape)}, got {tuple(values.shape)}")
    if values.device != rewards.device:
        raise ValueError(f"{name} must be on the device of rewards, {rewards.device}, got {values.device}")
    return values.detach().double()


def _require_real_tensor(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype.is_complex:
        raise ValueError(f"{name} must be real, got {value.dtype}")


def _range(values: Tensor) -> tuple[float, float]:
    """The lowest and highest value, NaN if any is NaN: one pass over the data."""
    if values.numel() == 0:
        return 1.0, 1.0
    lowest, highest = torch.stack(values.aminmax()).tolist()
    return lowest, highest


def _first(invalid: Tensor, values: Tensor, name: str, rule: str) -> ValueError:
    """An error that names the first element that breaks ``rule``."""
    where = invalid.nonzero()[0].tolist()
    return ValueError(f"{name} {rule}: {name}{where} is {values[tuple(where)].item()}")
