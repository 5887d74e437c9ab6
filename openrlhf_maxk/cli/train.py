"""Train: ``python -m openrlhf_maxk.cli.train <any OpenRLHF option> --maxk.objective … --maxk.k …``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from openrlhf_maxk.cli.common import parse_options
from openrlhf_maxk.machine import ADAM_NOTE, gpu_bytes, has_flash_attn, no_compiling, problems
from openrlhf_maxk.options.maxk import MaxKOptions, add_arguments, options_of
from openrlhf_maxk.options.memory import Shape, disk_warning, memory_warnings
from openrlhf_maxk.options.run_record import OtherRun, is_done, options_record
from openrlhf_maxk.options.run_record import write as write_record
from openrlhf_maxk.options.validation import BadOptions, validate
from openrlhf_maxk.platform import CPU_PARAM_DTYPE, PARAM_DTYPE, environment, is_cpu, ray_cluster
from openrlhf_maxk.rewards.request import MATH, PROBLEMS

# Where OpenRLHF's default does not fit: it is for a critic, or for nodes of eight GPUs.
DEFAULTS: dict[str, Any] = {
    "algo.advantage.estimator": "group_norm",
    "vllm.num_engines": 1,
    "rollout.n_samples_per_prompt": 8,
}
CPU_DEFAULTS: dict[str, Any] = {
    "actor.num_gpus_per_node": 1,
    "ref.num_gpus_per_node": 1,
    "reward.num_gpus_per_node": 1,
    "ds.attn_implementation": "sdpa",
    "ds.param_dtype": CPU_PARAM_DTYPE,
    "vllm.gpu_memory_utilization": 0.1,
    "vllm.enforce_eager": True,
    "vllm.sync_backend": "gloo",
}

# Options that name files: what a run reads (which may also be a hub's or a service's name), and what it makes.
READ_PATHS = (
    "actor.model_name_or_path",
    "reward.model_name_or_path",
    "reward.remote_url",
    "train.agent_func_path",
    "data.prompt_dataset",
    "eval.dataset",
    "maxk.problems",
    "maxk.objective",
)
MADE_PATHS = ("ckpt.output_dir", "ckpt.path", "logger.tensorboard_dir")

SHOWN = (  # metrics on the line of a step
    "rollout/reward_mean",
    "rollout/max@1",
    "rollout/k",
    "rollout/no_signal",
    "rollout/distinct",
    "rollout/policy_entropy",
    "maxk/ratio_ess",
    "kl",
    "timing/generation",
    "timing/ppo_train",
    "timing/step_total",
)


ATTENTION = "ds.attn_implementation"


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, Any]:
    """The flat arguments for OpenRLHF, and the same nested; exits with a message if anything is wrong with them."""
    from openrlhf.utils.config import hierarchize

    from openrlhf_maxk.cpu.precision import offer_float32
    from openrlhf_maxk.upstream.command_line import upstream_parser

    parser = upstream_parser()
    parser.prog = "python -m openrlhf_maxk.cli.train"
    parser.set_defaults(**DEFAULTS)
    if is_cpu():
        offer_float32(parser)
        parser.set_defaults(**CPU_DEFAULTS)
    elif not has_flash_attn():
        parser.set_defaults(**{ATTENTION: "sdpa"})
    add_arguments(parser)
    flat, wrong = parse_options(parser, argv)
    try:
        maxk = validate(hierarchize(flat))
    except BadOptions as error:
        wrong += str(error).splitlines()
    if wrong:
        parser.exit(2, "".join(f"error: {line}\n" for line in wrong))
    _settle(flat, maxk)
    return flat, hierarchize(flat)


def _settle(flat: argparse.Namespace, maxk: MaxKOptions) -> None:
    """Turn what may be given in short into what the run is told."""
    values = vars(flat)
    # Actors work in the folder where Ray was started, which need not be this one.
    for name in READ_PATHS:
        parts = (values[name] or "").split(",")
        values[name] = ",".join(os.path.abspath(p) if os.path.exists(p) else p for p in parts) or None
    for name in MADE_PATHS:
        values[name] = values[name] and os.path.abspath(values[name])
    if maxk.problems or maxk.reward == MATH:
        values["reward.remote_url"] = PROBLEMS if maxk.problems else MATH


def gpus_needed(args: Any) -> dict[str, int]:
    """The GPUs of a run, by what they are for. Each of them comes with one CPU, as upstream asks for them."""
    gpus = {"learner": args.actor.num_nodes * args.actor.num_gpus_per_node}
    if not args.train.colocate_all:
        gpus["vLLM"] = args.vllm.num_engines * args.vllm.tensor_parallel_size
    if args.algo.kl.init_coef > 0 and not (args.train.colocate_all or args.train.colocate_actor_ref):
        gpus["reference"] = args.ref.num_nodes * args.ref.num_gpus_per_node
    if not (args.reward.remote_url or args.train.agent_func_path or args.train.colocate_all):
        gpus["reward model"] = args.reward.num_nodes * args.reward.num_gpus_per_node
    return gpus


def start_ray(args: Any, verbose: bool) -> None:
    """Join the cluster that ``RAY_ADDRESS`` or a running job names, else start one. On CPU, its GPUs are logical.

    Exits with a message if there are not enough GPUs or CPUs: upstream would wait for them for ever.
    """
    import ray

    arguments = ray_cluster()
    os.environ[PARAM_DTYPE] = args.ds.param_dtype
    needed = gpus_needed(args)
    slots = sum(needed.values())
    if is_cpu() and arguments:
        arguments |= {"num_gpus": slots, "num_cpus": max(slots + 2, len(os.sched_getaffinity(0)))}
    ray.init(log_to_driver=verbose, logging_level=logging.WARNING, **arguments)
    found = ray.cluster_resources()
    gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 0))
    if gpus < slots or cpus < slots + 1:
        ray.shutdown()
        uses = ", ".join(f"{count} for {use}" for use, count in needed.items())
        sys.exit(
            f"error: this run needs {slots} GPUs ({uses}) and {slots + 1} CPUs, and Ray has {gpus} and {cpus}: "
            "add nodes, or ask for fewer with --actor.num_gpus_per_node, --ref.num_gpus_per_node, --vllm.num_engines "
            "or --train.colocate_actor_ref. On CPU, `ray start --num-gpus N --num-cpus M` says how many there are."
        )
    free = int(ray.available_resources().get("GPU", 0))
    if free < slots:
        print(f"waiting for GPUs: this run needs {slots}, {free} of {gpus} are free", file=sys.stderr)


def ray_logs() -> str:
    """Where the logs of this run's actors are."""
    import ray

    node = ray._private.worker.global_worker.node
    return node.get_logs_dir_path() if node is not None else "on the cluster's nodes"


