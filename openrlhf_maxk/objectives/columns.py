"""Running an algorithm that loops over ranks on a batch of groups: ranks first, a bounded number of groups at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch
from torch import Tensor

WORKING_SET = 2**22  # float64 numbers in the states kept at once: 32 MiB, whatever the batch


def by_columns(function: Callable[..., Tensor], *arguments: Tensor, k: int) -> Tensor:
    """Apply ``function``, from (n, batch) arrays to one, to arguments of shape (..., n); return (..., n).

    ``function`` may keep up to 2√n states of k numbers a group; groups are taken in chunks so that all states together
    stay within ``WORKING_SET``, or are those of one group.
    """
    arguments = torch.broadcast_tensors(*arguments)
    shape = arguments[0].shape
    n = shape[-1]
    rows = [argument.reshape(-1, n) for argument in arguments]
    result = torch.empty_like(rows[0], memory_format=torch.contiguous_format)
    chunk = max(1, WORKING_SET // (2 * (isqrt(n) + 1) * k))
    for start in range(0, rows[0].shape[0], chunk):
        groups = slice(start, start + chunk)
        result[groups] = function(*(row[groups].t().contiguous() for row in rows)).t()
    return result.reshape(shape)
