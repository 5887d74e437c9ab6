"""Whether a model says the same of a row as of upstream's padded batch: asked once, of its first batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from openrlhf_maxk.rows.attention import KINDS, RowsUnsupported

LAYERS = ("full_attention", "sliding_attention")
ROUNDING = {8: 1e-9, 4: 1e-4, 2: 0.03}  # nats a token that are never taken for more than rounding, by bytes of a number
SEQUENCES, CONTEXT, ANSWER = 6, 256, 64  # compared: so many at most, so many tokens before and from the first action
MOST = 0.2  # nats a token that are never taken for rounding
Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether rows may be used, and one sentence that says why not, or how well they agree."""

    agree: bool
    reason: str


OFF = Verdict(False, "--maxk.rows off")


def few(batch: Batch) -> Batch:
    """What of a batch is compared: a few of its sequences, and of those what stands around the first action.

    The padded pass makes logits of all positions, which for whole long sequences may be more than there is memory for.
    """
    sequences, action_mask, attention_mask = batch
    width = sequences.shape[1]
    actions = torch.zeros_like(sequences, dtype=torch.bool)
    actions[:, width - action_mask.shape[1] :] = action_mask.bool()
    rows = torch.nonzero(actions.any(1)).squeeze(-1)
    rows = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=sequences.device)
    first = actions[rows].long().argmax(1)
    near = (first - first[0]).abs() <= CONTEXT
    rows, first = rows[near][:SEQUENCES], first[near][:SEQUENCES]
    start, end = max(int(first.min()) - CONTEXT, 0), int(first.max()) + ANSWER
    place = torch.arange(width, device=sequences.device)
    kept = (place >= first[:, None] - CONTEXT) & (place < first[:, None] + ANSWER)
    present = attention_mask[rows] * kept
    actions = (actions[rows] & kept).to(action_mask.dtype)
    return sequences[rows, start:end], actions[:, start + 1 : end], present[:, start:end]


def verdict(padded: Pass, in_a_row: Pass, batch: Batch, config: Any, dtype: torch.dtype) -> Verdict:
    """Compare the two passes; every rank must ask, and all get the same answer.

    What a difference may be is measured: the padded pass differs from itself in another shape, by the rounding of its
    dtype. The row may differ by a few times that.
    """
    reason = _cannot(config)
    expected = padded(*batch)
    wider = padded(*_wider(batch))[:, : batch[1].shape[1]]
    error, noise = 0.0, 0.0
    if not reason:
        try:
            found = in_a_row(*batch)
            error, noise = _distance(found, expected, batch[1]), _distance(wider, expected, batch[1])
        except RowsUnsupported as refusal:
            reason = str(refusal)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as failure:
            reason = f"it cannot compute one ({type(failure).__name__}: {failure})"
    allowed = min(8 * noise + ROUNDING[dtype.itemsize], MOST)
    if not reason and not error <= allowed:
        reason = f"its log-probs differ by {error:.2g} a token, where rounding explains {allowed:.2g}"
    if not _everywhere(not reason):
        return Verdict(False, reason or "another rank's model does not agree")
    return Verdict(True, f"log-probs agree to {error:.1g} a token")


def _cannot(config: Any) -> str:
    """What a model's configuration says against rows; empty if nothing does."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = set(getattr(config, "layer_types", None) or LAYERS)
    if other := sorted(kinds - set(LAYERS)):
        return f"it has layers of {', '.join(other)}"
    if getattr(config, "attention_chunk_size", None):
        return "its attention is cut into chunks"
    if (kind := config._attn_implementation) not in KINDS:
        return f"--ds.attn_implementation {kind} has no row"
    return ""


def _wider(batch: Batch) -> Batch:
    """The batch with more padding behind it, which no layer of a causal model can see, and so in another shape."""
    more = (0, 8 + batch[0].shape[1] // 4)
    sequences, action_mask, attention_mask = (torch.nn.functional.pad(part, more) for part in batch)
    return sequences, action_mask, attention_mask


def _distance(one: torch.Tensor, other: torch.Tensor, action_mask: torch.Tensor) -> float:
    """The mean absolute difference of the actions' log-probs; infinite where one is not a number."""
    difference = ((one - other).abs() * action_mask).sum() / action_mask.sum().clamp(min=1)
    return float(difference.nan_to_num(float("inf")))


def _everywhere(holds: bool) -> bool:
    if not (dist.is_available() and dist.is_initialized()):
        return holds
    device = torch.cuda.current_device() if dist.get_backend() == "nccl" else "cpu"
    answer = torch.tensor(int(holds), device=device)
    dist.all_reduce(answer, op=dist.ReduceOp.MIN)
    return bool(answer)