def explain(error: BaseException) -> str:
    """What went wrong in an actor, without the frames in between."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}" if cause is not error else str(error)


def run(flat: argparse.Namespace, args: Any) -> None:
    """Start Ray and run OpenRLHF's PPO job with this package's seams in place; everything is stopped at the end."""
    import ray
    from ray.util.queue import Queue

    from openrlhf_maxk.console import CONSOLE, Follower
    from openrlhf_maxk.upstream.command_line import run_upstream

    verbose = getattr(flat, "maxk.verbose")
    start_ray(args, verbose)
    # Schedulers send SIGTERM: as Ctrl-C. Ray takes the signal when it starts, and makes any SystemExit one of status 1.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    queue = Queue(actor_options={"num_cpus": 0})
    follower = Follower(queue, SHOWN)
    follower.start()
    flat = argparse.Namespace(**vars(flat), **{f"maxk.{CONSOLE}": queue})
    try:
        with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
            run_upstream(flat)
    except ray.exceptions.RayError as error:
        logs = ray_logs()
        follower.close()
        sys.exit(f"error: the run failed\n{explain(error)}\nThe logs of all actors are in {logs}")
    except KeyboardInterrupt:
        sys.exit("interrupted; everything is being stopped")
    finally:
        follower.close()
        ray.shutdown()


def check_gpus(flat: argparse.Namespace) -> None:
    """End the program if this machine's GPUs cannot train, each reason with its fix; say what is made do without.

    A cluster's nodes (``RAY_ADDRESS``) are others.
    """
    attention = getattr(flat, ATTENTION)
    if attention.startswith("flash_attention") and not has_flash_attn():
        sys.exit(
            f"error: --{ATTENTION} {attention} needs flash-attn: see docs/installation.md, or leave the option out"
        )
    if os.environ.get("RAY_ADDRESS"):
        return
    found = list(problems())
    if found:
        sys.exit("\n".join(f"error: {problem}" for problem in found))
    missing = no_compiling()
    if missing:
        print(f"note: {missing}; {ADAM_NOTE}", file=sys.stderr)
    if not has_flash_attn():
        print(
            f"note: flash-attn is not installed: attention is PyTorch's (--{ATTENTION} {attention}), which computes "
            "padding too and is slower on long rows; docs/installation.md",
            file=sys.stderr,
        )


def warn_of_sizes(args: Any) -> None:
    """Say what the model will not find room for, on this machine's GPUs and on the disk of the checkpoints."""
    from transformers import AutoConfig

    try:
        shape = Shape.of(AutoConfig.from_pretrained(args.actor.model_name_or_path))
    except (OSError, ValueError):  # not within reach from here, or known to its own code alone
        return
    if shape is None:
        return
    gpu = None if is_cpu() or os.environ.get("RAY_ADDRESS") else gpu_bytes()
    warnings = memory_warnings(shape, args, gpu, rows=options_of(args).rows == "auto") if gpu else []
    for warning in filter(None, (*warnings, disk_warning(shape, args, args.ckpt.path))):
        print(f"warning: {warning}", file=sys.stderr)


def forget_thread_count() -> None:
    """Ray gives a job's driver OMP_NUM_THREADS=1, which is nobody's wish for the actors of the job."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "null"))
    if job and "OMP_NUM_THREADS" not in (job.get("runtime_env") or {}).get("env_vars", {}):
        os.environ.pop("OMP_NUM_THREADS", None)


def main(argv: Sequence[str] | None = None) -> None:
    """Check the options, then train; a finished run with the same options is left as it is."""
    forget_thread_count()
    os.environ.update(environment())
    flat, args = parse(argv)
    output = getattr(flat, "ckpt.output_dir")
    try:
        if is_done(flat):
            print(f"{output}: trained already with these options; remove the folder to train again")
            return
    except OtherRun as error:
        sys.exit(f"error: {error}")
    if not is_cpu():
        check_gpus(flat)
    warn_of_sizes(args)
    import openrlhf_maxk
    from openrlhf_maxk.upstream.seams import SeamError

    try:
        openrlhf_maxk.install()
    except SeamError as error:
        sys.exit(f"error: {error}")
    record = options_record(flat)
    write_record(getattr(flat, "ckpt.path"), record)
    run(flat, args)
    write_record(output, record)
    print(f"{output}: the trained model")


if __name__ == "__main__":
    main()
