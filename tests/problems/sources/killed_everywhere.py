"""Prepare a folder although the process is killed at every point where it makes something durable.

``python -m tests.problems.sources.killed_everywhere OPTIONS`` forks a child for each kill: the first dies at its first
sync or rename, the second at its second, and so on until one gets through. Prints how many died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation
from openrlhf_maxk.problems.store import ProblemWriter

from .plain_runner import run_many


def dying(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """The function, but its process is killed instead when ``left`` has run out."""

    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return call


def prepare(data_set: str, options: dict[str, Any]) -> None:
    source_type = SOURCES[data_set]
    chosen = source_type.options_type(**options)
    Preparation(source_type(chosen), chosen, lambda stack: run_many).run()


def main() -> None:
    arguments = json.loads(sys.argv[1])
    deaths = 0
    while True:
        child = os.fork()
        if child == 0:
            left = [deaths + 1]
            os.fsync, os.replace, os.rename = (dying(f, left) for f in (os.fsync, os.replace, os.rename))
            ProblemWriter.add = dying(ProblemWriter.add, left)  # type: ignore[method-assign]
            prepare(**arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(deaths)
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        deaths += 1


main()
