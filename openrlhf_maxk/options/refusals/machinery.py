"""Refused because of what does the work: groups that must stay whole, vLLM, DeepSpeed, the platform."""

from __future__ import annotations

import os
from importlib.util import find_spec

from openrlhf_maxk.options.refusals.rule import ADD_IT, LEAVE_OUT, Rule, Run

ON_CPU = "on CPU"


def _on_cpu(run: Run) -> bool:
    return run.cpu


def _on_gpu(run: Run) -> bool:
    return not run.cpu


def _has_adapter(run: Run) -> bool:
    return run.args.ds.lora.rank > 0


def _misses(package: str) -> bool:
    return find_spec(package) is None


GROUPS = (
    Rule(
        "train.async_enable train.async_queue_size train.partial_rollout_enable",
        "completions are from policies of earlier steps, with partial rollouts from several in one completion, and "
        "ρ is measured from the one policy of the step",
        LEAVE_OUT,
    ),
    Rule(
        "train.max_tokens_per_gpu rollout.max_tokens_per_gpu",
        "micro-batches are cut by their samples",
        "add --train.dynamic_batch_enable, or leave it out",
        when="without `--train.dynamic_batch_enable`",
        holds=lambda run: not run.args.train.dynamic_batch_enable,
    ),
    Rule(
        "ds.packing_samples train.dynamic_batch_enable",
        "what is packed and counted are groups as rows",
        "leave one of them out",
        when="with `--maxk.rows off`",
        holds=lambda run: run.maxk.rows == "off",
    ),
    Rule(
        "ds.packing_samples train.dynamic_batch_enable",
        "OpenRLHF packs a reward model's batches with flash-attn, which is not installed",
        "install it, or leave the option out",
        when="with `--reward.model_name_or_path`, without flash-attn",
        holds=lambda run: bool(run.args.reward.model_name_or_path) and _misses("flash_attn"),
    ),
    Rule(
        "ds.ring_attn_size ds.ring_attn_head_stride",
        "the ranks of a ring need the same groups, and every rank is dealt its own; it needs packing, too",
        "leave it out; for long completions, use --ds.zero_stage 3, --actor.gradient_checkpointing_enable and a "
        "--train.micro_batch_size of one group or less",
    ),
    Rule(
        "ds.tensor_parallel_size",
        "its ranks need the same groups, and every rank is dealt its own",
        "use --ds.zero_stage 3",
    ),
    Rule(
        "data.max_images_per_prompt data.image_key actor.freeze_visual_encoder",
        "a group is asked of vLLM with the tokens of its prompt, and has no images",
        LEAVE_OUT,
    ),
)

LORA = (
    Rule(
        "ds.lora.rank",
        "it is the number of columns of a matrix",
        "use a number such as 16, or 0 to train all weights",
        values="below 0",
        bad=lambda rank: rank < 0,
    ),
    Rule(
        "ds.lora.alpha ds.lora.target_modules ds.lora.dropout",
        "there is no adapter that it could be about",
        ADD_IT,
        when="without --ds.lora.rank",
        holds=lambda run: run.args.ds.lora.rank == 0,
    ),
    Rule(
        "ds.lora.alpha",
        "the adapter is scaled by it, over its rank",
        "use a number such as 16",
        values="0 and below",
        bad=lambda alpha: alpha <= 0,
    ),
    Rule(
        "ds.lora.dropout",
        "ρ and the loss would be those of another network in every pass, and not of the policy that vLLM samples from",
        LEAVE_OUT,
        when="with --ds.lora.rank",
        holds=_has_adapter,
    ),
    Rule(
        "actor.optim",
        "it orthogonalizes the update of a weight, and an adapter has only factors of one",
        "leave it out",
        when="with --ds.lora.rank",
        holds=_has_adapter,
        values="`muon`",
        bad=lambda optimizer: optimizer == "muon",
    ),
    Rule(
        "ds.load_in_4bit",
        "vLLM gets the weights with the adapter merged in, and weights packed in 4 bits have no room for it",
        "leave it out; with --ds.lora.rank alone, base weights have no gradients and no optimizer state",
    ),
)

WEIGHTS = (
    Rule(
        "ds.param_dtype",
        "OpenRLHF starts vLLM in bfloat16, and it takes weights of no other type",
        LEAVE_OUT,
        values="`fp16`",
        bad=lambda dtype: dtype == "fp16",
    ),
    Rule(
        "ds.use_liger_kernel",
        "liger-kernel is not installed",
        "install it, or leave the option out",
        when="without its package",
        holds=lambda run: not run.cpu and _misses("liger_kernel"),
    ),
    Rule(
        "ds.attn_implementation",
        "kernels, which gets it from the hub, is not installed",
        "install it, or use --ds.attn_implementation flash_attention_2",
        when="without its package",
        holds=lambda run: _misses("kernels"),
        values="from the hub",
        bad=lambda name: "/" in name,
    ),
)

