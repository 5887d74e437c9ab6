"""Makes the benchmark's folder: problems, tokenizer and base model. What is there already, with the same key, stays."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from openrlhf_maxk.problems import record, store
from openrlhf_maxk.problems.atomic import new_folder, write_text
from openrlhf_maxk.problems.mini import base_model, demonstrations, generator, language, tokenizer
from openrlhf_maxk.problems.mini.base_model import ModelSettings, train_base_model
from openrlhf_maxk.problems.mini.generator import SPLITS, ProblemSettings, generate
from openrlhf_maxk.problems.store import ProblemWriter

MADE_FROM = "made_from.json"  # in each folder: its key and what it was made from


def prepare(
    out: Path, problem_settings: ProblemSettings, model_settings: ModelSettings, threads: int | None = None
) -> dict[str, Any]:
    """Make what is missing in ``out``, each folder in one step; returns the manifest, ``out/manifest.json``.

    ::

        out/problems/     train.jsonl, validation.jsonl, test.jsonl: prompts and labels for OpenRLHF;
                          and the problem store, see openrlhf_maxk.problems.store
        out/base_model/   a Hugging Face folder: model and tokenizer
        out/manifest.json what both were made from

    Raises:
        OSError: a folder cannot be written.
    """
    problems = _prepare_problems(out / "problems", problem_settings)
    base_model = _prepare_base_model(out / "base_model", model_settings, threads)
    manifest = {"benchmark": "mini", "problems": problems, "base_model": base_model}
    write_text(out / "manifest.json", _json(manifest))
    return manifest


def _prepare_problems(folder: Path, settings: ProblemSettings) -> dict[str, Any]:
    key = _key(asdict(settings), (language, generator, record, store))
    if (found := _made_from(folder, key)) is not None:
        return found
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    difficulties: Counter[str] = Counter()
    with new_folder(folder) as work:
        with ProblemWriter(work) as writer:
            for problem, solution in generate(settings):
                writer.add(problem)
                writer.add_solution(solution)
                row = {"input": problem.statement, "label": problem.id, "datasource": problem.source}
                lines[problem.provenance["split"]].append(json.dumps(row) + "\n")
                difficulties[problem.difficulty] += 1
        for split in SPLITS:
            (work / f"{split}.jsonl").write_text("".join(lines[split]), encoding="utf-8")
        result = {
            "key": key,
            "settings": asdict(settings),
            "counts": {split: len(lines[split]) for split in SPLITS},
            "difficulties": dict(sorted(difficulties.items())),
        }
        (work / MADE_FROM).write_text(_json(result), encoding="utf-8")
    return result


def _prepare_base_model(folder: Path, settings: ModelSettings, threads: int | None) -> dict[str, Any]:
    code = (language, tokenizer, generator, demonstrations, base_model)
    key = _key(asdict(settings) | {"torch": torch.__version__}, code)
    if (found := _made_from(folder, key)) is not None:
        return found
    with new_folder(folder) as work:
        result = {"key": key, "settings": asdict(settings)} | train_base_model(work, settings, threads)
        (work / MADE_FROM).write_text(_json(result), encoding="utf-8")
    return result


def _made_from(folder: Path, key: str) -> dict[str, Any] | None:
    """What a folder of this key was made from; None if there is no such folder."""
    try:
        found = json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None


def _key(settings: Mapping[str, Any], code: tuple[ModuleType, ...]) -> str:
    """Settings and the code that turns them into files: a change of either makes the files anew."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for module in code:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
