"""What a run saves: a model that transformers loads, in the dtype of the base model, and the adapter beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import PeftModel

from openrlhf_maxk.cpu.precision import FP32
from openrlhf_maxk.learner.lora import MergedModel

ADAPTER = "adapter"  # the folder in that of a model


def as_users_load_it(save_model: Callable[..., None]) -> Callable[..., None]:
    """Let ``DeepspeedStrategy.save_model`` merge an adapter, keep it beside, and save float32 in the base's dtype."""

    def save(self: Any, model: Any, tokenizer: Any, output_dir: str, **kwargs: Any) -> None:
        dtype = base_dtype(self.args.actor.model_name_or_path) if self.param_dtype == FP32 else None
        policy = self._unwrap_model(model)
        if not isinstance(policy, PeftModel):
            _save(save_model, self, model, dtype, tokenizer, output_dir, **kwargs)
            return
        merged = MergedModel(policy, self.is_rank_0())
        if self.is_rank_0():
            folder = str(Path(output_dir) / ADAPTER)
            policy.save_pretrained(folder, state_dict=merged.adapter, save_embedding_layers=False)
        _save(save_model, self, merged, dtype, tokenizer, output_dir, **kwargs)

    return save


def _save(
    save_model: Callable[..., None],
    strategy: Any,
    model: Any,
    dtype: torch.dtype | None,
    tokenizer: Any,
    output_dir: str,
    **kwargs: Any,
) -> None:
    """Upstream's way, with the weights in ``dtype``, or as they are."""
    if dtype is None:
        save_model(strategy, model, tokenizer, output_dir, **kwargs)
        return
    module = strategy._unwrap_model(model)
    save_pretrained = module.save_pretrained

    def save_converted(folder: str, state_dict: dict[str, torch.Tensor], **options: Any) -> None:
        converted = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state_dict.items()}
        save_pretrained(folder, state_dict=converted, **options)
        module.config.dtype = dtype  # upstream writes the configuration once more

    with mock.patch.object(module, "save_pretrained", save_converted):
        save_model(strategy, model, tokenizer, output_dir, **kwargs)


def base_dtype(model: str) -> torch.dtype | None:
    """The dtype that a model's configuration names; None if it names none."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model, trust_remote_code=True).dtype
