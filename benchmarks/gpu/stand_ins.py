"""Stand-ins for Ray and for upstream's file around vLLM, where these are not installed: enough to import, not to run.

flash-attn needs none here: a seam takes its place.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

VLLM = "0.29.0"  # upstream's policy asks for the version, to work around old ones
VLLM_FILE = "openrlhf.trainer.ray.vllm_engine"


def install() -> list[str]:
    """Put stand-ins for what cannot be imported into ``sys.modules``; returns what they stand in for."""
    missing = [name for name in ("ray", "vllm") if not _can_be_imported(name)]
    if "ray" in missing:
        _module("ray", remote=_remote, ObjectRef=object, is_initialized=lambda: False)
        _module("ray.util")
        _module("ray.util.placement_group", PlacementGroup=object, placement_group=None)
        _module("ray.util.scheduling_strategies", PlacementGroupSchedulingStrategy=object)
    if "vllm" in missing:
        _module("vllm", __version__=VLLM)
        _module(VLLM_FILE, create_vllm_engines=None, batch_vllm_engine_call=None)
    return missing


def _can_be_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _module(name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents, __path__=[])
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)


def _remote(*classes: type, **_: Any) -> Any:
    """Ray's decorator, with or without arguments: the class stays what it is, and is found where Ray keeps it."""

    def decorate(cls: Any) -> Any:
        cls.__ray_metadata__ = SimpleNamespace(modified_class=cls)
        return cls

    return decorate(classes[0]) if classes else decorate
