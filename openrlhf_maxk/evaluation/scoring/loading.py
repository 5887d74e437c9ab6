"""Evaluations from disk, by path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.evaluation.samples.run_folder import RunFolder, RunFolderError
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores
from openrlhf_maxk.evaluation.statistics.scores import Scores


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    run: RunFolder
    settings: dict[str, Any]
    scores: Scores


def load_evaluations(arguments: Sequence[str]) -> dict[str, Evaluated]:
    """Evaluations by name, in the order given. An argument is a folder, of one evaluation or of several (the latest is
    taken), or ``NAME=FOLDER``; without a name it keeps the one it was made with.

    Raises:
        RunFolderError: a folder without a finished evaluation, or two evaluations of one name.
    """
    loaded: dict[str, Evaluated] = {}
    for argument in arguments:
        given, _, path = argument.rpartition("=")
        run = RunFolder.find(path)
        settings = run.settings()
        name = given or settings["name"]
        if name in loaded:
            raise RunFolderError(
                f"two evaluations are called {name!r} ({loaded[name].run.path} and {run.path}): "
                "give them names, as in before=FOLDER after=FOLDER"
            )
        try:
            scores = load_scores(run.scores)
        except FileNotFoundError:
            raise RunFolderError(f"the evaluation {run.path} is not finished: run it again to go on with it") from None
        loaded[name] = Evaluated(name, run, settings, scores)
    return loaded
