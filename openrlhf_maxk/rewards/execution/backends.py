"""The one place that opens what runs programs, by name.

===================  =============================================================================
``sandbox``          this machine's sandbox (:mod:`.executor`)
``bubblewrap``       the same, in containers of bubblewrap's making (:mod:`.bubblewrap`)
``http(s)://…``      one or more services that speak SandboxFusion's ``run_code`` (:mod:`.remote`)
===================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_maxk.rewards.execution.runner import Runner

SANDBOX, BUBBLEWRAP = "sandbox", "bubblewrap"
REMOTE_REQUESTS = 4  # at once for each core: a service has cores of its own


def is_remote(name: str) -> bool:
    """Whether ``name`` is one or more URLs."""
    return all(url.startswith(("http://", "https://")) for url in name.split(","))


def check_name(name: str) -> str:
    """``name``, if it names a runner. Raises ValueError."""
    if name in (SANDBOX, BUBBLEWRAP) or is_remote(name):
        return name
    raise ValueError(
        f"{name!r} runs no programs: choose {SANDBOX}, {BUBBLEWRAP}, or a service's URL (http://…/run_code)"
    )


def open_runner(
    name: str, cores: int, *, modules: Sequence[str] = (), warm_up: str = "", unsafe: bool = False
) -> Runner:
    """The runner of that name, for ``cores`` programs at once; a service is sent a few times as many requests.

    ``modules`` that programs may import, what is to ``warm_up`` for them (:class:`.executor.Executor`), and ``unsafe``
    (run where programs cannot be locked down), are for this machine; a service decides these for itself.
    Raises:
        SandboxUnavailableError: it cannot be had here, or a service does not answer as it should; the message says why.
        ValueError: ``name`` is none of those above.
    """
    check_name(name)
    if is_remote(name):
        from openrlhf_maxk.rewards.execution.remote import RemoteRunner

        return RemoteRunner(name.split(","), REMOTE_REQUESTS * cores)
    if name == BUBBLEWRAP:
        from openrlhf_maxk.rewards.execution.bubblewrap import BubblewrapExecutor

        return BubblewrapExecutor(cores, modules=modules, warm_up=warm_up, unsafe=unsafe)
    from openrlhf_maxk.rewards.execution.executor import Executor

    return Executor(cores, modules=modules, warm_up=warm_up, unsafe=unsafe)
