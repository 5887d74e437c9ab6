"""Problems of your own: JSON lines, JSON or Parquet files, or a data set on the hub, in one of the known formats."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, Test
from openrlhf_maxk.problems.sources.conversion.asserts import parse
from openrlhf_maxk.problems.sources.conversion.cases import check_sizes, check_statement, contest_judge, scaled_limits
from openrlhf_maxk.problems.sources.formats.record import COLUMNS, Record, last_request
from openrlhf_maxk.problems.sources.formats.table import NAMES, format_named, recognise
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading.files import SPLITS
from openrlhf_maxk.problems.sources.source import (
    Candidate,
    Group,
    Rejected,
    SideFiles,
    Source,
    SourceError,
    in_random_order,
)

SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
CODEFORCES = re.compile(r"codeforces\.com/(?:problemset/problem|contest)/(\d+)/(?:problem/)?([A-Z]\d?)\b")


@dataclass(frozen=True)
class OwnOptions(PrepareOptions):
    """Limits that people state for their own problems are taken as they are."""

    tokenizer: str = option("none", "tokenizer that counts tokens and renders chats; none: do without")
    time_scale: float = option(1.0, "times the stated time limit")
    memory_scale: float = option(1.0, "times the stated memory limit")
    name: str = option("", "of the data set, before every id; empty: as the file or the data set on the hub is called")
    format: str = option("auto", "how rows are read; auto: by their columns", choices=NAMES)
    columns: str = option(
        "", "where fields are: FIELD=COLUMN, comma separated; a dot goes into a mapping (tests=info.cases)"
    )
    files: str = option("", "of a folder or hub data set, the files to read: patterns, comma separated; empty: all")
    split: str = option("train", "split of rows that name none, in files whose names tell none")
    test_size: int = option(0, "problems to put into the split test, at random")
    seed: int = option(0, "of that choice")
    comparison: str = option(
        "auto",
        "of rows that name none; auto: numeric for printed output and calls, == for asserts",
        choices=("auto", *(c for c in Comparison if c != "checker")),
    )
    most_tests: int = option(50, "asserts of a problem are put together into at most so many tests; 0: one each")

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in filter(None, self.columns.split(",")):
            field, equals, column = part.partition("=")
            if not (field.strip() and equals and column.strip()):
                raise ValueError(f"--columns {part}: expected FIELD=COLUMN; fields are {', '.join(COLUMNS)}")
        if not SPLIT.fullmatch(self.split):
            raise ValueError(f"--split {self.split}: letters, digits, - and _ only")
        if not self.source and not self.repo:
            raise ValueError("name a file: prepare jsonl my_problems.jsonl --out DIR (or --repo OWNER/NAME on the hub)")

    @classmethod
    def located(cls, place: str) -> dict[str, str]:
        """The options that a file, a folder or a name on the hub stands for."""
        if place and not Path(place).exists() and HUB_NAME.fullmatch(place) and not Path(place).suffix:
            return {"repo": place}
        return {"source": place} if place else {}


class Own(Source):
    """Whatever is in the files that are named."""

    name = "jsonl"
    aliases = ("json", "parquet", "hub")
    options_type = OwnOptions
    key = "id"
    columns = ("*",)
    explains = True

    def __init__(self, options: OwnOptions) -> None:
        self.options = options
        self.repo = options.repo
        stem = PurePosixPath(options.repo).name or Path(options.source).absolute().name.partition(".")[0]
        self.name = options.name or stem or "own"
        self._columns = dict(part.split("=", 1) for part in options.columns.replace(" ", "").split(",") if part)
        self._last: tuple[Mapping[str, Any], Record] | None = None

    @property
    def generated(self) -> bool:
        return False

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        patterns = [p.strip() for p in self.options.files.split(",") if p.strip()]
        chosen = [n for n in names if not patterns or any(fnmatch(n, p) for p in patterns)]
        if not chosen:
            raise SourceError(f"--files {self.options.files}: no such file among {', '.join(list(names)[:10])}")
        return [(name, self._split_of(name)) for name in chosen]

    def group(self, row: Mapping[str, Any]) -> Group:
        try:
            record = self._read(row)
        except Rejected:
            return Group(self.name)
        return Group(record.origin or self.name, record.difficulty[:40] or "?")

    def narrative(self, row: Mapping[str, Any]) -> str:
        record = self._read(row)
        return record.narrative or record.statement or last_request(record.messages)

    def names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        url = row.get("url")
        match = CODEFORCES.search(url) if isinstance(url, str) else None
        return (f"codeforces:{match[1]}/{match[2]}",) if match else ()

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        record = self._read(row)
        statement = record.statement or last_request(record.messages)
        if not statement.strip():
            raise Rejected("missing_field", "statement (or messages, with one of role user)")
        statement = check_statement(statement, self.options)
        code = f"{statement}\n{record.starter_code}\n{record.program_prefix}"
        called = record.entry_point.rpartition(".")[2]
        if record.mode is Mode.FUNCTION and called not in code:
            statement = f"{statement}\n\nThe function is called {record.entry_point}."
        if record.split and not SPLIT.fullmatch(record.split):
            raise Rejected("wrong_value", "split: letters, digits, - and _ only")
        tests, public = self._tests(record)
        content = hashlib.sha256(repr((statement, tests)).encode("utf-8", "replace")).hexdigest()[:12]
        problem = Problem(
            id=f"{self.name}/{record.id or content}",
            statement=statement,
            tests=tests,
            mode=record.mode,
            entry_point=record.entry_point or None if record.mode is Mode.FUNCTION else None,
            setup_code=record.setup_code,
            starter_code=record.starter_code,
            program_prefix=record.program_prefix,
            limits=scaled_limits(self.options, tests, record.seconds, record.memory_bytes),
            judge=record.judge or self._judge(statement, record.mode, tests),
            public_tests=public,
            source=self.name,
            difficulty=record.difficulty,
            provenance={"split": record.split or split, "origin": record.origin},
        )
        other = replace(problem, tests=record.other_tests) if record.other_tests else None
        return Candidate(problem, record.references[: self.options.references], other, record.messages)

    def assign_splits(self, candidates: Sequence[tuple[str, str]]) -> list[str]:
        chosen = set(in_random_order([i for i, _ in candidates], self.options.seed)[: self.options.test_size])
        return ["test" if identifier in chosen else split for identifier, split in candidates]

    def _split_of(self, name: str) -> str:
        words = [PurePosixPath(name).parent.name, re.split(r"[-.]", PurePosixPath(name).name)[0]]
        return next((word for word in reversed(words) if word in SPLITS), self.options.split)

    def _read(self, row: Mapping[str, Any]) -> Record:
        if self._last is None or self._last[0] is not row:
            mapped = self._mapped(row)
            form = recognise(mapped) if self.options.format == "auto" else format_named(self.options.format)
            self._last = row, form.read(mapped)
        return self._last[1]

    def _mapped(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        found = dict(row)
        for field, path in self._columns.items():
            value: Any = row
            for part in path.split("."):
                if not isinstance(value, Mapping) or part not in value:
                    raise Rejected("missing_field", f"{path} (--columns {field}={path}; there are: {', '.join(row)})")
                value = value[part]
            found[field] = value
        return found

    def _tests(self, record: Record) -> tuple[tuple[Test, ...], int]:
        """The tests, checked; and how many may be seen. The first of several with one input counts."""
        tests = tuple({test.input: test for test in reversed(record.tests)}.values())[::-1]
        public = len({test.input for test in record.tests[: record.public_tests]})
        if record.mode is Mode.ASSERTS:
            for i, test in enumerate(tests):
                if not any(isinstance(node, ast.Assert) for node in ast.walk(parse(test.input, f"tests[{i}]"))):
                    raise Rejected("not_an_assert", f"tests[{i}]: no assert statement")
            tests = (*tests[:public], *together(tests[public:], self.options.most_tests))
        check_sizes(tests, self.options)
        return tests, public

    def _judge(self, statement: str, mode: Mode, tests: Sequence[Test]) -> Judge:
        if self.options.comparison != "auto":
            return Judge(Comparison(self.options.comparison))
        if mode is Mode.STDIN:
            return contest_judge(statement, tests)
        return Judge(Comparison.NUMERIC if mode is Mode.FUNCTION else Comparison.TOKENS)


def together(tests: Sequence[Test], most: int) -> list[Test]:
    """At most so many tests of the same asserts. Those that define a function of their own stay alone."""
    if not most or len(tests) <= most:
        return list(tests)
    size = -(-len(tests) // most)
    found: list[Test] = []
    for start in range(0, len(tests), size):
        part = [test.input for test in tests[start : start + size]]
        alone = [source for source in part if "def " in source]
        joined = "\n".join(source for source in part if "def " not in source)
        found += [Test(source) for source in (joined, *alone) if source]
    return found
