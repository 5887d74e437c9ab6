"""float32 on CPUs: few have bfloat16's arithmetic, and emulating it makes a training step several times as long.

:data:`openrlhf_maxk.platform.CPU_PARAM_DTYPE` decides it; this is what ``--ds.param_dtype fp32`` needs beside
upstream's bf16 and fp16. DeepSpeed's configurations need nothing: each switches on what it is the name of.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

FP32 = "fp32"


def offer_float32(parser: argparse.ArgumentParser) -> None:
    """Add ``fp32`` to what ``--ds.param_dtype`` may be."""
    option = next(action for action in parser._actions if action.dest == "ds.param_dtype")
    option.choices = (*(option.choices or ()), FP32)
    option.help = "what the model is computed in: bfloat16, float16 or, on CPU, float32 (default: %(default)s)"


def with_float32(convert_to_torch_dtype: Callable[[str], torch.dtype]) -> Callable[[str], torch.dtype]:
    """Let ``convert_to_torch_dtype`` know ``fp32``."""

    def convert(param_dtype: str) -> torch.dtype:
        return torch.float32 if param_dtype == FP32 else convert_to_torch_dtype(param_dtype)

    return convert
