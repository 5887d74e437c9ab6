"""Attention over a row: prompts causally, each completion against its prompt and itself.

:func:`register` puts it in front of the attention functions of transformers. They take over again where no layout is
handed in, so nothing changes for other forward passes, and a model's configuration stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from openrlhf_maxk.machine import has_flash_attn
from openrlhf_maxk.rows.layout import Lengths, RowLayout

LAYOUT = "row_layout"  # the keyword argument with which a model hands the layout to its attention layers
KINDS = ("sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
UNKNOWN = ("position_bias", "s_aux")  # what some models add to attention, and a row does not compute

_extended: set[str] = set()  # the kinds that know rows
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
        if attend is None or kind in _extended:
            continue
        _extended.add(kind)
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
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and has_flash_attn():
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
    prompts, completions = layout.prompts, layout.completions
    window = window if window is not None and window < prompts.longest + completions.longest else None
    in_parts = q.is_cpu and window is None and not dropout
    if (repeats := q.shape[1] // k.shape[1]) > 1 and not in_parts:  # with a mask, kernels want as many heads of each
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    (q_prompt, q_own), (k_prompt, k_own), (v_prompt, v_own) = (
        part.tensor_split([prompts.flat.shape[0]]) for part in (q, k, v)
    )
    causal = None
    if window is not None:
        at = torch.arange(prompts.longest, device=q.device)
        causal = _visible(at[:, None], at[None, :], window)
    k_prompt, v_prompt = _Pad.apply(k_prompt, prompts), _Pad.apply(v_prompt, prompts)
    of_prompts = scaled_dot_product_attention(
        _Pad.apply(q_prompt, prompts),
        k_prompt,
        v_prompt,
        causal,
        dropout,
        is_causal=causal is None,
        scale=scale,
        enable_gqa=in_parts,
    )
    out = [_Unpad.apply(of_prompts, prompts)]
    if not completions.longest:
        return out[0][None]
    if in_parts:
        out.append(_InParts.apply(q_own, k_own, v_own, k_prompt, v_prompt, layout, scale))
        return torch.cat(out)[None]
    if (mask := layout.kept.get(window)) is None:
        mask = layout.kept[window] = _seen(layout, window)[:, None]
    of_completions = scaled_dot_product_attention(
        _Pad.apply(q_own, completions),
        torch.cat([k_prompt.index_select(0, layout.owner), _Pad.apply(k_own, completions)], dim=2),
        torch.cat([v_prompt.index_select(0, layout.owner), _Pad.apply(v_own, completions)], dim=2),
        mask,
        dropout,
        scale=scale,
    )
    return torch.cat([*out, _Unpad.apply(of_completions, completions)])[None]


class _Pad(torch.autograd.Function):
    """:func:`_into` with the backward pass that it has where nothing reads what padding computes."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, where: Lengths) -> torch.Tensor:
        ctx.where = where
        return _into(tokens, where)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _out_of(gradients[0], ctx.where), None


class _Unpad(torch.autograd.Function):
    """:func:`_out_of` with its backward pass; the general one of an index adds up slowly."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, where: Lengths) -> torch.Tensor:
        ctx.where = where
        return _out_of(padded, where)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _into(gradients[0], ctx.where, zeros=True), None


class _InParts(torch.autograd.Function):
    """Attention of completions on a CPU, in two parts whose softmaxes are put together.

    All completions of a group ask their prompt at once, and each asks itself, causally, so that no prompt is copied and
    little is masked. An output is the mean of the parts' outputs, weighted by their sums of exponentials; for its
    backward pass, a part needs to know the whole's output and the logarithm of that sum, as blocks of one attention do.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        k_prompt: torch.Tensor,
        v_prompt: torch.Tensor,
        layout: RowLayout,
        scale: float | None,
    ) -> torch.Tensor:
        parts = _parts(q, k, v, k_prompt, v_prompt, layout)
        (first, first_log), (second, second_log) = (
            [_out_of(part, where) for part in _attend(*tensors, 0.0, causal, attn_mask=mask, scale=scale)]
            for where, tensors, causal, mask in parts
        )
        log = torch.logaddexp(first_log, second_log)
        out = first * (first_log - log).exp()[..., None].to(q.dtype)
        out += second * (second_log - log).exp()[..., None].to(q.dtype)
        ctx.save_for_backward(q, k, v, k_prompt, v_prompt, out, log)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, k_prompt, v_prompt, out, log = ctx.saved_tensors
        found = []
        for where, tensors, causal, mask in _parts(q, k, v, k_prompt, v_prompt, ctx.layout):
            gradient, whole, total = _into(gradients[0], where, zeros=True), _into(out, where), _into(log, where)
            found.append(
                _attend_backward(gradient, *tensors, whole, total, 0.0, causal, attn_mask=mask, scale=ctx.scale)
            )
        (q_first, k_first, v_first), (q_second, k_second, v_second) = found
        groups, completions = ctx.layout.groups, ctx.layout.completions
        return (
            _out_of(q_first, groups) + _out_of(q_second, completions),
            _out_of(k_second, completions),
            _out_of(v_second, completions),
            k_first,
            v_first,
            None,
            None,
        )


