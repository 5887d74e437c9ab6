"""Weights from the learner to vLLM without CUDA: gloo in place of NCCL, and vLLM's reload in place of its load."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap

TIMEOUT = timedelta(minutes=10)


class GlooGroup:
    """The one collective that the weight sync uses, with the signature of vLLM's NCCL communicator."""

    def __init__(self, host: str, port: int, rank: int, world_size: int) -> None:
        store = torch.distributed.TCPStore(host, port, world_size, is_master=rank == 0, timeout=TIMEOUT)
        self._group: Any = torch.distributed.ProcessGroupGloo(store, rank, world_size, TIMEOUT)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        """Send ``tensor`` (contiguous) from rank ``src`` to all ranks, in place."""
        options = torch.distributed.BroadcastOptions()
        options.rootRank = src
        # gloo does not know every dtype; bytes are bytes.
        self._group.broadcast([tensor.contiguous().view(torch.uint8)], options).wait()


def gloo_process_group(host: str, port: int, rank: int, world_size: int, device: Any) -> GlooGroup:
    """``stateless_init_process_group`` of OpenRLHF, over gloo."""
    return GlooGroup(host, port, rank, world_size)


class CPUWorkerWrap(WorkerWrap):
    """The methods OpenRLHF adds to vLLM's worker, on CPU.

    vLLM packs weights for the CPU when it has loaded them, so single tensors cannot be loaded again: they are
    collected, and loaded all at once when the last one has arrived (upstream marks it with ``empty_cache``). What is
    packed is a copy, and vLLM makes it anew for layers that were sent weights: an output layer that shares those of the
    embedding is sent none.
    """

    def init_process_group(
        self, master_address, master_port, rank_offset, world_size, group_name, backend="gloo", use_ray=False
    ) -> None:
        rank = torch.distributed.get_rank() + rank_offset
        self._weight_group = gloo_process_group(master_address, master_port, rank, world_size, None)
        self._weights: dict[str, torch.Tensor] = {}

    def update_weight(self, name, dtype, shape, empty_cache=False) -> None:
        assert dtype == self.model_config.dtype, f"the learner's {name} is {dtype}, vLLM's {self.model_config.dtype}"
        weight = torch.empty(shape, dtype=dtype)
        self._weight_group.broadcast(weight, src=0)
        self._weights[name] = weight
        if empty_cache:
            self._load(self._weights)
            self._weights = {}

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        """Raises RuntimeError for a model that does not take them all: vLLM itself keeps the old ones, and warns."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead  # the learner needs none of vLLM

        model = self.get_model()
        missing = {name for name, _ in model.named_parameters()}
        load = model.load_weights

        def noted(weights: Iterable[tuple[str, torch.Tensor]]) -> set[str] | None:
            loaded = load(weights)
            missing.difference_update(missing if loaded is None else loaded)
            return loaded

        with mock.patch.object(model, "load_weights", noted):
            self.reload_weights(weights_iterator=iter(weights.items()))
        if missing:
            raise RuntimeError(
                f"vLLM's {type(model).__name__} got no new {min(missing)} from the learner (and {len(missing) - 1} "
                "more): rollouts would go on with the old ones. vLLM does not know all of the names that transformers "
                "has for this kind of model, as with mixtures of experts"
            )
        for module in model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
