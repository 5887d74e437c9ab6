"""One call that puts group-preserving max@k training into any OpenRLHF program."""

from __future__ import annotations

import os
import sys
from typing import Any

RAY_HOOK = "RAY_RUNTIME_ENV_HOOK"
SETUP_HOOK = "worker_process_setup_hook"
INSTALL = "openrlhf_maxk.installation.install_in_worker"


def install(**options: Any) -> None:
    """Extend OpenRLHF in this process and in every Ray worker that it starts.

    Call it before OpenRLHF is used and before ``ray.init``. Seams are checked against the installed OpenRLHF first (see
    :mod:`openrlhf_maxk.upstream.seams`). On the CPU platform its replacements are part of it.

    Args:
        **options: fields of :class:`openrlhf_maxk.options.maxk.MaxKOptions`, such as ``objective="offpolicy_bon",
            k=4``, for programs whose arguments have no ``--maxk.*`` options.

    Raises:
        openrlhf_maxk.upstream.seams.SeamError: the installed OpenRLHF is not the one this package extends.
        ValueError: an option is unknown or out of range.
        RuntimeError: Ray has been started already, or would not tell its workers (under ``uv run``).
    """
    from openrlhf_maxk.machine import put_tools_on_path
    from openrlhf_maxk.options.maxk import ENVIRONMENT, MaxKOptions
    from openrlhf_maxk.platform import environment, is_cpu
    from openrlhf_maxk.upstream import seams

    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        raise RuntimeError("call openrlhf_maxk.install() before ray.init(): Ray's workers must be told of it")
    active = seams.active(is_cpu())
    seams.check(active)
    if options:
        os.environ[ENVIRONMENT] = MaxKOptions.make(**options).to_json()
    put_tools_on_path()
    os.environ.update(environment())  # first: Ray reads some of it when it is imported
    _check_hooks_run()
    os.environ[RAY_HOOK] = "openrlhf_maxk.installation.add_worker_hook"
    seams.apply(active)


def _check_hooks_run() -> None:
    """Under ``uv run``, Ray ignores RAY_RUNTIME_ENV_HOOK: its workers would be plain OpenRLHF, silently."""
    from ray._private import ray_constants
    from ray._private.runtime_env.uv_runtime_env_hook import _get_uv_run_cmdline

    if ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV and _get_uv_run_cmdline():
        raise RuntimeError(
            "under `uv run`, Ray's workers would not get openrlhf_maxk: set RAY_ENABLE_UV_RUN_RUNTIME_ENV=0, "
            "or start the program with the environment's own python"
        )


def install_in_worker() -> None:
    """What every Ray worker process runs before anything else."""
    from openrlhf_maxk.machine import put_tools_on_path
    from openrlhf_maxk.platform import is_cpu
    from openrlhf_maxk.upstream import seams

    put_tools_on_path()
    seams.apply(seams.active(is_cpu()))


def add_worker_hook(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """Ray calls this in ``ray.init``: what the workers of this job need, next to what the user asked for.

    Raises:
        ValueError: the user asked for a setup hook of their own; Ray has room for one.
    """
    from openrlhf_maxk.options.maxk import ENVIRONMENT
    from openrlhf_maxk.platform import environment

    runtime_env = dict(runtime_env or {})
    variables = environment()
    if ENVIRONMENT in os.environ:
        variables[ENVIRONMENT] = os.environ[ENVIRONMENT]
    runtime_env["env_vars"] = {**variables, **(runtime_env.get("env_vars") or {})}
    own = runtime_env.setdefault(SETUP_HOOK, INSTALL)
    if own != INSTALL:
        raise ValueError(
            f"runtime_env has a {SETUP_HOOK} of its own, {own!r}, and Ray takes one only: leave it out, and do its "
            "work where your actors start."
        )
    return runtime_env
