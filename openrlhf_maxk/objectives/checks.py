"""What every objective asks of its arguments, decided once.

Rewards are converted to float64 here and results go back to the caller's type in :func:`as_given`; everything between
works on float64. Weights are constants of the loss, so both are detached.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor


def checked_rewards(rewards: Tensor, k: int, name: str = "rewards") -> Tensor:
    """Return ``rewards`` as detached float64 of shape (..., n), n >= 1.

    Raises:
        ValueError: not a real tensor, no last dimension, a value that is not finite, or k outside 1..n.
    """
    _require_real_tensor(rewards, name)
    if rewards.dim() == 0 or rewards.shape[-1] == 0:
        raise ValueError(f"{name} needs a last dimension of at least one completion, got shape {tuple(rewards.shape)}")
    n = rewards.shape[-1]
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise ValueError(f"k must be an integer, got {k!r}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the group size n={n}, got k={k}")
    _require(torch.isfinite(rewards), rewards, name, "must be finite")
    return rewards.detach().double()


def checked_correct(correct: Tensor, k: int) -> Tensor:
    """As :func:`checked_rewards`, for values that must be 0 or 1."""
    checked = checked_rewards(correct, k, name="correct")
    _require((checked == 0) | (checked == 1), correct, "correct", "must be 0 or 1")
    return checked


def checked_ratios(ratios: Tensor, rewards: Tensor) -> Tensor:
    """Return the importance ratios as detached float64, of the shape and on the device of ``rewards``.

    Raises:
        ValueError: not a real tensor, another shape or device, or a value that is not positive and finite.
    """
    _require_like(ratios, rewards)
    _require(torch.isfinite(ratios) & (ratios > 0), ratios, "ratios", "must be positive and finite")
    return ratios.detach().double()


def clamped_ratios(ratios: Tensor, rewards: Tensor, delta_clip: float | None) -> tuple[Tensor, Tensor]:
    """Clamp δ = ρ − 1 to [−delta_clip, delta_clip]; return the ratios and a mask of those that were moved.

    This is the only place where ratios are clamped. The lower end stays above 0 also for delta_clip >= 1, so a ratio
    that underflowed to 0 or overflowed to inf is brought back; without a clamp it is an error.

    Raises:
        ValueError: as :func:`checked_ratios`; a negative or NaN ratio is an error with and without a clamp.
    """
    if delta_clip is None:
        return checked_ratios(ratios, rewards), torch.zeros_like(rewards, dtype=torch.bool)
    _require_like(ratios, rewards)
    _require(ratios >= 0, ratios, "ratios", "must be positive")
    given = ratios.detach().double()
    clamped = given.clamp(min=max(1 - delta_clip, torch.finfo(torch.float32).tiny), max=1 + delta_clip)
    return clamped, clamped != given


def as_given(values: Tensor, like: Tensor) -> Tensor:
    """Return float64 ``values`` in the floating type of ``like`` (torch's default type for integers and booleans).

    Raises:
        ValueError: a value left the range of that type, which only a product of extreme ratios does.
    """
    dtype = like.dtype if like.dtype.is_floating_point else torch.get_default_dtype()
    result = values.to(dtype)
    if not bool(torch.isfinite(result).all()):
        raise ValueError(
            f"a product of ratios left the range of {dtype}: clamp the ratios, or use the first-order correction"
        )
    return result


def _require_like(ratios: Tensor, rewards: Tensor) -> None:
    _require_real_tensor(ratios, "ratios")
    if ratios.shape != rewards.shape:
        raise ValueError(f"ratios must have the shape of rewards {tuple(rewards.shape)}, got {tuple(ratios.shape)}")
    if ratios.device != rewards.device:
        raise ValueError(f"ratios must be on the device of rewards ({rewards.device}), got {ratios.device}")


def _require_real_tensor(value: Tensor, name: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype.is_complex:
        raise ValueError(f"{name} must be real, got {value.dtype}")


def _require(valid: Tensor, values: Tensor, name: str, rule: str) -> None:
    """Raise a ValueError that names the first element that breaks ``rule``."""
    if bool(valid.all()):
        return
    where = (~valid).nonzero()[0].tolist()
    raise ValueError(f"{name} {rule}: {name}{where} is {values[tuple(where)].item()}")
