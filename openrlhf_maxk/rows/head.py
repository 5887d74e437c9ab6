"""Log-probs and entropy of chosen tokens from the output layer, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.checkpoint import checkpoint

from openrlhf_maxk.options.memory import MOST_LOGITS


def token_scores(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    entropy_gradient: bool = False,
    vocabulary: int = 1,
) -> torch.Tensor:
    """Log-probs of ``targets``, and entropies, in chunks whose logits are computed again in the backward pass.

    Args:
        head: the output layer, (m, hidden) to logits (m, V).
        hidden: shape (M, hidden).
        targets: int64, shape (M,).
        temperature: what logits are divided by.
        entropy: whether to compute it (else it is 0).
        entropy_gradient: whether it is trained on.
        vocabulary: V, which decides the size of a chunk.

    Returns:
        float32, shape (M, 2).
    """

    def score(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        logits = head(part).float()
        if temperature != 1.0:
            logits = logits / temperature
        log_probs = torch.log_softmax(logits, dim=-1)
        picked = log_probs.gather(-1, chosen[:, None]).squeeze(-1)
        spread = torch.zeros_like(picked)
        if entropy:
            with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
                known = log_probs if entropy_gradient else log_probs.detach()
                spread = -(known.exp() * known).sum(-1)
        return torch.stack([picked, spread], dim=-1)

    size = max(MOST_LOGITS // vocabulary, 1)
    if len(targets) <= size or not torch.is_grad_enabled():
        parts = [score(h, t) for h, t in zip(hidden.split(size), targets.split(size), strict=True)]
    else:
        parts = [
            checkpoint(score, h, t, use_reentrant=False)
            for h, t in zip(hidden.split(size), targets.split(size), strict=True)
        ]
    return torch.cat(parts)


@contextmanager
def in_place_of(layer: torch.nn.Module, scores: Callable[[Callable, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside it, a layer called with x returns ``scores(layer's own forward, x)``.

    Whatever surrounds a call of the layer, such as ZeRO-3's gathering of its weights, happens once around all chunks.
    """
    replaced = layer.__dict__.get("forward")
    own = layer.forward
    layer.forward = lambda x: scores(own, x)
    try:
        yield
    finally:
        if replaced is None:
            del layer.forward
        else:
            layer.forward = replaced
