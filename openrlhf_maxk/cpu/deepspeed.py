"""DeepSpeed as OpenRLHF sets it up, on CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openrlhf_maxk.platform import is_cpu


def cpu_device_mesh(init_device_mesh: Callable[..., Any]) -> Callable[..., Any]:
    """Make device meshes of CPUs (gloo)."""

    def init(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return init_device_mesh("cpu", *args, **kwargs)

    return init


def with_torch_adam(get_train_ds_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Add ``torch_adam`` to the optimizer of a training configuration; on GPUs without nvcc it is torch's fused one."""

    def get(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config = get_train_ds_config(*args, **kwargs)
        if config.get("optimizer", {}).get("type") == "AdamW":
            config["optimizer"]["params"] |= {"torch_adam": True} if is_cpu() else {"torch_adam": True, "fused": True}
        return config

    return get


def no_shm_op() -> None:
    """No shared-memory collectives: what DeepSpeed does without them is what it does without a compiler."""


def gather_one_by_one(self: Any, param_list: list[Any], hierarchy: int = 0, quantize: bool = False) -> None:
    """Gather ZeRO-3 parameters, each complete before the next; ``quantize`` is seen by the callee for itself."""
    self._allgather_params_sequential(param_list, hierarchy)