def _parts(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_prompt: torch.Tensor, v_prompt: torch.Tensor, layout: RowLayout
) -> Iterator[tuple[Lengths, tuple[torch.Tensor, ...], bool, torch.Tensor | None]]:
    """Both attentions: how their queries lie, their tensors, whether they are causal, and what is added to scores."""
    if "prompt" not in layout.kept:
        sizes = layout.prompts.sizes[:, None]
        missing = torch.arange(layout.prompts.longest) >= sizes
        mask = torch.zeros(missing.shape, dtype=q.dtype).masked_fill_(missing, -torch.inf)
        layout.kept["prompt"] = mask[:, None, None] if missing.any() else None
    groups, own = layout.groups, layout.completions
    yield groups, (_into(q, groups), k_prompt, v_prompt), False, layout.kept["prompt"]
    yield own, (_into(q, own), _into(k, own), _into(v, own)), True, None


def _into(tokens: torch.Tensor, where: Lengths, zeros: bool = False) -> torch.Tensor:
    """(tokens, H, …) → (N, H, longest, …), with zeros or with anything where there is no token."""
    places = (len(where.sizes), where.longest, *tokens.shape[1:])
    if where.full:
        padded = tokens
    elif zeros:
        padded = tokens.new_zeros(places[0] * places[1], *places[2:]).index_copy_(0, where.flat, tokens)
    else:
        padded = tokens.index_select(0, where.padded)
    return padded.reshape(places).transpose(1, 2)


def _out_of(padded: torch.Tensor, where: Lengths) -> torch.Tensor:
    """(N, H, longest, …) → (tokens, H, …)"""
    places = padded.transpose(1, 2).flatten(0, 1)
    return places if where.full else places.index_select(0, where.flat)


_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _seen(layout: RowLayout, window: int | None) -> torch.Tensor:
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
    prompts, completions = layout.prompts, layout.completions
    cut = prompts.flat.shape[0]
    options = {
        "dropout_p": dropout,
        "softmax_scale": scale,
        "causal": True,
        "window_size": (-1, -1) if window is None else (window - 1, 0),
        "softcap": softcap or 0.0,
    }
    if "flash" not in layout.kept:
        layout.kept["flash"] = _FlashInputs.of(layout)
    given: _FlashInputs = layout.kept["flash"]
    longest = prompts.longest
    out = [flash_attn_varlen_func(q[:cut], k[:cut], v[:cut], given.prompts, given.prompts, longest, longest, **options)]
    if completions.longest:
        # Queries stand at the end of their keys, as the kernel has it for fewer queries than keys.
        out.append(
            flash_attn_varlen_func(
                q[cut:],
                k.index_select(0, given.keys),
                v.index_select(0, given.keys),
                given.completions,
                given.sequences,
                completions.longest,
                given.longest,
                **options,
            )
        )
    return torch.cat(out)[None]


@dataclass(frozen=True, slots=True)
class _FlashInputs:
    """What flash-attn asks of a layout: where prompts, completions and whole sequences begin and end, int32.

    ``keys``: see :func:`_keys`. ``longest``: of the whole sequences.
    """

    prompts: torch.Tensor
    completions: torch.Tensor
    sequences: torch.Tensor
    keys: torch.Tensor
    longest: int

    @classmethod
    def of(cls, layout: RowLayout) -> _FlashInputs:
        whole = layout.prompts.sizes[layout.owner] + layout.completions.sizes
        prompts, completions, sequences = (
            torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(torch.int32)
            for sizes in (layout.prompts.sizes, layout.completions.sizes, whole)
        )
        return cls(prompts, completions, sequences, _keys(layout), int(whole.max()))


def _keys(layout: RowLayout) -> torch.Tensor:
    """The tokens that each completion sees, prompt and own, one completion behind the other, int64."""
    owner, prompts, completions = layout.owner, layout.prompts, layout.completions
    sizes = torch.stack([prompts.sizes[owner], completions.sizes], dim=1).flatten()
    starts = torch.stack([prompts.starts[owner], completions.starts], dim=1).flatten()
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.arange(int(sizes.sum()), device=sizes.device) + shift.repeat_interleave(sizes)
