"""Attention over a row: prompts causally, each completion against its prompt and itself.

:func:`register` puts it in front of the attention functions of transformers. They take over again where no layout is
handed in, so nothing changes for other forward passes, and a model's configuration stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from openrlhf_maxk.rows.layout import RowLayout

LAYOUT = "row_layout"  # the keyword argument with which a model hands the layout to its attention layers
KINDS = ("sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
UNKNOWN = ("position_bias", "s_aux")  # what some models add to attention, and a row does not compute

_in_a_row: ContextVar[bool] = ContextVar("_in_a_row", default=False)


class RowsUnsupported(Exception):
    """A model's attention has something that a row cannot compute; the message says what."""


@contextmanager
def without_masks() -> Iterator[None]:
    """Inside it, models make no attention mask: a row's layout says who sees whom."""
    token = _in_a_row.set(True)
    try:
        yield
    finally:
        _in_a_row.reset(token)


def register() -> None:
    """Extend the attention functions of transformers in this process; twice does nothing more."""
    for kind in KINDS:
        attend: Any = AttentionInterface._global_mapping.get(kind)
        if attend is None or getattr(attend, "knows_rows", False):
            continue
        AttentionInterface.register(kind, _with_rows(attend))
        if (mask := AttentionMaskInterface._global_mapping.get(kind)) is not None:
            AttentionMaskInterface.register(kind, _unless_in_a_row(mask))


def _with_rows(attend: Callable) -> Callable:
    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, Any]:
        layout = options.pop(LAYOUT, None)
        if layout is None:
            if _in_a_row.get():
                raise RowsUnsupported("its layers do not hand keyword arguments to attention")
            return attend(module, query, key, value, attention_mask, **options)
        return row_attention(module, query, key, value, layout, **options), None

    attention.knows_rows = True  # type: ignore[attr-defined]
    return attention


def _unless_in_a_row(make_mask: Callable) -> Callable:
    def mask(*args: Any, **options: Any) -> Any:
        return None if _in_a_row.get() else make_mask(*args, **options)

    return mask


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: RowLayout,
    **options: Any,
) -> torch.Tensor:
    """Attention of one layer, (1, H, T, D) and (1, H_kv, T, D) twice to (1, T, H, D).

    Raises:
        RowsUnsupported: the layer has a bias or a window that it does not tell.
    """
    extra = [name for name in UNKNOWN if options.get(name) is not None]
    if extra:
        raise RowsUnsupported(f"its attention has {extra[0]}")
    if "sliding_window" not in options and getattr(getattr(module, "config", None), "sliding_window", None):
        raise RowsUnsupported("its layers do not say whether they have a sliding window")
    window = options.get("sliding_window")
    scale, dropout = options.get("scaling"), options.get("dropout", 0.0)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and find_spec("flash_attn"):
        return flash(query, key, value, layout, scale, dropout, window, options.get("softcap"))
    return sdpa(query, key, value, layout, scale, dropout, window)


def sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: RowLayout,
    scale: float | None = None,
    dropout: float = 0.0,
    window: int | None = None,
) -> torch.Tensor:
    """By PyTorch's attention, anywhere: once over the padded prompts, once over the padded completions."""
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (T, heads, D)
    prompts, completions, owner = layout.prompts, layout.completions, layout.owner
    if (repeats := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)

    def matrix(part: torch.Tensor, where: Any) -> torch.Tensor:
        count = len(where.sizes)
        return part.index_select(0, where.padded).view(count, where.longest, *part.shape[1:]).transpose(1, 2)

    q_prompt, k_prompt, v_prompt = (matrix(part, prompts) for part in (q, k, v))
    causal = None
    if window is not None and prompts.longest > window:
        at = torch.arange(prompts.longest, device=q.device)
        causal = _visible(at[:, None], at[None, :], window)
    of_prompts = scaled_dot_product_attention(
        q_prompt, k_prompt, v_prompt, causal, dropout, is_causal=causal is None, scale=scale
    )
    out = [_rows(of_prompts, prompts)]
    if completions.longest:
        q_own, k_own, v_own = (matrix(part, completions) for part in (q, k, v))
        of_completions = scaled_dot_product_attention(
            q_own,
            torch.cat([k_prompt[owner], k_own], dim=2),
            torch.cat([v_prompt[owner], v_own], dim=2),
            _completion_mask(layout, window)[:, None],
            dropout,
            scale=scale,
        )
        out.append(_rows(of_completions, completions))
    return torch.cat(out)[None]


def _rows(padded: torch.Tensor, where: Any) -> torch.Tensor:
    """(N, H, longest, D) → (tokens, H, D)"""
    return padded.transpose(1, 2).flatten(0, 1).index_select(0, where.flat)


def _completion_mask(layout: RowLayout, window: int | None) -> torch.Tensor:
    """Whom the completions' tokens see, of their prompt and of their own: bool, (B, C, P + C)."""
    sizes = layout.prompts.sizes[layout.owner][:, None, None]
    own = torch.arange(layout.completions.longest, device=sizes.device)
    prompt = torch.arange(layout.prompts.longest, device=sizes.device)
    at = sizes + own[None, :, None]
    of_prompt = _visible(at, prompt[None, None, :], window) & (prompt[None, None, :] < sizes)
    of_own = _visible(own[:, None], own[None, :], window)
    return torch.cat([of_prompt, of_own.expand(len(sizes), -1, -1)], dim=2)


def _visible(query: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor:
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: RowLayout,
    scale: float | None = None,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """By flash-attn's kernel for sequences of different lengths, without any padding."""
    from flash_attn import flash_attn_varlen_func

    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    prompts, completions, owner = layout.prompts, layout.completions, layout.owner
    cut = int(prompts.flat.shape[0])
    options = {
        "dropout_p": dropout,
        "softmax_scale": scale,
        "causal": True,
        "window_size": (-1, -1) if window is None else (window - 1, 0),
        "softcap": softcap or 0.0,
    }

    def bounds(sizes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(torch.int32)

    of_prompts = bounds(prompts.sizes)
    out = [
        flash_attn_varlen_func(
            q[:cut], k[:cut], v[:cut], of_prompts, of_prompts, prompts.longest, prompts.longest, **options
        )
    ]
    if completions.longest:
        both = prompts.sizes[owner] + completions.sizes
        seen = _keys(layout)
        # Queries stand at the end of their keys, as the kernel has it for fewer queries than keys.
        out.append(
            flash_attn_varlen_func(
                q[cut:],
                k.index_select(0, seen),
                v.index_select(0, seen),
                bounds(completions.sizes),
                bounds(both),
                completions.longest,
                int(both.max()),
                **options,
            )
        )
    return torch.cat(out)[None]


def _keys(layout: RowLayout) -> torch.Tensor:
    """The tokens that each completion sees, prompt and own, one completion behind the other, int64."""
    owner, prompts, completions = layout.owner, layout.prompts, layout.completions
    sizes = torch.stack([prompts.sizes[owner], completions.sizes], dim=1).flatten()
    starts = torch.stack([prompts.starts[owner], completions.starts], dim=1).flatten()
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.arange(int(sizes.sum()), device=sizes.device) + shift.repeat_interleave(sizes)
