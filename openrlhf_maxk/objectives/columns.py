"""Running an algorithm that loops over ranks on many groups: ranks first, a bounded number of groups at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STATE_SIZE = 2**15  # numbers: 256 KiB stay in a core's cache, and torch does not split work below this among threads


def by_columns(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor, k: int, outputs: int) -> list[Tensor]:
    """Apply ``function``, from (n, batch) arrays to a tuple of such arrays, to arguments of shape (..., n).

    ``function`` keeps states of k numbers a group. Groups are taken so many at a time that one state of all of them has
    ``STATE_SIZE`` numbers, or is that of one group: the memory for states does not grow with the batch.
    """
    n = arguments[0].shape[-1]
    rows = [argument.reshape(-1, n) for argument in arguments]
    # Made beforehand, and so below the states in memory, which then find the place of the last chunk's empty.
    results = [torch.empty_like(rows[0]) for _ in range(outputs)]
    groups = max(1, STATE_SIZE // k)
    with torch.inference_mode():  # a quarter less for each of the many small operations
        for start in range(0, len(rows[0]), groups):
            columns = (row[start : start + groups].t().contiguous() for row in rows)
            for result, output in zip(results, function(*columns), strict=True):
                result[start : start + groups] = output.t()
    return [result.reshape(arguments[0].shape) for result in results]
