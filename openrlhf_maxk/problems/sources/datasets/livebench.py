"""LiveBench (White et al., 2024), coding: contest problems to solve, and begun solutions to complete."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openrlhf_maxk.problems.sources.conversion.cases import check_statement
from openrlhf_maxk.problems.sources.datasets.livecodebench import check_day, test_problem
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.reading.files import split_files
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source

TASKS = ("LCB_generation", "coding_completion")


@dataclass(frozen=True)
class LiveBenchOptions(PrepareOptions):
    """LiveBench replaces questions over time: a release is what was there on one day."""

    release: str = option("", "questions of the release of this day, YYYY-MM-DD; empty: every question ever released")
    tasks: str = option(",".join(TASKS), "tasks, comma separated")

    def __post_init__(self) -> None:
        check_day("release", self.release)
        if unknown := sorted(set(self.tasks.split(",")) - set(TASKS)):
            raise ValueError(f"--tasks {', '.join(unknown)}: known are {', '.join(TASKS)}")
        super().__post_init__()


class LiveBench(Source):
    """The problems of https://huggingface.co/datasets/livebench/coding."""

    name = "livebench"
    options_type = LiveBenchOptions
    repo = "livebench/coding"
    key = "question_id"
    required = (
        *("question_id", "task", "turns", "question_title"),
        *("public_test_cases", "private_test_cases", "original_json"),
    )
    columns = (*("partial_solution", "solution", "livebench_release_date", "livebench_removal_date"),)

    def __init__(self, options: LiveBenchOptions) -> None:
        self.options = options

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        return split_files(names, ("test",), ("data", ""))

    def group(self, row: Mapping[str, Any]) -> Group:
        original = row.get("original_json")
        difficulty = original.get("difficulty") if isinstance(original, Mapping) else None
        task = row.get("task")
        return Group(
            task if isinstance(task, str) and len(task) < 40 else "?",
            difficulty if difficulty in ("easy", "medium", "hard") else "?",
        )

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        task = fields.text(row, "task")
        if task not in TASKS:
            raise Rejected("unknown_task", f"{task[:40]!r}: its tests are of another kind")
        if task not in self.options.tasks.split(","):
            raise Rejected("other_task", task)
        self._check_release(row)
        original = fields.mapping(row, "original_json")
        identifier, title = fields.text(row, "question_id").strip(), fields.text(row, "question_title", "").strip()
        if not identifier:
            raise Rejected("missing_field", "question_id")
        statement = check_statement(self.narrative(row), self.options)
        problem = test_problem(
            f"{self.name}/{identifier}",
            statement,
            fields.text(original, "starter_code", ""),
            fields.mapping(original, "metadata", {}),
            row,
            self.options,
            source=self.name,
            difficulty=self.group(row).difficulty,
            provenance={"task": task, "split": split, "title": title},
        )
        solution = fields.text(row, "solution", "")
        if task == "coding_completion":
            begun = fields.text(row, "partial_solution", "")
            if not begun.strip():
                raise Rejected("missing_field", "partial_solution")
            problem = replace(problem, program_prefix=begun)
        return Candidate(problem, (solution,) if _is_python(solution) else ())

    def narrative(self, row: Mapping[str, Any]) -> str:
        return fields.text(fields.mapping(row, "original_json"), "question_content")

    def _check_release(self, row: Mapping[str, Any]) -> None:
        if not self.options.release:
            return
        released, removed = fields.day(row, "livebench_release_date"), fields.day(row, "livebench_removal_date", "")
        if released > self.options.release or (removed and removed <= self.options.release):
            raise Rejected("other_release", f"there from {released} to {removed or 'now'}")


def _is_python(program: str) -> bool:
    try:
        ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(program.strip())
