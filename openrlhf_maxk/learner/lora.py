"""LoRA (``--ds.lora.rank``): what vLLM is sent, and what is saved, is the base model with the adapter merged into it.

Only the adapter is trained. The merged weights W + (α / rank) B A exist one at a time, beside the live ones, which stay
as they are: merging in place and taking it back would round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import deepspeed
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import Parameter

from openrlhf_maxk.options.adapter import ALL_LINEAR
from openrlhf_maxk.upstream.seams import Upstream

GatheredParameters = deepspeed.zero.GatheredParameters  # there, it is another one during a broadcast


class MergedWeight:
    """The weight of an adapted layer with the adapter merged in, to be read where upstream reads a parameter.

    It is computed whenever ``data`` is read. Under ZeRO-3 its ``sources`` must be gathered for that.
    """

    requires_grad = True  # it changes, unlike the parameter below it

    def __init__(self, layer: Any) -> None:
        """``layer``: a ``LoraLayer``, which is a module as well."""
        self._layer = layer
        self._weight = layer.get_base_layer().weight
        self.sources = [self._weight, *(p for name, p in layer.named_parameters() if name.startswith("lora_"))]
        self.dtype = self._weight.dtype

    @property
    def shape(self) -> torch.Size:
        """That of the base layer's weight."""
        return self._weight.shape

    @property
    def ds_shape(self) -> torch.Size:
        """The shape of the whole weight, where ZeRO-3 keeps a part of it."""
        return self._weight.ds_shape

    @property
    def data(self) -> torch.Tensor:
        """W + (α / rank) B A, a new tensor in the dtype of W."""
        with torch.no_grad():
            merged = self._weight.detach()
            for adapter in self._layer.active_adapters:
                merged = merged + self._layer.get_delta_weight(adapter).to(merged.dtype)
            return merged


def merged_parameters(model: PeftModel) -> Iterator[tuple[str, Parameter | MergedWeight]]:
    """The parameters of the base model under its own names, in its order; those of adapted layers merged."""
    base: Any = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in base.named_parameters():
        layer, _, of_base = name.partition(".base_layer.")
        if layer in adapted:
            yield f"{layer}.{of_base}", MergedWeight(adapted[layer]) if of_base == "weight" else parameter
        elif ".lora_" not in name:
            yield name, parameter


@contextmanager
def gathered(parameters: Sequence[Parameter | MergedWeight], enabled: bool = True) -> Iterator[None]:
    """DeepSpeed's ``GatheredParameters`` for parameters and merged weights. All ranks must take part."""
    sources = [s for p in parameters for s in (p.sources if isinstance(p, MergedWeight) else [p])]
    with GatheredParameters(sources, enabled=enabled):
        yield


class MergedBroadcast(Upstream):
    """In front of OpenRLHF's ``ActorPPOTrainer``, which sends vLLM an adapter under names it does not know."""

    def broadcast_to_vllm(self) -> None:
        """Send vLLM the weights of the policy; of one with an adapter, the merged ones under the base model's names."""
        module = self.actor.model.module
        if not isinstance(module, PeftModel):
            super().broadcast_to_vllm()
            return
        with (
            mock.patch.object(module, "named_parameters", partial(merged_parameters, module)),
            mock.patch.object(deepspeed.zero, "GatheredParameters", gathered),
        ):
            super().broadcast_to_vllm()


class MergedModel:
    """A policy with an adapter, to be saved by upstream as a model without: gathered on rank 0, in its main memory.

    Attributes:
        config: of the base model.
        adapter: the adapter's parameters by their names in the model; rank 0 only.
    """

    def __init__(self, model: PeftModel, is_rank_0: bool) -> None:
        """Gather it; all ranks must take part."""
        self._base: Any = model.get_base_model()
        self.config = self._base.config
        self.adapter: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}
        for name, parameter in merged_parameters(model):
            with gathered([parameter]):
                if is_rank_0:
                    self._weights[name] = parameter.data.to("cpu", copy=True)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                with gathered([parameter]):
                    if is_rank_0:
                        self.adapter[name] = parameter.data.to("cpu", copy=True)
        if is_rank_0:  # no zero stage takes buffers apart
            parameters = {name for name, _ in self._base.named_parameters(remove_duplicate=False)}
            buffers = {n: t.cpu() for n, t in self._base.state_dict().items() if n not in parameters}
            self._weights |= buffers

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The merged weights, and the buffers that belong to the model; empty on other ranks."""
        return self._weights

    _consolidated_16bit_state_dict = state_dict  # as upstream asks for it with ZeRO-3

    def save_pretrained(self, folder: str, **options: Any) -> None:
        """As the base model's."""
        self._base.save_pretrained(folder, **options)


def lora_of_the_models_dtype(get_peft_model: Callable[..., PeftModel]) -> Callable[..., PeftModel]:
    """Make adapters in the dtype of the model, at every ZeRO stage: DeepSpeed keeps the float32 master copy.

    The name of all linear layers may be given where names of layers may.
    """

    def get(model: Any, config: LoraConfig, **options: Any) -> PeftModel:
        if config.target_modules == {ALL_LINEAR}:
            config.target_modules = ALL_LINEAR
        return get_peft_model(model, config, **{"autocast_adapter_dtype": False, **options})

    return get
