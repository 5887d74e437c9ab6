"""float32 on CPUs: few have bfloat16's arithmetic, and emulating it makes a training step several times as long.

:data:`openrlhf_maxk.platform.CPU_PARAM_DTYPE` decides it; this is what ``--ds.param_dtype fp32`` needs beside
upstream's bf16 and fp16. DeepSpeed's configurations need nothing: each switches on what it is the name of.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest import mock

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


def as_the_base_model(save_model: Callable[..., None]) -> Callable[..., None]:
    """Let ``DeepspeedStrategy.save_model`` write what was trained in float32 in the dtype of the base model."""

    def save(self: Any, model: Any, tokenizer: Any, output_dir: str, **kwargs: Any) -> None:
        dtype = base_dtype(self.args.actor.model_name_or_path) if self.param_dtype == FP32 else None
        if dtype is None:
            save_model(self, model, tokenizer, output_dir, **kwargs)
            return
        module = self._unwrap_model(model)
        save_pretrained = module.save_pretrained

        def save_converted(folder: str, state_dict: dict[str, torch.Tensor], **options: Any) -> None:
            converted = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state_dict.items()}
            save_pretrained(folder, state_dict=converted, **options)
            module.config.dtype = dtype  # upstream writes the configuration once more

        with mock.patch.object(module, "save_pretrained", save_converted):
            save_model(self, model, tokenizer, output_dir, **kwargs)

    return save


def base_dtype(model: str) -> torch.dtype | None:
    """The dtype that a model's configuration names; None if it names none."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, trust_remote_code=True).dtype
