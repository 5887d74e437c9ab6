"""OpenRLHF's ring-attention helpers on a machine without flash-attn: there is never a ring, and nothing is packed."""

from __future__ import annotations

from typing import Any, NoReturn


def set_ring_attn_group(group: Any) -> None:
    """A ring needs flash-attn."""
    _refuse()


def get_ring_attn_group() -> None:
    """There is no ring."""


def unpad_and_slice_tensor(*args: Any, **kwargs: Any) -> NoReturn:
    """Packing needs flash-attn."""
    _refuse()


def gather_and_pad_tensor(*args: Any, **kwargs: Any) -> NoReturn:
    """Packing needs flash-attn."""
    _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "packing and ring attention need flash-attn, which is not installed: "
        "leave out --ds.packing_samples and --ds.ring_attn_size"
    )
