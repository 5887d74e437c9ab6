"""Submit a training to a running Ray cluster, follow its log, and exit as it does.

``python -m openrlhf_maxk.cli.submit [--job.* options] <any option of openrlhf_maxk.cli.train>`` does what
``ray job submit`` does, and besides: options reach the job as they were given, whatever characters are in them; a lost
connection is made again; the exit status is the job's; Ctrl-C says how to go on or to stop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

STOPPED = 143  # exit status of a job that was stopped: that of a process ended by SIGTERM
INTERRUPTED = 130  # exit status after Ctrl-C
RETRY_SECONDS = 3.0
AGENT_SECONDS = 60.0  # a head's agent starts some time after its dashboard answers
MAX_RETRIES = 100


class ClusterLost(RuntimeError):
    """The cluster does not answer any more."""


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of the submission, and those of the training, which are checked where it runs."""
    parser = argparse.ArgumentParser(
        prog="python -m openrlhf_maxk.cli.submit",
        description=(__doc__ or "").partition("\n")[0],
        epilog="All other options are those of python -m openrlhf_maxk.cli.train.",
        allow_abbrev=False,
    )
    option = parser.add_argument_group("job").add_argument
    address = os.environ.get("RAY_ADDRESS") or "http://127.0.0.1:8265"
    option("--job.address", default=address, help="the cluster's dashboard (default: RAY_ADDRESS, else %(default)s)")
    option(
        "--job.id", default=time.strftime("maxk-%Y%m%d-%H%M%S"), help="a name for the job (default: made of the time)"
    )
    option("--job.folder", default=os.getcwd(), help="the cluster's folder that it runs in (default: this one)")
    option("--job.python", default=sys.executable, help="the cluster's Python that it runs with (default: this one)")
    option("--job.runtime_env", default="{}", help='Ray\'s runtime_env as JSON: {"env_vars": {"HF_HOME": "/shared"}}')
    option("--job.stop_on_exit", action="store_true", help="Ctrl-C stops the job (default: only its following)")
    args, train_options = parser.parse_known_args(argv)
    if not train_options:
        parser.error("no options for the training: give those of python -m openrlhf_maxk.cli.train")
    return args, train_options


def entrypoint(folder: str, python: str, train_options: Sequence[str]) -> str:
    """The job as a line for ``/bin/sh``."""
    command = [python, "-m", "openrlhf_maxk.cli.train", *train_options]
    return f"cd {shlex.quote(folder)} && exec {shlex.join(command)}"


def submit(client: Any, command: str, job: str, runtime_env: dict[str, Any]) -> None:
    """Submit a job; a cluster that has just started takes none for some seconds, which is waited for.

    Raises:
        RuntimeError: the cluster refuses the job, or still takes none after ``AGENT_SECONDS``.
    """
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            client.submit_job(entrypoint=command, submission_id=job, runtime_env=runtime_env)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


async def follow(client: Any, job: str, write: Callable[[str], Any]) -> Any:
    """Write a job's log as it comes, until the job has ended; returns what Ray knows about it then.

    The log is read from its start after every lost connection, and written once.

    Raises:
        ClusterLost: the cluster did not answer ``MAX_RETRIES`` times.
    """
    written, failures = 0, 0
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(job):
                failures = 0
                write(text[max(0, written - seen) :])
                seen += len(text)
                written = max(written, seen)
            info = client.get_job_info(job)
            if info.status.is_terminal():
                return info
        except (RuntimeError, OSError) as error:  # what Ray and its HTTP libraries raise
            failures += 1
            if failures == MAX_RETRIES:
                raise ClusterLost(f"the cluster does not answer any more: {error}") from None
        await asyncio.sleep(RETRY_SECONDS)


def exit_status(info: Any) -> int:
    """The exit status that a job has ended with."""
    if info.status == "SUCCEEDED":
        return 0
    return STOPPED if info.status == "STOPPED" else info.driver_exit_code or 1


def stop(client: Any, job: str) -> None:
    """Stop a job and wait until it has ended."""
    client.stop_job(job)
    while not client.get_job_status(job).is_terminal():
        time.sleep(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Submit, follow, exit."""
    args, train_options = parse(argv)
    address, job = getattr(args, "job.address"), getattr(args, "job.id")
    try:
        runtime_env = json.loads(getattr(args, "job.runtime_env"))
    except json.JSONDecodeError as error:
        sys.exit(f"error: --job.runtime_env is not JSON ({error})")
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        command = entrypoint(getattr(args, "job.folder"), getattr(args, "job.python"), train_options)
        submit(client, command, job, runtime_env)
    except (ConnectionError, RuntimeError) as error:
        sys.exit(f"error: the job was not submitted to {address}: {error}")
    ray = f"{os.path.join(os.path.dirname(sys.executable), 'ray')} job"
    print(f"job {job} on {address}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        info = asyncio.run(follow(client, job, lambda text: print(text, end="", flush=True)))
    except ClusterLost as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        if getattr(args, "job.stop_on_exit"):
            print(f"\nstopping job {job}", file=sys.stderr)
            stop(client, job)
        else:
            print(
                f"\njob {job} goes on\n  follow it: {ray} logs --address {address} --follow {job}\n"
                f"  stop it:   {ray} stop --address {address} {job}",
                file=sys.stderr,
            )
        sys.exit(INTERRUPTED)
    status = exit_status(info)
    print(f"job {job} {info.status.lower()}", file=sys.stderr if status else sys.stdout)
    sys.exit(status)


if __name__ == "__main__":
    main()
