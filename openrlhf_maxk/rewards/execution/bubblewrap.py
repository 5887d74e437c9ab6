"""The executor in containers of bubblewrap's making, for machines where only ``bwrap`` may create namespaces.

Distributions that deny user namespaces to ordinary programs often allow them to bubblewrap. Here it starts the fork
server of each lane, in a container without network, other processes, or files but the interpreter and its libraries,
all read-only. Everything else is the executor's: Landlock, seccomp and limits for each program, verdicts outside.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.sandbox import lane as lane_module
from openrlhf_maxk.rewards.sandbox.lane import Lane
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS

_BWRAP = "bwrap"
_ISOLATION = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache")


class BubblewrapLane(Lane):
    """A lane whose fork server is started by ``bwrap``."""

    def start(self) -> dict[str, str]:
        """As for any lane; the namespaces are bubblewrap's."""
        missing = super().start()
        del missing["namespaces"]
        return missing

    def _container(self) -> list[str]:
        python = (
            sys.executable,
            os.path.realpath(sys.executable),
            f"{sys.prefix}/pyvenv.cfg",
            f"{sys.base_prefix}/lib",
        )
        seen = {*_LIBRARIES, *python, *self._options["paths"], str(Path(lane_module.__file__).parent)}
        mounts = [word for path in sorted(seen) if os.path.exists(path) for word in ("--ro-bind", path, path)]
        return [shutil.which(_BWRAP) or _BWRAP, *_ISOLATION, "--proc", "/proc", "--dev", "/dev", *mounts, "--"]


class BubblewrapExecutor(Executor):
    """An :class:`~openrlhf_maxk.rewards.execution.executor.Executor` that has its namespaces from bubblewrap.

    Programs may write nowhere. Raises SandboxUnavailableError if ``bwrap`` is not installed or may not make containers
    here.
    """

    lane = BubblewrapLane

    def __init__(self, cores: int | None = None, **options: Any) -> None:
        if shutil.which(_BWRAP) is None:
            raise SandboxUnavailableError(
                "bubblewrap is not installed here: install it (apt-get install bubblewrap), or use the runner sandbox"
            )
        super().__init__(cores, layers=[layer for layer in LAYERS if layer != "namespaces"], **options)
