"""Answers for the questions that OpenRLHF asks torch.cuda on a machine without CUDA."""

from __future__ import annotations

from typing import Any


def without_cuda(cuda: Any) -> Any:
    """Let ``torch.cuda`` name the CPU as the current device, with nothing to synchronize and no cache to empty."""
    import torch

    cpu = torch.device("cpu")
    cuda.current_device = lambda: cpu
    cuda.set_device = lambda device: None
    cuda.synchronize = lambda device=None: None
    cuda.empty_cache = lambda: None
    cuda.current_stream = lambda device=None: None
    return cuda
