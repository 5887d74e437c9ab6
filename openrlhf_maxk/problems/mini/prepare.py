"""Makes the benchmark's folder: problems, tokenizer and base model. What is there already, with the same key, stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrlhf_maxk.problems import atomic, record, store
from openrlhf_maxk.problems.atomic import new_folder, write_text
from openrlhf_maxk.problems.mini.base_model import ModelSettings, train_base_model
from openrlhf_maxk.problems.mini.generator import SPLITS, ProblemSettings, generate
from openrlhf_maxk.problems.store import ProblemWriter

RECORD = "made_from.json"  # in each folder: its key, and what it was made from


def prepare(
    out: Path, problem_settings: ProblemSettings, model_settings: ModelSettings, threads: int | None = None
) -> dict[str, Any]:
    """Make what is missing in ``out``; returns the manifest, also written to ``out/manifest.json``."""
    problems = _prepare_problems(out / "problems", problem_settings)
    base_model = _prepare_base_model(out / "base_model", model_settings, threads)
    manifest = {"benchmark": "mini", "problems": problems, "base_model": base_model}
    write_text(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return manifest


def _prepare_problems(folder: Path, settings: ProblemSettings) -> dict[str, Any]:
    key = _key(asdict(settings))
    if (found := _made_from(folder, key)) is not None:
        return found
    with new_folder(folder) as work:
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        difficulties: dict[str, int] = {}
        with ProblemWriter(work) as writer:
            for problem, solution in generate(settings):
                writer.add(problem)
                writer.add_solution(solution)
                row = {"input": problem.statement, "label": problem.id, "datasource": problem.source}
                lines[problem.provenance["split"]].append(json.dumps(row) + "\n")
                difficulties[problem.difficulty] = difficulties.get(problem.difficulty, 0) + 1
        for split in SPLITS:
            (work / f"{split}.jsonl").write_text("".join(lines[split]), encoding="utf-8")
        result = {
            "key": key,
            "settings": asdict(settings),
            "counts": {split: len(lines[split]) for split in SPLITS},
            "difficulties": dict(sorted(difficulties.items())),
        }
        (work / RECORD).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _prepare_base_model(folder: Path, settings: ModelSettings, threads: int | None) -> dict[str, Any]:
    import torch

    key = _key(asdict(settings) | {"torch": torch.__version__})
    if (found := _made_from(folder, key)) is not None:
        return found
    with new_folder(folder) as work:
        result = {"key": key, "settings": asdict(settings), **train_base_model(work, settings, threads)}
        (work / RECORD).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _made_from(folder: Path, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if found.get("key") == key else None


def _key(settings: Mapping[str, Any]) -> str:
    """Settings and the code that turns them into files: a change of either makes the files anew."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    sources = [*sorted(Path(__file__).parent.glob("*.py")), *(Path(str(m.__file__)) for m in (atomic, record, store))]
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