VLLM = (
    Rule(
        "vllm.num_engines",
        "vLLM makes the rollouts",
        "use at least 1",
        values="0",
        bad=lambda engines: not engines,
    ),
    Rule(
        "vllm.enable_sleep",
        "OpenRLHF switches it off again",
        "leave it out, or add --train.colocate_all",
        when="without --train.colocate_all",
        holds=lambda run: not run.args.train.colocate_all and not run.cpu,
    ),
    Rule(
        "vllm.sync_backend",
        "weights travel over NCCL",
        LEAVE_OUT,
        when="on GPUs",
        holds=_on_gpu,
        values="other than `nccl`",
        bad=lambda backend: backend != "nccl",
    ),
    Rule(
        "vllm.sync_backend",
        "weights travel over gloo",
        LEAVE_OUT,
        when=ON_CPU,
        holds=_on_cpu,
        values="other than `gloo`",
        bad=lambda backend: backend != "gloo",
    ),
    Rule("vllm.sync_with_ray", "weights travel over gloo", LEAVE_OUT, when=ON_CPU, holds=_on_cpu),
    Rule(
        "vllm.sync_with_ray",
        "cupy, which Ray's NCCL needs, is not installed",
        "install it, or leave the option out",
        when="without its package",
        holds=lambda run: not run.cpu and _misses("cupy"),
    ),
)

DEEPSPEED = (
    Rule(
        "ds.zero_stage",
        "there is no such stage",
        "use 0, 1, 2 or 3",
        values="other than 0 to 3",
        bad=lambda stage: stage not in range(4),
    ),
    Rule(
        "ref.offload reward.offload",
        "a model that is only evaluated is not partitioned below stage 3, and DeepSpeed leaves it on its GPU",
        "use --ds.zero_stage 3, or leave it out",
        when="without --ds.zero_stage 3",
        holds=lambda run: not run.cpu and run.args.ds.zero_stage != 3,
    ),
    Rule(
        "ds.zpg",
        "only stage 3 partitions parameters",
        "use --ds.zero_stage 3, or leave it out",
        when="without --ds.zero_stage 3",
        holds=lambda run: run.args.ds.zero_stage != 3,
    ),
    Rule(
        "ds.grad_accum_dtype",
        "DeepSpeed does not know it",
        "use bf16 or fp32",
        values="other than `bf16` and `fp32`",
        bad=lambda name: name not in (None, "bf16", "fp32"),
    ),
    Rule(
        "ds.grad_accum_dtype",
        "without ZeRO, gradients are of the parameters' type",
        "leave it out, or use --ds.zero_stage 2",
        when="with --ds.zero_stage 0",
        holds=lambda run: run.args.ds.zero_stage == 0,
        values="`fp32`",
        bad=lambda name: name == "fp32",
    ),
    Rule(
        "actor.gradient_checkpointing_reentrant",
        "nothing is checkpointed",
        ADD_IT,
        when="without --actor.gradient_checkpointing_enable",
        holds=lambda run: not run.args.actor.gradient_checkpointing_enable,
    ),
)

PLATFORM = (
    Rule("local_rank", "Ray gives every process its device", LEAVE_OUT),
    Rule(
        "use_ms",
        "OpenRLHF tells only its driver, and models are loaded in other processes",
        "download the model, and give its folder as --actor.model_name_or_path",
    ),
    Rule(
        "ds.adam_offload ref.offload reward.offload ds.enable_sleep vllm.enable_sleep",
        "it moves memory off GPUs",
        LEAVE_OUT,
        when=ON_CPU,
        holds=_on_cpu,
    ),
    Rule("ds.deepcompile ds.use_liger_kernel", "it is for CUDA", LEAVE_OUT, when=ON_CPU, holds=_on_cpu),
    Rule(
        "ds.attn_implementation",
        "it is for CUDA",
        "use --ds.attn_implementation sdpa",
        when=ON_CPU,
        holds=_on_cpu,
        values="with *flash* in its name",
        bad=lambda name: "flash" in name,
    ),
    Rule(
        "vllm.gpu_memory_utilization",
        "there VLLM_CPU_KVCACHE_SPACE, in GiB, says how much memory vLLM takes",
        "set that variable",
        when=ON_CPU,
        holds=lambda run: run.cpu and os.environ.get("VLLM_CPU_KVCACHE_SPACE") != "",
        values="other than 0.1",
        bad=lambda share: share != 0.1,
    ),
    Rule(
        "vllm.tensor_parallel_size actor.num_nodes ref.num_nodes reward.num_nodes ds.zpg",
        "one machine is all there is",
        "use 1",
        when=ON_CPU,
        holds=_on_cpu,
    ),
)

RULES = (*GROUPS, *LORA, *WEIGHTS, *VLLM, *DEEPSPEED, *PLATFORM)
