"""Entries of reasoning-gym's tasks.

They are made in a process of its own with a fixed hash seed: some tasks go through sets, and would differ in every run.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrlhf_maxk.problems.sources.source import SourceError

PACKAGE = "reasoning-gym"
_TRIES = 20  # entries that repeat an earlier question, for each one that is wanted


def version() -> str:
    """The installed version.

    Raises:
        SourceError: there is none.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(f"the package {PACKAGE} is not installed: pip install {PACKAGE}==0.1.25") from None


def entries(
    tasks: Sequence[str], count: int, seed: int, config: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """``count`` entries of each task with different questions: ``task``, ``config``, ``entry``, and its ``index``.

    Raises:
        SourceError: a task that reasoning-gym does not know, settings that it refuses, or too few different questions.
    """
    request = json.dumps({"tasks": list(tasks), "count": count, "seed": seed, "config": config})
    command = [sys.executable, "-c", f"from {__name__} import write; write()"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.close()
            for line in process.stdout:
                found = json.loads(line)
                if "error" in found:
                    raise SourceError(found["error"])
                yield found
        finally:
            process.kill()
    if process.returncode not in (0, -9):
        raise SourceError(f"reasoning-gym ended with exit code {process.returncode}; what it said stands above")


def write() -> None:
    """Write entries as JSON, one a line, for the request on standard input."""
    _write(**json.loads(sys.stdin.read()))


def _write(tasks: Sequence[str], count: int, seed: int, config: Mapping[str, Mapping[str, Any]]) -> None:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    known = sorted(set(DATASETS) - {"composite"})
    for task in tasks:
        if task not in known:
            return _say({"error": f"reasoning-gym has no task {task!r}; it has {', '.join(known)}"})
        settings = dict(config.get(task, {}))
        try:
            dataset = reasoning_gym.create_dataset(task, **settings, seed=seed, size=_TRIES * count)
        except Exception as error:
            return _say({"error": f"--config: reasoning-gym's task {task!r} refuses {settings}: {error}"})
        questions: set[str] = set()
        for index in range(_TRIES * count):
            entry = dataset[index]
            if entry["question"] not in questions:
                questions.add(entry["question"])
                _say({"task": task, "config": settings, "entry": entry, "index": index})
            if len(questions) == count:
                break
        else:
            return _say({"error": f"reasoning-gym's task {task!r} has only {len(questions)} different questions here"})
    return None


def _say(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)
