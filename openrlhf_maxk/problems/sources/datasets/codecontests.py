"""CodeContests (Li et al., 2022): the paper's training problems, and one of its five test sets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.sources.conversion.cases import check_statement, contest_judge, scaled_limits, stdin_tests
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.reading.files import split_files
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source, in_random_order

# The hub's labels. They count without gaps, unlike the numbers of the original protocol buffers (ATCODER = 6, L = 19).
SOURCES = dict(enumerate(("UNKNOWN", "CODECHEF", "CODEFORCES", "HACKEREARTH", "CODEJAM", "ATCODER", "AIZU")))
GRADES = ("UNKNOWN", "EASY", "MEDIUM", "HARD", "HARDER", "HARDEST", "EXTERNAL")
DIFFICULTIES = dict(enumerate((*GRADES, *"ABCDEFGHIJKLMNOPQRSTUV")))  # 7 … 28: Codeforces' letters
PYTHON3 = 3
STANDARD_STREAMS = ("", "stdin", "stdout", "standard input", "standard output")


@dataclass(frozen=True)
class CodeContestsOptions(PrepareOptions):
    """The paper's choices where it states them: difficulty at most 3, 512 tokens, 2,490 + 276 problems."""

    token_limit: int = option(512, "drop longer problems, in tokens; 0: none")
    within: str = option("near", "repeated problems of the data set itself", choices=("keep", "exact", "near"))
    splits: str = option("train,valid,test", "the data set's own splits to read, comma separated")
    min_difficulty: int = option(
        0, "least difficulty (UNKNOWN=0, EASY=1 … HARDEST=5, EXTERNAL=6, Codeforces' A=7, B=8 …)"
    )
    max_difficulty: int = option(3, "greatest difficulty")
    unknown_difficulty: str = option("keep", "problems of difficulty 0 (UNKNOWN)", choices=("keep", "drop"))
    generated_tests: int = option(20, "generated tests to keep of each problem; -1: all", least=-1)
    images: str = option("keep", "statements with a picture, which the text lacks", choices=("keep", "drop"))
    train_size: int = option(2490, "problems of the training split; 0: all that the test split leaves")
    test_size: int = option(276, "problems of the test split")
    seed: int = option(0, "of the random split and of the choice of generated tests")

    def __post_init__(self) -> None:
        if self.min_difficulty > self.max_difficulty:
            raise ValueError("--min_difficulty is above --max_difficulty: nothing would be left")
        super().__post_init__()


