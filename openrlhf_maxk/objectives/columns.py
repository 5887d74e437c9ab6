"""Running an algorithm that loops over ranks on many groups: ranks first, a bounded number of groups at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STATE_SIZE = 2**15  # numbers: 256 KiB stay in a core's cache, and torch does not split work below this among threads


def by_columns(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor, k: int) -> list[Tensor]:
    """Apply ``function``, from (n, batch) arrays to such arrays, to arguments of shape (..., n).

    ``function`` keeps states of k numbers a group. Groups are taken so many at a time that one state of all of them has
    ``STATE_SIZE`` numbers, or is that of one group: the memory for states does not grow with the batch.
    """
    shape = arguments[0].shape
    rows = [argument.reshape(-1, shape[-1]) for argument in arguments]
    groups = max(1, STATE_SIZE // k)
    with torch.inference_mode():  # a quarter less for each of the many small operations
        parts = [
            function(*(row[start : start + groups].t().contiguous() for row in rows))
            for start in range(0, max(rows[0].shape[0], 1), groups)
        ]
    # Concatenated out here they are ordinary tensors again.
    return [torch.cat([part.t() for part in output]).reshape(shape) for output in zip(*parts, strict=True)]
