"""Running an algorithm that loops over ranks on a batch of groups: ranks first, a bounded number of groups at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch
from torch import Tensor

WORKING_SET = 2**21  # float64 numbers in the states kept at once: 16 MiB, however many groups there are


def by_columns(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor, k: int) -> list[Tensor]:
    """Apply ``function``, from (n, batch) arrays to such arrays, to arguments of shape (..., n).

    ``function`` may keep 4√n states of k numbers a group. Groups are taken in chunks such that these stay within
    ``WORKING_SET`` together, or are those of one group.
    """
    shape = arguments[0].shape
    n = shape[-1]
    rows = [argument.reshape(-1, n) for argument in arguments]
    chunk = max(1, WORKING_SET // (4 * (isqrt(n) + 1) * k))
    parts = [
        function(*(row[start : start + chunk].t().contiguous() for row in rows))
        for start in range(0, max(rows[0].shape[0], 1), chunk)
    ]
    return [torch.cat([part.t() for part in output]).reshape(shape) for output in zip(*parts, strict=True)]
