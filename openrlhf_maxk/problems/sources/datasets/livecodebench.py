"""LiveCodeBench (Jain et al., 2024), code generation: contest problems by date, in numbered releases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.sources.conversion.cases import (
    LEETCODE_SETUP,
    check_statement,
    contest_judge,
    packed_cases,
    scaled_limits,
    typed_tests,
)
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source, SourceError

RELEASES = 6
SHARDS = ("test.jsonl", *(f"test{i}.jsonl" for i in range(2, RELEASES + 1)))

# The benchmark's own list of problems that cannot be judged by their tests, by question id or title.
ERRATA = {
    **dict.fromkeys(
        (
            *("abc311_c", "abc326_d", "abc327_b", "abc333_e", "abc343_e", "abc362_c"),
            *("find-words-containing-character", "find-the-peaks", "generate-binary-strings-without-adjacent-zeros"),
        ),
        "several_answers",
    ),
    "abc337_e": "interactive",
    "abc355_e": "interactive",
    "abc350_c": "wrong_tests",
}


@dataclass(frozen=True)
class LiveCodeBenchOptions(PrepareOptions):
    """Version 6 is all problems up to the sixth release, or what the sixth added: ``release`` says which."""

    release: str = option(
        "release_v6", "release_vN: all up to release N; vN: what release N added; vM_vN: what M … N added (N at most 6)"
    )
    errata: str = option("drop", "problems on the benchmark's list of bad ones", choices=("drop", "keep"))
    date_from: str = option("", "only contests from this day on, YYYY-MM-DD; empty: all")
    date_to: str = option("", "only contests up to this day, YYYY-MM-DD; empty: all")
    platforms: str = option("", "only these (leetcode, atcoder, codeforces), comma separated; empty: all")

    def __post_init__(self) -> None:
        release_shards(self.release)
        check_day("date_from", self.date_from)
        check_day("date_to", self.date_to)
        super().__post_init__()


class LiveCodeBench(Source):
    """The problems of https://huggingface.co/datasets/livecodebench/code_generation_lite.

    Its loading script is never run: the shards that it reads are plain JSON lines.
    """

    name = "livecodebench"
    options_type = LiveCodeBenchOptions
    repo = "livecodebench/code_generation_lite"
    key = "question_id"
    required = (
        *("question_title", "question_content", "platform", "question_id", "contest_date"),
        *("starter_code", "difficulty", "public_test_cases", "private_test_cases", "metadata"),
    )
    columns = ("contest_id",)

    def __init__(self, options: LiveCodeBenchOptions) -> None:
        self.options = options

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        by_shard = {PurePosixPath(name).name: name for name in reversed(names)}
        if len(names) == 1 and names[0] not in SHARDS:
            return [(names[0], "test")]
        wanted = release_shards(self.options.release)
        if missing := [shard for shard in wanted if shard not in by_shard]:
            raise SourceError(f"--release {self.options.release} needs {', '.join(missing)}: fetch them too")
        return [(by_shard[shard], "test") for shard in wanted]

    def group(self, row: Mapping[str, Any]) -> Group:
        platform, difficulty = row.get("platform"), row.get("difficulty")
        return Group(
            platform if platform in ("leetcode", "atcoder", "codeforces") else "?",
            difficulty if difficulty in ("easy", "medium", "hard") else "?",
        )

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        identifier, title = fields.text(row, "question_id").strip(), fields.text(row, "question_title", "").strip()
        platform, day = fields.text(row, "platform"), fields.day(row, "contest_date")
        if not identifier:
            raise Rejected("missing_field", "question_id")
        self._check_choice(platform, day)
        fault = ERRATA.get(identifier) or ERRATA.get(re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"))
        if fault and self.options.errata == "drop":
            raise Rejected("errata", fault)
        problem = test_problem(
            f"{self.name}/{identifier}",
            check_statement(fields.text(row, "question_content"), self.options),
            fields.text(row, "starter_code", ""),
            fields.mapping(row, "metadata", {}),
            row,
            self.options,
            source=self.name,
            difficulty=self.group(row).difficulty,
            provenance={"origin": platform, "split": split, "title": title, "date": day},
        )
        return Candidate(problem)

    def narrative(self, row: Mapping[str, Any]) -> str:
        return fields.text(row, "question_content")

    def names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        if row.get("platform") != "codeforces":
            return ()
        return (f"codeforces:{fields.text(row, 'question_id').strip().replace('_', '/')}",)

    def _check_choice(self, platform: str, day: str) -> None:
        chosen = [p.strip() for p in self.options.platforms.split(",") if p.strip()]
        if chosen and platform not in chosen:
            raise Rejected("other_platform", platform[:40])
        if (self.options.date_from and day < self.options.date_from) or (
            self.options.date_to and day > self.options.date_to
        ):
            raise Rejected("other_date", day)


def test_problem(
    identifier: str,
    statement: str,
    starter: str,
    metadata: Mapping[str, Any],
    row: Mapping[str, Any],
    options: PrepareOptions,
    **rest: Any,
) -> Problem:
    """The problem in a row with LiveCodeBench's encoding of tests (LiveBench has it too).

    Raises:
        Rejected: as the decoding of tests, or "no_function_name".
    """
    mode, tests, public = typed_tests(
        packed_cases(row, "public_test_cases", options), packed_cases(row, "private_test_cases", options), options
    )
    if mode is Mode.STDIN:
        how: dict[str, Any] = {"judge": contest_judge(statement, tests)}
    else:
        function = fields.text(metadata, "func_name", "")
        if not function.isidentifier():
            raise Rejected("no_function_name", f"metadata.func_name is {function[:40]!r}")
        method = "class Solution" in starter
        how = {"entry_point": f"Solution.{function}" if method else function, "setup_code": LEETCODE_SETUP}
    return Problem(
        id=identifier,
        statement=statement,
        tests=tests,
        mode=mode,
        starter_code=starter,
        limits=scaled_limits(options, tests),
        public_tests=public,
        **how,
        **rest,
    )


def release_shards(release: str) -> list[str]:
    """The shards of a release.

    Raises:
        ValueError: if there is no such release.
    """
    if match := re.fullmatch(r"release_v(\d)", release):
        first, last = 1, int(match[1])
    elif match := re.fullmatch(r"v(\d)(?:_v(\d))?", release):
        first, last = int(match[1]), int(match[2] or match[1])
    else:
        first, last = 0, 0
    if not 1 <= first <= last <= RELEASES:
        raise ValueError(
            f"--release {release}: release_v1 … release_v{RELEASES}, v1 … v{RELEASES}, or a range such as v4_v6"
        )
    return list(SHARDS[first - 1 : last])


def check_day(name: str, day: str) -> None:
    """Refuse what is not a day as YYYY-MM-DD (or empty)."""
    if day and not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise ValueError(f"--{name} {day}: write a day as YYYY-MM-DD")