class CodeContests(Source):
    """The problems of https://huggingface.co/datasets/deepmind/code_contests."""

    name = "codecontests"
    options_type = CodeContestsOptions
    repo = "deepmind/code_contests"
    key = "name"
    required = (
        *("name", "description", "public_tests", "private_tests", "generated_tests", "source", "difficulty"),
        *("solutions", "time_limit", "memory_limit_bytes", "input_file", "output_file"),
    )
    columns = ("cf_contest_id", "cf_index", "cf_rating", "is_description_translated")

    def __init__(self, options: CodeContestsOptions) -> None:
        self.options = options

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        return split_files(names, self.options.splits.split(","), ("data", ""))

    def group(self, row: Mapping[str, Any]) -> Group:
        return Group(_named(row.get("source"), SOURCES), _named(row.get("difficulty"), DIFFICULTIES))

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        group = self.group(row)
        self._check_difficulty(row)
        for name in ("input_file", "output_file"):
            if fields.text(row, name, "").strip().lower() not in STANDARD_STREAMS:
                raise Rejected("file_io", f"{name} is {fields.text(row, name)[:40]!r}")
        title = fields.text(row, "name").strip()
        if not title:
            raise Rejected("missing_field", "name")
        statement = check_statement(fields.text(row, "description"), self.options)
        if "<image>" in statement and self.options.images == "drop":
            raise Rejected("needs_image")
        public = fields.pairs(row, "public_tests")
        tests = stdin_tests((public, fields.pairs(row, "private_tests"), self._generated(title, row)), self.options)
        problem = Problem(
            id=f"{self.name}/{title}",
            statement=statement,
            tests=tests,
            limits=scaled_limits(self.options, tests, _seconds(row), fields.integer(row, "memory_limit_bytes", 0)),
            judge=contest_judge(statement, tests),
            public_tests=len(dict(public)),
            source=self.name,
            difficulty=group.difficulty,
            provenance={"origin": group.source, "split": split, "rating": fields.integer(row, "cf_rating", 0)},
        )
        return Candidate(problem, _python3(row)[: self.options.references])

    def narrative(self, row: Mapping[str, Any]) -> str:
        return fields.text(row, "description")

    def names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        contest, index = fields.integer(row, "cf_contest_id", 0), fields.text(row, "cf_index", "")
        of_codeforces = self.group(row).source == "CODEFORCES"
        return (f"codeforces:{contest}/{index}",) if of_codeforces and contest and index else ()

    def assign_splits(self, candidates: Sequence[tuple[str, str]]) -> list[str]:
        """A random split that depends on nothing but the ids and the seed. Too few problems: the same proportion."""
        ids = [identifier for identifier, _ in candidates]
        test, train = self.options.test_size, self.options.train_size or max(len(ids) - self.options.test_size, 0)
        if len(ids) < test + train:
            test = round(len(ids) * test / (test + train))
            train = len(ids) - test
        order = in_random_order(ids, self.options.seed)
        chosen = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + train], "train")
        return [chosen.get(identifier, "") for identifier in ids]

    def _check_difficulty(self, row: Mapping[str, Any]) -> None:
        label = _named(row.get("difficulty"), DIFFICULTIES)
        grade = next((grade for grade, name in DIFFICULTIES.items() if name == label), None)
        if grade is None:
            raise Rejected("wrong_type", f"difficulty: {row.get('difficulty')!r:.40} is not one of the data set's")
        if grade == 0 and self.options.unknown_difficulty == "drop":
            raise Rejected("unknown_difficulty")
        if grade < self.options.min_difficulty:
            raise Rejected("too_easy", label)
        if grade > self.options.max_difficulty:
            raise Rejected("too_hard", label)

    def _generated(self, title: str, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """A random choice of the generated tests that depends on nothing but the problem and the seed."""
        tests = fields.pairs(row, "generated_tests")
        if self.options.generated_tests < 0 or len(tests) <= self.options.generated_tests:
            return tests
        rank = {t: hashlib.sha256(repr((self.options.seed, title, t)).encode()).digest() for t in tests}
        chosen = set(sorted(rank, key=lambda t: rank[t])[: self.options.generated_tests])
        return [t for t in tests if t in chosen]


def _named(value: Any, names: Mapping[int, str]) -> str:
    """The name of a class label that is stored as a number or as the name itself."""
    if isinstance(value, str):
        value = re.sub("^UNKNOWN_(SOURCE|DIFFICULTY)$", "UNKNOWN", value)
        return value if value in names.values() else "?"
    return names.get(value, "?") if isinstance(value, int) and not isinstance(value, bool) else "?"


def _seconds(row: Mapping[str, Any]) -> float:
    """The time limit; 0 where none is stated."""
    limit = fields.mapping(row, "time_limit", {})
    return fields.number(limit, "seconds", 0.0) + fields.number(limit, "nanos", 0.0) / 1e9


def _python3(row: Mapping[str, Any]) -> tuple[str, ...]:
    solutions = fields.mapping(row, "solutions", {})
    languages, programs = fields.listing(solutions, "language", []), fields.listing(solutions, "solution", [])
    if len(languages) != len(programs):
        raise Rejected("unequal_solutions", f"{len(languages)} languages, {len(programs)} programs")
    return tuple(
        fields.text({"solution": program}, "solution")
        for language, program in zip(languages, programs, strict=True)
        if language in (PYTHON3, "PYTHON3")
    )
