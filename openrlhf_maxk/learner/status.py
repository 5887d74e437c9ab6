"""The mean of training-step metrics over micro-batches, PPO epochs and ranks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

LAST = ("actor_lr", "actor_grad_norm")  # no mean makes sense


class StatusMean:
    """Adds up the status dicts of upstream's training step, and reduces them over the ranks once, at the end.

    Upstream weighs a metric by its tokens or its samples, as the step says. Micro-batches without action tokens
    (fillers) do not count.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # name → weighted sum, weight
        self._last: dict[str, float] = {}
        self._ratio_max = 0.0

    def add(self, status: dict[str, Any]) -> None:
        """Count one micro-batch."""
        weights = {"token": status["num_action_tokens"], "sample": status["num_samples"]}
        for name, value in status["metrics"].items():
            if name in LAST:
                self._last[name] = float(value)
            elif status["num_action_tokens"] and (kind := status["weights"][name]) is not None:
                mean = value.float().mean().item() if isinstance(value, torch.Tensor) else float(value)
                self._add(name, mean * weights[kind], weights[kind])
        if status["num_action_tokens"]:
            for name, (total, count) in status["group_sums"].items():
                self._add(f"maxk/{name}", total, count)
            self._ratio_max = max(self._ratio_max, status["ratio_max"])

    def reduce(self) -> dict[str, float]:
        """The means over all ranks; every rank must call it."""
        ranks: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, (dict(self._sums), self._ratio_max))
        merged: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for sums, _ in ranks:
            for name, (total, weight) in sums.items():
                merged[name][0] += total
                merged[name][1] += weight
        means = {name: total / weight for name, (total, weight) in merged.items() if weight}
        return {**means, **self._last, "maxk/ratio_max": max(largest for _, largest in ranks)}

    def _add(self, name: str, total: float, weight: float) -> None:
        self._sums[name][0] += total
        self._sums[name][1] += weight
