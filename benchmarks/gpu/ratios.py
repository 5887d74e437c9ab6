"""log ρ at equal weights: what rounding in bfloat16 makes of it where the batch has another shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .parts import Bench, Record


def log_ratios_part(bench: Bench) -> Iterator[Record]:
    """The same rows through the same weights, against the log-probs that experience has of them."""
    from learners import Rollout, random_rows

    learners, sizes = bench.learners, bench.sizes
    assert learners is not None
    policy = learners.policy
    count = 8 * sizes.micro
    rows = random_rows(
        Rollout(count, 1, sizes.prompt, sizes.shortest, sizes.longest, vocabulary=sizes.model["vocab_size"])
    )
    mask = rows[1]

    def log_probs(forward: Callable[..., Tensor], at_once: int, wider: int = 0) -> Tensor:
        found = []
        for part in zip(*(column.split(at_once) for column in rows), strict=True):
            answer = forward(*(pad(column, (0, wider)) for column in part)).detach()  # lets go of what it holds
            found.append(answer.float().cpu()[:, : mask.shape[1]])
        return torch.cat(found)

    def training(*part: Tensor) -> Tensor:
        return policy.actor(*(column.to(bench.device) for column in part))

    recorded = log_probs(policy.forward, sizes.micro)
    for case, forward, at_once, wider in (
        ("the same shape", policy.forward, sizes.micro, 0),
        ("the same shape, with gradient", training, sizes.micro, 0),
        ("rows one by one", policy.forward, 1, 0),
        (f"{4 * sizes.micro} rows instead of {sizes.micro}", policy.forward, 4 * sizes.micro, 0),
        ("13 columns of padding more", policy.forward, sizes.micro, 13),
    ):
        yield Record(case, noise(log_probs(forward, at_once, wider) - recorded, mask))


def noise(log_ratios: Tensor, mask: Tensor) -> dict[str, float]:
    """Mean, standard deviation and largest size of log ρ, of tokens and of whole completions; (B, T) each."""
    figures = {}
    for name, values in (("token", log_ratios[mask.bool()]), ("completion", (log_ratios * mask).sum(-1))):
        figures[f"{name} mean"] = values.mean().item()
        figures[f"{name} sd"] = values.std().item()
        figures[f"{name} max"] = values.abs().max().item()
    return figures
