"""How much memory a run needs of a GPU, and how much disk: computed from the model's shape and the options.

An estimate for dense decoders with gated MLPs (Llama, Qwen, Mistral), not a measurement: allocators, communication
buffers and CUDA itself take 2 to 4 GiB more.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
RESERVE = 3 * GIB  # for CUDA, communication buffers and fragmentation
ACTIVATION = 34  # bytes for each hidden unit of a token and layer, without attention scores (Korthikanti et al., 2022)
LOGIT = 10  # bytes: in the model's dtype, in float32, and its gradient
MOST_LOGITS = 2**25  # at once, of a row
OPTIMIZER = 12  # bytes a parameter: AdamW's master weights and two moments, in float32


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory depends on, of a dense decoder."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool  # input and output embeddings are the same

    @classmethod
    def of(cls, config: Any) -> Shape | None:
        """The shape that a Hugging Face configuration names; None for a mixture of experts, or if it names none."""
        if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
            return None
        try:
            heads = config.num_attention_heads
            return cls(
                config.hidden_size,
                config.intermediate_size,
                config.num_hidden_layers,
                heads,
                getattr(config, "num_key_value_heads", None) or heads,
                getattr(config, "head_dim", None) or config.hidden_size // heads,
                config.vocab_size,
                bool(config.tie_word_embeddings),
            )
        except AttributeError:
            return None

    @property
    def parameters(self) -> int:
        """How many there are, but for the biases of projections."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.key_value_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + (2 - self.tied) * self.vocabulary * self.hidden

    def trained(self, rank: int) -> int:
        """How many are trained: all, or with LoRA of ``rank`` two factors of it for each projection, at most."""
        if not rank:
            return self.parameters
        attention = 4 * self.hidden + 2 * self.head_size * (self.heads + self.key_value_heads)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


def learner_bytes(shape: Shape, args: Any, rows: bool = True) -> dict[str, float]:
    """What a learner rank holds at its peak, by what it is for; the reference model where it shares the GPU.

    ``rows``: groups are computed as rows, their prompts once, with the logits of completions only, in chunks.
    """
    ranks = args.actor.num_nodes * args.actor.num_gpus_per_node
    stage, width = args.ds.zero_stage, 4 if args.ds.param_dtype == "fp32" else 2
    offloaded, trained = args.ds.adam_offload, shape.trained(args.ds.lora.rank)
    weights = width * shape.parameters / (ranks if stage == 3 else 1)  # an adapter's are next to nothing
    samples, longest = args.train.micro_batch_size, args.data.max_len
    tokens = samples * longest
    logits = tokens * shape.vocabulary
    if rows:
        new = min(args.rollout.max_new_tokens or longest, longest)
        prompts = max(samples // args.rollout.n_samples_per_prompt, 1)
        tokens = samples * new + prompts * (longest - new)
        if args.train.dynamic_batch_enable:
            tokens = max(args.train.max_tokens_per_gpu, longest)
        logits = min(tokens * shape.vocabulary, MOST_LOGITS)
    unit = ACTIVATION * tokens * shape.hidden * width / 2
    checkpointed = args.actor.gradient_checkpointing_enable
    # With checkpointing: what goes into each layer, and the inside of one.
    layers = shape.layers * tokens * shape.hidden * width + unit if checkpointed else shape.layers * unit
    shared = args.algo.kl.init_coef > 0 and (args.train.colocate_all or args.train.colocate_actor_ref)
    return {
        "weights": weights,
        "gradients": 0 if offloaded else width * trained / (ranks if stage >= 2 else 1),
        "optimizer": 0 if offloaded else OPTIMIZER * trained / (ranks if stage >= 1 else 1),
        "activations": layers + LOGIT * logits,
        "reference": weights if shared else 0,
    }


def engine_bytes(shape: Shape, args: Any) -> dict[str, float]:
    """What a GPU of a vLLM engine needs at least: the weights, and the KV cache of one group."""
    width = 4 if args.ds.param_dtype == "fp32" else 2
    token = 2 * shape.layers * shape.key_value_heads * shape.head_size * width
    group = args.rollout.n_samples_per_prompt * args.data.max_len
    parallel = args.vllm.tensor_parallel_size
    return {"weights": width * shape.parameters / parallel, "KV cache": token * group / parallel}


def checkpoint_bytes(shape: Shape, args: Any) -> float:
    """The size of one checkpoint: weights and the optimizer's state."""
    width = 4 if args.ds.param_dtype == "fp32" else 2
    return width * shape.parameters + OPTIMIZER * shape.trained(args.ds.lora.rank)


def memory_warnings(shape: Shape, args: Any, gpu: float, rows: bool = True) -> list[str]:
    """What does not fit into GPUs of ``gpu`` bytes, with what to do."""
    found = []
    learner, engine = learner_bytes(shape, args, rows), engine_bytes(shape, args)
    share = args.vllm.gpu_memory_utilization * gpu
    if sum(learner.values()) + RESERVE > gpu:
        found.append(
            f"a learner rank needs about {_said(learner)}, and its GPU has {gpu / GIB:.0f}: more learner ranks with "
            "--ds.zero_stage 3, --ds.adam_offload, or --train.micro_batch_size down to one group"
        )
    if sum(engine.values()) > share:
        found.append(
            f"a vLLM engine needs about {_said(engine)}, and may take {share / GIB:.0f} of its GPU: raise "
            "--vllm.gpu_memory_utilization or --vllm.tensor_parallel_size"
        )
    # While vLLM generates on the learner's GPU, weights stay there; gradients and the optimizer's state leave (sleep).
    stays = learner["weights"] + learner["reference"] + RESERVE
    if args.train.colocate_all and share + stays > gpu:
        found.append(
            f"vLLM takes {share / GIB:.0f} GiB of a GPU of {gpu / GIB:.0f} on which {stays / GIB:.0f} stay with "
            f"learner and reference: --vllm.gpu_memory_utilization {max(gpu - stays, 0) / gpu:.2f}"
        )
    return found


def disk_warning(shape: Shape, args: Any, path: str) -> str | None:
    """What is said where the checkpoints that are kept, and the one that is being written, have no room."""
    if args.ckpt.save_steps < 1:
        return None
    folder = next(p for p in (Path(path).absolute(), *Path(path).absolute().parents) if p.exists())
    one, free = checkpoint_bytes(shape, args), shutil.disk_usage(folder).free
    kept = args.ckpt.max_num + 1
    if kept * one <= free:
        return None
    return (
        f"--ckpt.path {path} has {free / 1e9:.0f} GB free, and {kept} checkpoints of {one / 1e9:.0f} GB are there at "
        "once: lower --ckpt.max_num, or choose another disk"
    )


def _said(parts: dict[str, float]) -> str:
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)
    return f"{sum(parts.values()) / GIB:.0f} GiB ({shown})"
