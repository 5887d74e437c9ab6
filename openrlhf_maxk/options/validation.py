"""Everything that can be known to be wrong with a run before it starts, said with the fix."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrlhf_maxk.options.maxk import MaxKOptions, options_of
from openrlhf_maxk.platform import is_cpu
from openrlhf_maxk.rewards.execution.backends import SANDBOX, is_remote
from openrlhf_maxk.rewards.request import MATH

MIN_FREE_BYTES = 2**30


class BadOptions(ValueError):
    """One line for each thing that is wrong."""


def validate(args: Any) -> MaxKOptions:
    """Check the nested arguments of a run (as OpenRLHF's ``hierarchize`` makes them).

    Raises:
        BadOptions: with all that is wrong, each with its fix.
    """
    try:
        maxk = options_of(args)
    except ValueError as error:
        raise BadOptions(str(error)) from None
    wrong = [*_groups(args, maxk), *_unsupported(args, maxk), *_inputs(args, maxk), *_disk(args)]
    if wrong:
        raise BadOptions("\n".join(wrong))
    return maxk


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
    if maxk.objective == "offpolicy_bon" and maxk.baseline == "leave_one_out" and maxk.k.largest(n) == n:
        yield f"--maxk.baseline leave_one_out needs k below the group size {n}: another sample must take a place"
    ranks = args.actor.num_nodes * args.actor.num_gpus_per_node
    prompts, rows = args.rollout.batch_size, args.rollout.micro_batch_size
    batch, micro = args.train.batch_size, args.train.micro_batch_size
    counts = {
        "--actor.num_nodes × --actor.num_gpus_per_node": ranks,
        "--rollout.batch_size": prompts,
        "--rollout.micro_batch_size": rows,
        "--train.batch_size": batch,
        "--train.micro_batch_size": micro,
    }
    if min(counts.values()) < 1:
        yield from (f"{option} {count} must be at least 1" for option, count in counts.items() if count < 1)
        return
    if batch % (ranks * n):
        yield (
            f"--train.batch_size {batch} does not hold whole groups of {n} on each of {ranks} learner ranks: "
            f"make it a multiple of {ranks * n}"
        )
    if batch % (ranks * micro):
        yield (
            f"--train.batch_size {batch} is not a multiple of {ranks} learner ranks × --train.micro_batch_size {micro}"
        )
    if prompts * n % batch:
        yield (
            f"--rollout.batch_size {prompts} × {n} samples is not a multiple of --train.batch_size "
            f"{batch}: the rest would be a smaller optimizer step"
        )
    if prompts < ranks:
        yield f"--rollout.batch_size {prompts} gives some of the {ranks} learner ranks no group"
    elif prompts * n // rows < ranks:
        yield (
            f"--rollout.micro_batch_size {rows} leaves some of the {ranks} learner ranks without one: "
            f"make it at most {prompts * n // ranks}"
        )
    for name, model, used in (
        ("ref", args.ref, args.algo.kl.init_coef > 0),
        ("reward", args.reward, args.reward.model_name_or_path),
    ):
        others = model.num_nodes * model.num_gpus_per_node
        if used and (others < 1 or ranks % others):
            yield (
                f"--{name}.num_nodes × --{name}.num_gpus_per_node {others} does not divide the {ranks} learner ranks: "
                f"micro-batches, which come in equal numbers for those, would not for these; make it {ranks}"
            )
    generate = args.rollout.vllm_generate_batch_size
    if generate and generate != prompts:
        yield f"--rollout.vllm_generate_batch_size {generate}: leave it out; it must equal --rollout.batch_size"


def _unsupported(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    if args.algo.advantage.estimator == "gae":
        yield "--algo.advantage.estimator gae trains a critic, which max@k objectives do not use: leave the option out"
    if args.critic.model_name_or_path:
        yield "--critic.model_name_or_path: max@k objectives use no critic"
    if args.train.async_enable or args.train.partial_rollout_enable:
        yield (
            "--train.async_enable and --train.partial_rollout_enable queue single samples of policies of several ages; "
            "groups and ρ need one policy a group: leave them out"
        )
    if args.train.dynamic_batch_enable:
        yield "--train.dynamic_batch_enable regroups single samples by length, across groups: leave it out"
    if args.ds.packing_samples or args.ds.ring_attn_size > 1:
        yield "--ds.packing_samples and --ds.ring_attn_size are not tested with whole groups yet: leave them out"
    if args.ds.tensor_parallel_size > 1:
        yield "--ds.tensor_parallel_size above 1 is not tested with whole groups yet: use --ds.zero_stage 3"
    if args.ds.lora.rank > 0:
        yield "--ds.lora.rank: OpenRLHF sends vLLM LoRA's own parameter names, which it does not know; leave it out"
    if args.data.max_images_per_prompt > 0:
        yield "--data.max_images_per_prompt: groups of images are not supported"
    if args.algo.advantage.gamma != 1:
        yield f"--algo.advantage.gamma {args.algo.advantage.gamma}: max@k gives every token the same advantage; use 1"
    if not args.vllm.num_engines:
        yield "--vllm.num_engines must be at least 1: rollouts are made by vLLM"
    if maxk.behaviour == "rollout" and args.algo.advantage.is_correction_level != "off":
        yield (
            "--maxk.behaviour rollout and --algo.advantage.is_correction_level correct the same mismatch: choose one"
        )
    if args.actor.policy_loss_type != "ppo" and maxk.loss == "ppo":
        yield f"--actor.policy_loss_type {args.actor.policy_loss_type}: only ppo is tested with whole groups"
    if is_cpu():
        if args.ds.adam_offload or args.vllm.enable_sleep or args.ds.enable_sleep or args.ds.load_in_4bit:
            yield "--ds.adam_offload, --ds.load_in_4bit and the sleep modes move memory off GPUs: leave them out on CPU"
        if args.vllm.tensor_parallel_size > 1:
            yield "--vllm.tensor_parallel_size above 1 is not supported on CPU"
        if args.actor.num_nodes > 1:
            yield "--actor.num_nodes above 1 is not supported on CPU"


def _inputs(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    if not args.actor.model_name_or_path:
        yield "--actor.model_name_or_path is missing: a Hugging Face model folder or name"
    else:
        yield from _model(args.actor.model_name_or_path)
    if not args.data.prompt_dataset:
        yield "--data.prompt_dataset is missing: a JSONL or Parquet file, or a dataset's name"
    else:
        for path in args.data.prompt_dataset.split(","):
            yield from _data(path.strip(), args)
    if args.eval.dataset:
        for path in args.eval.dataset.split(","):
            yield from _data(path.strip(), args)
    if maxk.problems and not Path(maxk.problems).is_dir():
        yield f"--maxk.problems {maxk.problems} is not a folder"
    yield from _rewards(args, maxk)


def _rewards(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    sources = {
        "--maxk.problems": maxk.problems,
        "--maxk.reward math": maxk.reward == MATH,
        "--reward.remote_url": args.reward.remote_url,
        "--reward.model_name_or_path": args.reward.model_name_or_path,
        "--train.agent_func_path": args.train.agent_func_path,
    }
    given = [option for option, value in sources.items() if value]
    if not given:
        yield (
            "nothing gives rewards: set --maxk.problems (run programs against tests), --reward.remote_url "
            "(a reward_func file or URLs), --maxk.reward math or --reward.model_name_or_path"
        )
    if len(given) > 1:
        yield f"{' and '.join(given)} all give rewards: choose one"
    if not maxk.problems:
        for option, set_ in (
            (f"--maxk.reward {maxk.reward}", maxk.reward == "binary"),
            (f"--maxk.runner {maxk.runner}", maxk.runner != SANDBOX and maxk.reward != MATH),
            ("--maxk.format_reward", maxk.format_reward and maxk.reward != MATH),
            ("--maxk.length_penalty", maxk.length_penalty and maxk.reward != MATH),
        ):
            if set_:
                yield f"{option} changes nothing without --maxk.problems: leave it out"
    if maxk.reward == MATH:
        yield from _golds(args, maxk)
    agent = args.train.agent_func_path
    if agent and not Path(agent).is_file():
        yield f"--train.agent_func_path {agent} does not exist"
    if args.reward.remote_url and args.reward.remote_url.endswith(".py") and not Path(args.reward.remote_url).is_file():
        yield f"--reward.remote_url {args.reward.remote_url} does not exist"


def _golds(args: Any, maxk: MaxKOptions) -> Iterator[str]:
    """Labels of local JSON lines must be answers that can be read; those of other data are checked when first met."""
    if is_remote(maxk.runner):
        yield f"--maxk.runner {maxk.runner} runs programs of problems; --maxk.reward math needs sandbox or bubblewrap"
        return
    if not args.data.label_key:
        yield "--data.label_key is missing: with --maxk.reward math, it names the field of the gold answer"
        return
    from openrlhf_maxk.rewards.scoring.math_answers import unreadable_in

    files = [
        path.strip() for option in (args.data.prompt_dataset, args.eval.dataset) for path in (option or "").split(",")
    ]
    try:
        yield from unreadable_in([path for path in files if Path(path).is_file()], args.data.label_key, maxk.runner)
    except (ModuleNotFoundError, RuntimeError) as error:
        yield f"--maxk.reward math: {error}"


def _is_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or os.path.exists(name)


def _model(name: str) -> Iterator[str]:
    if not _is_local(name):
        if name.count("/") > 1:  # a hub name has at most one slash
            yield f"--actor.model_name_or_path {name} does not exist"
        return
    folder = Path(name)
    if not (folder / "config.json").is_file():
        yield f"--actor.model_name_or_path {name} is not a model folder: it has no config.json"


def _data(path: str, args: Any) -> Iterator[str]:
    """The first record of a JSON lines file must have the fields that the options name; every line must be a record."""
    file = Path(path)
    if not path.endswith((".jsonl", ".json")):
        named_as_file = _is_local(path) or path.count("/") > 1 or path.endswith((".parquet", ".csv", ".arrow"))
        if named_as_file and not file.exists():
            yield f"data {path} does not exist"
        return
    if not file.is_file():
        yield f"data {path} does not exist"
        return
    records = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            records += 1
            problem = _record_error(line, args)
            if problem:
                yield f"data {path}, line {number}: {problem}"
                return
    if not records:
        yield f"data {path} is empty"


def _record_error(line: str, args: Any) -> str | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}); write one JSON object a line"
    if not isinstance(record, dict):
        return "not a JSON object"
    for option, key in (("--data.input_key", args.data.input_key), ("--data.label_key", args.data.label_key)):
        if key is not None and key not in record:
            return f"no field {key!r} ({option}); it has {', '.join(map(repr, record))}"
    return None


def _disk(args: Any) -> Iterator[str]:
    for option, path in (("--ckpt.output_dir", args.ckpt.output_dir), ("--ckpt.path", args.ckpt.path)):
        folder = Path(path).absolute()
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield f"{option} {path} cannot be written: {existing} is not a writable folder"
        elif (free := shutil.disk_usage(existing).free) < MIN_FREE_BYTES:
            yield f"{option} {path}: only {free / 2**20:.0f} MiB are free there; at least 1024 are needed"
