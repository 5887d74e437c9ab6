"""CodeForces (Penedo et al., 2025): contest problems with complete tests or generated ones, and checkers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_maxk.problems.record import Comparison, Judge, Problem
from openrlhf_maxk.problems.sources.conversion.cases import (
    MIB,
    check_statement,
    contest_judge,
    scaled_limits,
    stdin_tests,
)
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.reading.files import split_files
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source, SourceError


@dataclass(frozen=True)
class CodeForcesOptions(PrepareOptions):
    """The paper takes the test split, without what CodeContests has (``--decontaminate``)."""

    config: str = option(
        "verifiable", "verifiable: problems whose tests can be run; default: all", choices=("verifiable", "default")
    )
    splits: str = option("test", "the data set's own splits to read, comma separated")
    tests: str = option(
        "complete_or_generated",
        "official tests where they are complete, generated ones, or the first that there are",
        choices=("complete_or_generated", "complete", "generated", "complete_and_generated"),
    )
    generated_tests: int = option(50, "generated tests to keep of each problem, at most; 0: all")
    checkers: str = option("keep", "problems that need their checker", choices=("keep", "drop"))
    min_rating: int = option(0, "least rating; 0: any, also none")
    max_rating: int = option(0, "greatest rating; 0: any, also none")


class CodeForces(Source):
    """The problems of https://huggingface.co/datasets/open-r1/codeforces."""

    name = "codeforces"
    options_type = CodeForcesOptions
    repo = "open-r1/codeforces"
    key = "id"
    required = (
        *("id", "title", "description", "input_format", "output_format", "examples", "official_tests"),
        *("official_tests_complete", "input_mode", "time_limit", "memory_limit"),
    )
    columns = (
        *("aliases", "contest_id", "index", "interaction_format", "note", "rating", "generated_checker"),
        *("executable", "generated_tests"),
    )

    def __init__(self, options: CodeForcesOptions) -> None:
        self.options = options

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        rows = [name for name in names if "generated_tests" not in name.split("/")[:-1]]
        folders = ("verifiable",) if self.options.config == "verifiable" else ("data",)
        if not any(folder in name.split("/") for folder in ("verifiable", "data") for name in rows):
            folders = ("",)  # a copy without the hub's folders
        return split_files(rows, self.options.splits.split(","), folders)

    def group(self, row: Mapping[str, Any]) -> Group:
        rating = row.get("rating")
        if isinstance(rating, float) and rating.is_integer():
            rating = int(rating)
        rated = isinstance(rating, int) and not isinstance(rating, bool) and 0 < rating < 10_000
        return Group("codeforces", str(rating) if rated else "unrated" if rating in (None, 0) else "?")

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        identifier = fields.text(row, "id").strip()
        if not re.fullmatch(r"\d+/\w+", identifier):
            raise Rejected("wrong_type", f"id: expected contest/index, found {identifier[:40]!r}")
        if (mode := fields.text(row, "input_mode", "stdio")) != "stdio":
            raise Rejected("file_io", f"input_mode is {mode[:40]!r}")
        if fields.text(row, "interaction_format", "").strip():
            raise Rejected("interactive")
        self._check_rating(row)
        checker = fields.text(row, "generated_checker", "").strip()
        if checker and self.options.checkers == "drop":
            raise Rejected("needs_checker")
        narrative = check_statement(self.narrative(row), self.options)
        examples = fields.pairs(row, "examples")
        statement = check_statement(_with_examples(narrative, examples, fields.text(row, "note", "")), self.options)
        tests = stdin_tests((examples, self._hidden_tests(row, identifier, side)), self.options)
        judge = Judge(Comparison.CHECKER, checker=checker) if checker else contest_judge(statement, tests)
        seconds, megabytes = fields.number(row, "time_limit", 0.0), fields.number(row, "memory_limit", 0.0)
        problem = Problem(
            id=f"{self.name}/{identifier}",
            statement=statement,
            tests=tests,
            limits=scaled_limits(self.options, tests, seconds, megabytes * MIB),
            judge=judge,
            public_tests=len(dict(examples)),
            source=self.name,
            difficulty=self.group(row).difficulty,
            provenance={"split": split, "title": fields.text(row, "title", "")},
        )
        return Candidate(problem)

    def narrative(self, row: Mapping[str, Any]) -> str:
        """The statement without examples and notes."""
        parts = [fields.text(row, "description").strip()]
        for title, name in (("Input", "input_format"), ("Output", "output_format")):
            if section := fields.text(row, name, "").strip():
                parts.append(f"{title}\n{section}")
        return "\n\n".join(parts) if parts[0] else ""

    def names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"codeforces:{n}" for n in (fields.text(row, "id").strip(), *fields.texts(row, "aliases", [])))

    def _check_rating(self, row: Mapping[str, Any]) -> None:
        rating = fields.integer(row, "rating", 0)
        if self.options.min_rating and rating < self.options.min_rating:
            raise Rejected("too_easy" if rating else "unrated", str(rating))
        if self.options.max_rating and (not rating or rating > self.options.max_rating):
            raise Rejected("too_hard" if rating else "unrated", str(rating))

    def _hidden_tests(self, row: Mapping[str, Any], identifier: str, side: SideFiles) -> list[tuple[str, str]]:
        """The tests beside the examples, by ``--tests``.

        Raises:
            Rejected: "no_complete_tests" if there are none of the kind asked for.
        """
        complete = row.get("official_tests_complete") is True
        official = fields.pairs(row, "official_tests") if complete and self.options.tests != "generated" else []
        generated: list[tuple[str, str]] = []
        if self.options.tests in ("generated", "complete_and_generated") or (
            self.options.tests == "complete_or_generated" and not official
        ):
            generated = self._generated(identifier, side)
        if not official and not generated:
            raise Rejected("no_complete_tests", "the official tests are cut short and there are no generated ones")
        return official + generated

    def _generated(self, identifier: str, side: SideFiles) -> list[tuple[str, str]]:
        name = f"generated_tests/test_cases_{int(identifier.split('/')[0]):04d}.parquet"
        path = side.get(name)
        return [] if path is None else _read_generated(path, identifier, self.options)


def _read_generated(path: Path, identifier: str, options: CodeForcesOptions) -> list[tuple[str, str]]:
    """The first generated tests of a problem that are not too large, without reading the file (megabytes) at once.

    Raises:
        SourceError: if the file cannot be read.
    """
    found: list[tuple[str, str]] = []
    budget = options.max_tests_mb * MIB // 2
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            for batch in file.iter_batches(16, columns=["problem_id", "input", "output"], use_threads=False):
                for i, owner in enumerate(batch.column("problem_id").to_pylist()):
                    if owner != identifier:
                        continue
                    row = batch.slice(i, 1)
                    size = row.nbytes
                    if size > options.max_test_mb * MIB or size > budget:
                        continue
                    budget -= size
                    test = row.to_pylist()[0]
                    found.append((fields.text(test, "input"), fields.text(test, "output")))
                    if len(found) == options.generated_tests:
                        return found
    except (pa.ArrowException, OSError, KeyError) as e:
        raise SourceError(f"{path.name} cannot be read ({type(e).__name__}): fetch it again") from None
    return found


def _with_examples(narrative: str, examples: list[tuple[str, str]], note: str) -> str:
    parts = [narrative]
    if examples:
        parts.append("Examples")
        parts += [f"Input\n{given.strip()}\nOutput\n{wanted.strip()}" for given, wanted in examples]
    if note.strip():
        parts.append(f"Note\n{note.strip()}")
    return "\n\n".join(parts)
