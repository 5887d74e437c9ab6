"""Train: ``python -m openrlhf_maxk.cli.train <any OpenRLHF option> --maxk.objective … --maxk.k …``."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from openrlhf_maxk.options import MaxKOptions, add_arguments
from openrlhf_maxk.platform import environment, is_cpu
from openrlhf_maxk.run_record import OtherRun, is_done, options_record
from openrlhf_maxk.run_record import write as write_record
from openrlhf_maxk.validation import BadOptions, validate

# Where OpenRLHF's default does not fit: it is for a critic, or for nodes of eight GPUs.
DEFAULTS: dict[str, Any] = {
    "algo.advantage.estimator": "group_norm",
    "vllm.num_engines": 1,
    "rollout.n_samples_per_prompt": 8,
}
CPU_DEFAULTS: dict[str, Any] = {
    "actor.num_gpus_per_node": 1,
    "ref.num_gpus_per_node": 1,
    "ds.attn_implementation": "sdpa",
    "vllm.gpu_memory_utilization": 0.1,
    "vllm.enforce_eager": True,
    "vllm.sync_backend": "gloo",
}

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


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, Any]:
    """The flat arguments for OpenRLHF, and the same nested; exits with a message if anything is wrong with them."""
    from openrlhf.utils.config import hierarchize

    from openrlhf_maxk.openrlhf_cli import upstream_parser

    parser = upstream_parser()
    parser.prog = "python -m openrlhf_maxk.cli.train"
    parser.set_defaults(**DEFAULTS, **(CPU_DEFAULTS if is_cpu() else {}))
    add_arguments(parser)
    flat = parser.parse_args(argv)
    args = hierarchize(flat)
    try:
        maxk = validate(args)
    except BadOptions as error:
        parser.exit(2, "".join(f"error: {line}\n" for line in str(error).splitlines()))
    _settle(flat, maxk)
    return flat, hierarchize(flat)


def _settle(flat: argparse.Namespace, maxk: MaxKOptions) -> None:
    """Turn what may be given in short into what the run is told."""
    values = vars(flat)
    if maxk.problems:
        values["maxk.problems"] = os.path.abspath(maxk.problems)
        values["reward.remote_url"] = "problems"
    if not maxk.reward_cores:
        values["maxk.reward_cores"] = max(1, len(os.sched_getaffinity(0)) // maxk.reward_workers)


def start_ray(args: Any, verbose: bool) -> None:
    """Start Ray, or join the cluster that ``RAY_ADDRESS`` or a running job names. On CPU, GPUs are logical."""
    import ray

    resources: dict[str, Any] = {}
    joins_cluster = bool(os.environ.get("RAY_ADDRESS"))
    if is_cpu() and not joins_cluster:
        slots = args.vllm.num_engines + args.actor.num_gpus_per_node + args.ref.num_gpus_per_node
        resources = {"num_gpus": slots, "num_cpus": max(slots + 2, len(os.sched_getaffinity(0)))}
    ray.init(
        log_to_driver=verbose,
        logging_level=logging.WARNING,
        include_dashboard=None if joins_cluster else False,
        **resources,
    )


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
    from openrlhf_maxk.openrlhf_cli import run_upstream

    verbose = getattr(flat, "maxk.verbose")
    start_ray(args, verbose)
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


def main(argv: Sequence[str] | None = None) -> None:
    """Check the options, then train; a finished run with the same options is left as it is."""
    os.environ.update(environment())
    flat, args = parse(argv)
    output = getattr(flat, "ckpt.output_dir")
    try:
        if is_done(flat):
            print(f"{output}: trained already with these options; remove the folder to train again")
            return
    except OtherRun as error:
        sys.exit(f"error: {error}")
    import openrlhf_maxk
    from openrlhf_maxk.seams import SeamError

    try:
        openrlhf_maxk.install()
    except SeamError as error:
        sys.exit(f"error: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    record = options_record(flat)
    write_record(getattr(flat, "ckpt.path"), record)
    run(flat, args)
    write_record(output, record)
    print(f"{output}: the trained model")


if __name__ == "__main__":
    main()
