"""A vLLM plugin: engine processes end when the actor that started them does, however it ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """vLLM calls this in each of its processes: a SIGKILL of a rollout actor would leave its engine behind."""
    if sys.platform == "linux" and multiprocessing.parent_process() is not None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
