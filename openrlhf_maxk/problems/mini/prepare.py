"""Makes a benchmark's folder: problems, tokenizer and base model. What is there already, with the same key, stays."""

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
from openrlhf_maxk.problems.mini import base_model, tokenizer
from openrlhf_maxk.problems.mini.base_model import ModelSettings, train_base_model
from openrlhf_maxk.problems.mini.benchmarks import PROGRAMS, Benchmark
from openrlhf_maxk.problems.mini.splits import SPLITS, ProblemSettings
from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.store import ProblemWriter

MADE_FROM = "made_from.json"  # in each folder: its key and what it was made from


def prepare(
    out: Path,
    problem_settings: ProblemSettings,
    model_settings: ModelSettings,
    threads: int | None = None,
    benchmark: Benchmark = PROGRAMS,
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
    problems = _prepare_problems(out / "problems", problem_settings, benchmark)
    base_model = _prepare_base_model(out / "base_model", model_settings, threads, benchmark)
    manifest = {"benchmark": benchmark.name, "problems": problems, "base_model": base_model}
    write_text(out / "manifest.json", _json(manifest))
    return manifest


def _prepare_problems(folder: Path, settings: ProblemSettings, benchmark: Benchmark = PROGRAMS) -> dict[str, Any]:
    key = _key(asdict(settings), (*benchmark.code, record, store))
    if (found := _made_from(folder, key)) is not None:
        return found
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    difficulties: Counter[str] = Counter()
    with new_folder(folder) as work:
        with ProblemWriter(work) as writer:
            for problem, solution in benchmark.generate(settings):
                writer.add(problem)
                writer.add_solution(solution)
                lines[problem.provenance["split"]].append(json.dumps(_row(problem)) + "\n")
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


def _row(problem: Problem) -> dict[str, str]:
    """What OpenRLHF reads of a problem; with the answer where a reward may want that as its label."""
    row = {"input": problem.statement, "label": problem.id, "datasource": problem.source}
    return row | ({"answer": problem.tests[0].output} if problem.mode is Mode.ANSWER else {})


def _prepare_base_model(
    folder: Path, settings: ModelSettings, threads: int | None, benchmark: Benchmark
) -> dict[str, Any]:
    code = (*benchmark.code, tokenizer, base_model)
    key = _key(asdict(settings) | {"torch": torch.__version__}, code)
    if (found := _made_from(folder, key)) is not None:
        return found
    with new_folder(folder) as work:
        result = {"key": key, "settings": asdict(settings)} | train_base_model(work, settings, threads, benchmark)
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
