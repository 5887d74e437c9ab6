"""The layers that an adapter is put on (``--ds.lora.target_modules``): are they there, and can they be merged?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

ALL_LINEAR = "all-linear"  # peft's name for every linear layer but the head
OPTION = "--ds.lora.target_modules"


def adapter(args: Any) -> Iterator[str]:
    """What is wrong with the layers that are named, one line each; nothing for a model that is not within reach."""
    targets = args.ds.lora.target_modules
    if args.ds.lora.rank < 1 or targets in (ALL_LINEAR, [ALL_LINEAR]):
        return
    if not targets:
        yield f"{OPTION} names no layer: give some, such as q_proj v_proj, or leave it out for all linear ones"
        return
    found = _linear_layers(args.actor.model_name_or_path) if args.actor.model_name_or_path else None
    if found is None:
        return
    layers, shared = found
    last = sorted({name.rpartition(".")[2] for name in layers})
    for target in targets:
        meant = {name for name in layers if name == target or name.endswith(f".{target}")}
        if not meant:
            near = difflib.get_close_matches(target, last, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            yield f"{OPTION} {target} is no linear layer of the model: {hint}It has {', '.join(last)}"
        elif meant & shared:
            yield (
                f"{OPTION} {target} shares its weight with the input embeddings, which have no adapter: vLLM has one "
                "weight for both, so leave it out"
            )


def _linear_layers(model: str) -> tuple[set[str], set[str]] | None:
    """The linear layers by name, and those whose weight is the embeddings' too; None if the model is out of reach."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=True)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    except (OSError, ValueError, ImportError):  # not here, or known to its own code alone
        return None
    made.tie_weights()
    linear = {n: m for n, m in made.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    embeddings = made.get_input_embeddings().weight
    return set(linear), {name for name, layer in linear.items() if layer.weight is embeddings}
