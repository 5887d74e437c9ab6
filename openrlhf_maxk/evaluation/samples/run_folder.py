"""The folder of one evaluation: one model, one problem set, one way to sample. Its name carries a hash of all of that.

::

    <root>/<name>-<key>/
      run.json       the settings behind the key, and where things came from
      prompts.jsonl  what is put before the model, problem by problem
      samples/       log of completions, written by the generate stage
      programs/      log of which program each completion is, written by the execute stage
      results/       log of what running each program told, written by the execute stage
      scores/        rewards of every sample, summary, curves, written by the score stage
    <root>/latest    a link to the run evaluated last

Other settings lead to another folder, so nothing stale can be used; the same settings lead back to the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from openrlhf_maxk.evaluation.samples.log import Log, locked
from openrlhf_maxk.problems.atomic import write_text

FORMAT = 1
SETTINGS = "run.json"
PROMPTS = "prompts.jsonl"
LATEST = "latest"


class RunFolderError(Exception):
    """Not the folder of an evaluation, or not the one that was meant."""


class RunFolder:
    """An evaluation on disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.samples = Log(self.path / "samples")
        self.programs = Log(self.path / "programs")
        self.results = Log(self.path / "results")
        self.scores = self.path / "scores"

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        name: str,
        key: Mapping[str, Any],
        prompts: Mapping[str, str],
        about: Mapping[str, Any],
    ) -> RunFolder:
        """The run with these settings under ``root``, made if it is not there.

        Args:
            root: folder of runs.
            name: for people; the first part of the run's name.
            key: everything that decides the outcome, as JSON values.
            prompts: by problem id, kept for people.
            about: what else is worth knowing (paths, versions); of the first time.
        """
        digest = _digest(key)
        run = cls(Path(root) / f"{_readable(name)}-{digest}")
        if not (run.path / SETTINGS).exists():
            rows = (json.dumps({"problem": problem, "prompt": text}) for problem, text in prompts.items())
            write_text(run.path / PROMPTS, "".join(f"{row}\n" for row in rows))
            settings = {"format": FORMAT, "name": name, "key": digest, "settings": dict(key), "about": dict(about)}
            write_text(run.path / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        run.settings()  # whole and of this format
        return run

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run at ``path``: its own folder, or a folder of runs, whose latest is taken.

        Raises:
            RunFolderError: there is none.
        """
        for candidate in (Path(path), Path(path) / LATEST):
            if (candidate / SETTINGS).is_file():
                return cls(candidate.resolve())
        if begun := sorted(str(settings.parent) for settings in Path(path).glob(f"*/{SETTINGS}")):
            raise RunFolderError(f"no evaluation in {path} is finished: run it again to go on, or name {begun[0]}")
        raise RunFolderError(f"{path} is no evaluation (it has no {SETTINGS}) and no folder of evaluations")

    def prompts(self) -> dict[str, str]:
        """What was put before the model, by problem id."""
        with open(self.path / PROMPTS, encoding="utf-8") as file:
            return {row["problem"]: row["prompt"] for row in map(json.loads, file)}

    def settings(self) -> dict[str, Any]:
        """What :meth:`create` recorded.

        Raises:
            RunFolderError: it is damaged, or of another format.
        """
        path = self.path / SETTINGS
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            written, key, values = settings["format"], settings["key"], settings["settings"]
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} is no evaluation: it has no {SETTINGS}") from None
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(f"{path} is damaged: remove the folder and evaluate again") from None
        if written != FORMAT:
            raise RunFolderError(f"{path} has format {written}, this version reads {FORMAT}: evaluate again")
        if key != _digest(values):
            raise RunFolderError(f"{path} was changed by hand: its settings no longer fit its key. Evaluate again")
        return settings

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes this run; a LogError names the other one."""
        with locked(self.path, "the evaluation"):
            yield

    def mark_latest(self) -> None:
        """Let ``<root>/latest`` point here."""
        link = self.path.parent / LATEST
        if link.exists() and not link.is_symlink():
            return
        new = link.with_name(f".{LATEST}-{os.getpid()}")
        with suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to(self.path.name)
        os.replace(new, link)


def _digest(key: Mapping[str, Any]) -> str:
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _readable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "run"
