"""Numbers that must fit each other: groups, batches, ranks, GPUs, lengths. One line for each that does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from openrlhf_maxk.objectives import Strategy
from openrlhf_maxk.options.maxk import MaxKOptions

AT_LEAST_ONE = (
    "rollout.batch_size",
    "rollout.micro_batch_size",
    "train.batch_size",
    "train.micro_batch_size",
    "train.max_tokens_per_gpu",
    "rollout.max_tokens_per_gpu",
    "train.max_epochs",
    "train.num_episodes",
    "data.max_samples",
    "eval.n_samples_per_prompt",
    "ckpt.max_num",
    "logger.logging_steps",
)


def counts(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    """Everything that is wrong with the numbers of a run."""
    small = list(_too_small(args))
    yield from small
    yield from _groups(args, maxk)
    yield from _lengths(args)
    if not small and args.rollout.n_samples_per_prompt >= 2:
        yield from _batches(args)
        yield from _models(args)


def _too_small(args: Any) -> Iterator[str]:
    for name in AT_LEAST_ONE:
        room, _, option = name.partition(".")
        count = getattr(getattr(args, room), option)
        if count is not None and count < 1:
            yield f"--{name} {count} must be at least 1"
    if _ranks(args.actor) < 1:
        yield f"--actor.num_nodes × --actor.num_gpus_per_node {_ranks(args.actor)} must be at least 1"


def _ranks(model: Any) -> int:
    return model.num_nodes * model.num_gpus_per_node


def _groups(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    n = args.rollout.n_samples_per_prompt
    if n < 2:
        yield f"--rollout.n_samples_per_prompt {n}: a group needs at least 2 samples"
        return
    if maxk.k.largest(n) > n:
        yield (
            f"--maxk.k {maxk.k} is larger than the group: lower it, or raise --rollout.n_samples_per_prompt {n} "
            f"to at least {maxk.k.largest(n)}"
        )
    smallest = Strategy.parse(maxk.strategy).smallest_k
    if maxk.k.smallest(n) < smallest:
        yield (
            f"--maxk.strategy {maxk.strategy} looks at {smallest} samples, and --maxk.k {maxk.k} has only "
            f"{maxk.k.smallest(n)}: raise it to at least {smallest}"
        )
    if maxk.objective == "offpolicy_bon" and maxk.baseline == "leave_one_out" and maxk.k.largest(n) == n:
        yield f"--maxk.baseline leave_one_out needs k below the group size {n}: another sample must take a place"


def _lengths(args: Any) -> Iterator[str]:
    longest, new, penalized = args.data.max_len, args.rollout.max_new_tokens, args.reward.overlong_buffer_len
    if new is not None and new < 1:
        yield f"--rollout.max_new_tokens {new} must be at least 1"
    elif longest <= (new or 1):
        yield (
            f"--data.max_len {longest} is prompt and completion, and --rollout.max_new_tokens {new or 1} leaves no "
            "room for the prompt: raise the one or lower the other"
        )
    if penalized is not None and penalized > (new or longest):
        yield (
            f"--reward.overlong_buffer_len {penalized:g} is longer than a completion can be ({new or longest} tokens): "
            "lower it"
        )


def _batches(args: Any) -> Iterator[str]:
    n, ranks = args.rollout.n_samples_per_prompt, _ranks(args.actor)
    prompts, rows = args.rollout.batch_size, args.rollout.micro_batch_size
    batch, micro = args.train.batch_size, args.train.micro_batch_size
    by_tokens = args.train.dynamic_batch_enable
    reasons = []
    if batch % (ranks * n):
        reasons.append(f"does not hold whole groups of {n} on each of {ranks} learner ranks")
    if batch % (ranks * micro) and not by_tokens:
        reasons.append(f"is not a multiple of {ranks} learner ranks × --train.micro_batch_size {micro}")
    if prompts * n % batch:
        reasons.append(f"does not divide --rollout.batch_size {prompts} × {n} samples into equal optimizer steps")
    if reasons:
        unit = ranks * (n if by_tokens else math.lcm(n, micro))
        yield f"--train.batch_size {batch} {', and '.join(reasons)}: {_fitting(batch, unit, prompts, n)}"
    if prompts < ranks:
        yield f"--rollout.batch_size {prompts} gives some of the {ranks} learner ranks no group"
    elif prompts * n // rows < ranks and not by_tokens:
        yield (
            f"--rollout.micro_batch_size {rows} leaves some of the {ranks} learner ranks without one: "
            f"make it at most {prompts * n // ranks}"
        )
    generate = args.rollout.vllm_generate_batch_size
    if generate and generate != prompts:
        yield f"--rollout.vllm_generate_batch_size {generate}: leave it out; it must equal --rollout.batch_size"


def _fitting(batch: int, unit: int, prompts: int, n: int) -> str:
    """The nearest size of an optimizer step that is a multiple of ``unit`` and divides the samples of a rollout."""
    sizes = [size for size in range(unit, prompts * n + 1, unit) if not prompts * n % size]
    if sizes:
        return f"make it {min(sizes, key=lambda size: abs(size - batch))}"
    return f"make it {unit}, and --rollout.batch_size a multiple of {unit // n}"


def _models(args: Any) -> Iterator[str]:
    ranks, has_reference = _ranks(args.actor), args.algo.kl.init_coef > 0
    for name, model, used in (
        ("ref", args.ref, has_reference),
        ("reward", args.reward, args.reward.model_name_or_path),
    ):
        others = _ranks(model)
        if used and (others < 1 or ranks % others):
            yield (
                f"--{name}.num_nodes × --{name}.num_gpus_per_node {others} does not divide the {ranks} learner ranks: "
                f"micro-batches, which come in equal numbers for those, would not for these; make it {ranks}"
            )
    learner, reference = (f"{model.num_nodes} × {model.num_gpus_per_node}" for model in (args.actor, args.ref))
    together = "colocate_all" if args.train.colocate_all else "colocate_actor_ref"
    if getattr(args.train, together) and has_reference and learner != reference:
        yield (
            f"--train.{together} puts learner and reference on the same GPUs, but --ref.num_nodes × "
            f"--ref.num_gpus_per_node are {reference} and the learner's {learner}: make them the same"
        )
    engines = args.vllm.num_engines or 0
    if args.train.colocate_all and engines * args.vllm.tensor_parallel_size != ranks:
        yield (
            f"--train.colocate_all puts learner and vLLM on the same GPUs, but --vllm.num_engines {engines} × "
            f"--vllm.tensor_parallel_size {args.vllm.tensor_parallel_size} is not {ranks}, the number of learner "
            "ranks: make it so"
        )
