"""LiveCodeBench and LiveBench: releases, dates, packed tests, functions, completions."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.record import Mode, Problem, Test
from openrlhf_maxk.problems.sources.datasets.livebench import LiveBench, LiveBenchOptions
from openrlhf_maxk.problems.sources.datasets.livecodebench import LiveCodeBench, LiveCodeBenchOptions, release_shards
from openrlhf_maxk.problems.sources.source import Candidate, Rejected, SourceError
from openrlhf_maxk.problems.store import ProblemStore

from .accounts import adds_up, dropped, reason
from .conftest import Prepare
from .originals import (
    ADD,
    BEGUN,
    LIVEBENCH,
    SOLVED,
    STARTER,
    case,
    completion,
    leetcode,
    live_bench,
    live_code,
    packed,
    story,
    write_json_lines,
    write_parquet,
)
from .plain_runner import run_many


def live(row: dict[str, Any], **options: Any) -> Problem:
    return LiveCodeBench(LiveCodeBenchOptions(out="unused", **options)).convert(row, "test", None).problem  # type: ignore[arg-type]


def bench(row: dict[str, Any], **options: Any) -> Candidate:
    return LiveBench(LiveBenchOptions(out="unused", **options)).convert(row, "test", None)  # type: ignore[arg-type]


def test_a_problem_with_standard_input() -> None:
    p = live(live_code(4))
    assert (p.id, p.mode, p.public_tests) == ("livecodebench/abc404_a", Mode.STDIN, 1)
    assert p.statement == story(2004)
    assert p.tests == (Test("4 1\n", "5\n"), Test("4 2\n", "6\n"), Test("4 3\n", "7\n"))
    assert run_many([(ADD, p)])[0].all_passed


def test_a_problem_with_a_function() -> None:
    p = live(leetcode(4))
    assert (p.mode, p.entry_point, p.starter_code) == (Mode.FUNCTION, "Solution.add", STARTER)
    assert p.tests == (Test("[[1, 2], 4]", "7"), Test("[[5], 4]", "9"), Test("[[6], 4]", "10"))
    right, wrong = run_many([(SOLVED, p), (f"{STARTER}return 7", p)])
    assert right.all_passed
    assert wrong.fraction == pytest.approx(1 / 3)


def test_a_function_that_is_no_method() -> None:
    p = live(leetcode(4, starter_code="def add(nums, extra):\n    "))
    assert p.entry_point == "add"
    assert run_many([("def add(nums, extra):\n    return sum(nums) + extra", p)])[0].all_passed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"private_test_cases": json.dumps([case("1 1", "2")])}, ""),  # plain JSON, not packed
        ({"private_test_cases": [case("1 1", "2")]}, ""),  # as a list
        ({"private_test_cases": ""}, ""),
        ({"private_test_cases": None}, ""),
        ({"private_test_cases": "!!!"}, "bad_base64"),
        ({"private_test_cases": packed([case("1 1", "2")])[:40]}, "bad_zlib"),
        ({"private_test_cases": packed({"input": "1"})}, "wrong_type"),
        ({"private_test_cases": packed(["1"])}, "wrong_type"),
        ({"private_test_cases": packed([{"input": "1", "output": "2"}])}, "missing_field"),
        ({"private_test_cases": packed([case("1", "2", "interactive")])}, "unknown_test_type"),
        ({"private_test_cases": packed([case("1", "2", "functional")])}, "mixed_test_types"),
        ({"private_test_cases": packed([{"input": 1, "output": "2", "testtype": "stdin"}])}, "wrong_type"),
        ({"private_test_cases": packed([case("x" * (32 * 2**20), "2")])}, "absurd_size"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no_tests"),
        ({"public_test_cases": "[{"}, "invalid_json"),
        ({"public_test_cases": 4}, "wrong_type"),
        ({"question_id": ""}, "missing_field"),
        ({"question_content": "\n"}, "empty_statement"),
        ({"contest_date": "yesterday"}, "wrong_type"),
        ({"contest_date": None}, "missing_field"),
        ({"contest_date": " "}, "missing_field"),
        ({"contest_date": "2024-03-091"}, "wrong_type"),
        ({"contest_date": datetime(2024, 3, 9)}, ""),  # the older, complete data set has timestamps
        ({"metadata": "[]"}, "wrong_type"),
        ({"metadata": None}, ""),
        ({"question_id": "abc311_c"}, "errata"),
        ({"question_id": "abc337_e"}, "errata"),
        ({"question_id": "2991", "question_title": "Find Words Containing Character"}, "errata"),
    ],
)
def test_traps_of_live_rows(changes: dict[str, Any], expected: str) -> None:
    assert reason(lambda: live(live_code(1, **changes))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metadata": "{}"}, "no_function_name"),
        ({"metadata": json.dumps({"func_name": "os.system('true')"})}, "no_function_name"),
        ({"public_test_cases": json.dumps([case("[1, 2]\n{4", "3", "functional")])}, "bad_function_test"),
        ({"public_test_cases": json.dumps([case("[1, 2]\n4", "", "functional")])}, "bad_function_test"),
        ({"public_test_cases": json.dumps([case("1], [2", "3", "functional")])}, "bad_function_test"),
    ],
)
def test_traps_of_functions(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(Rejected) as rejected:
        live(leetcode(1, **changes))
    assert rejected.value.reason == expected


def test_packed_tests_are_bounded() -> None:
    row = live_code(1, private_test_cases=packed([case(str(i) * 10**5, "1") for i in range(30)]))
    with pytest.raises(Rejected, match="unpacks_too_large"):
        live(row, max_decoded_mb=2)
    assert len(live(row).tests) == 31


def test_errata_are_kept_on_demand() -> None:
    assert live(live_code(1, question_id="abc350_c"), errata="keep").id == "livecodebench/abc350_c"


@pytest.mark.parametrize(
    ("release", "shards"),
    [
        ("release_v1", ["test.jsonl"]),
        ("release_v2", ["test.jsonl", "test2.jsonl"]),
        ("release_v6", ["test.jsonl", *(f"test{i}.jsonl" for i in range(2, 7))]),
        ("v1", ["test.jsonl"]),
        ("v6", ["test6.jsonl"]),
        ("v4_v6", ["test4.jsonl", "test5.jsonl", "test6.jsonl"]),
    ],
)
def test_a_release_is_its_shards(release: str, shards: list[str]) -> None:
    assert release_shards(release) == shards


@pytest.mark.parametrize("release", ["6", "v7", "release_v0", "v5_v3", "release_v4_v6", ""])
def test_other_releases_are_refused(release: str) -> None:
    with pytest.raises(ValueError, match="release_v1 … release_v6"):
        LiveCodeBenchOptions(out="x", release=release)


def test_shards_on_disk_beside_a_loading_script(prepare: Prepare, tmp_path: Path) -> None:
    """The folder as it is on the hub: the script is never run, every shard is read, none is missed."""
    folder = tmp_path / "code_generation_lite"
    for number in range(1, 7):
        name = f"test{number if number > 1 else ''}.jsonl"
        write_json_lines(folder / name, [live_code(10 * number), leetcode(10 * number + 1)])
    (folder / "code_generation_lite.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    manifest = prepare("livecodebench", folder)
    assert adds_up(manifest)
    assert manifest["counts"]["kept"] == {"test": 12}
    assert [f["name"] for f in manifest["files"]] == release_shards("release_v6")
    manifest = prepare("livecodebench", folder, tmp_path / "v6", release="v6")
    assert list(ProblemStore(tmp_path / "v6")) == ["livecodebench/abc460_a", "livecodebench/3061"]
    assert not (tmp_path / "ran").exists()
    (folder / "test4.jsonl").unlink()
    with pytest.raises(SourceError, match=r"--release release_v6 needs test4.jsonl: fetch them too"):
        prepare("livecodebench", folder, tmp_path / "v4")


def test_dates_and_platforms(prepare: Prepare, tmp_path: Path) -> None:
    days = ["2023-05-01T00:00:00", "2024-08-01T12:00:00", "2025-01-31"]
    rows = [*(live_code(i, contest_date=day) for i, day in enumerate(days)), leetcode(9, contest_date=days[1])]
    source = write_json_lines(tmp_path / "test.jsonl", rows)
    manifest = prepare(
        "livecodebench", source, release="v1", date_from="2024-08-01", date_to="2025-01-30", platforms="atcoder"
    )
    assert adds_up(manifest)
    assert manifest["counts"]["dropped"] == {"other_date": 2, "other_platform": 1}
    with pytest.raises(ValueError, match="--date_from 1st of May: write a day as YYYY-MM-DD"):
        LiveCodeBenchOptions(out="x", date_from="1st of May")


def test_codeforces_problems_are_known_by_name() -> None:
    source = LiveCodeBench(LiveCodeBenchOptions(out="x"))
    assert source.names(live_code(1, platform="codeforces", question_id="1873_A")) == ("codeforces:1873/A",)
    assert source.names(live_code(1)) == ()


# LiveBench


def test_a_livebench_problem() -> None:
    candidate = bench(live_bench(2))
    p = candidate.problem
    assert (p.mode, p.entry_point, p.difficulty) == (Mode.FUNCTION, "Solution.add", "medium")
    assert p.statement == story(3002)  # not the instructions in ``turns``: they depend on the prompt template
    assert candidate.references == ()
    assert run_many([(SOLVED, p)])[0].all_passed


def test_a_begun_solution_is_completed_or_repeated() -> None:
    candidate = bench(completion(2))
    p, (solution,) = candidate.problem, candidate.references
    rest = completion(2)["remainder"]
    assert p.program_prefix == BEGUN
    whole, only_the_rest, other = run_many([(solution, p), (rest.lstrip("\n"), p), ("pass", p)])
    assert (whole.all_passed, only_the_rest.all_passed, other.all_passed) == (1, 1, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"partial_solution": None}, "missing_field"),
        ({"solution": "int main() {"}, ""),
        ({"task": "agentic_coding"}, "unknown_task"),
        ({"task": None}, "missing_field"),
        ({"original_json": None}, "missing_field"),
        ({"original_json": "{}"}, "missing_field"),
        ({"question_id": 5}, "wrong_type"),
    ],
)
def test_traps_of_livebench_rows(changes: dict[str, Any], expected: str) -> None:
    assert reason(lambda: bench(completion(1, **changes))) == expected


def test_a_solution_in_another_language_is_no_reference() -> None:
    assert bench(completion(1, solution="int main() {")).references == ()


def test_what_was_there_on_a_day(prepare: Prepare, tmp_path: Path) -> None:
    rows = [
        live_bench(1),
        live_bench(2, livebench_removal_date="2024-11-25"),
        live_bench(3, livebench_removal_date="2024-08-31"),
        completion(4, livebench_release_date=datetime(2024, 8, 31)),
        completion(5, livebench_release_date=datetime(2024, 11, 25)),
        live_bench(6, task="agentic_coding"),
    ]
    source = write_parquet(tmp_path / "test-00000-of-00001.parquet", rows, LIVEBENCH)
    manifest = prepare("livebench", source, release="2024-08-31")
    assert adds_up(manifest)
    assert {row: why for row, (why, _) in dropped(tmp_path / "out").items()} == {
        2: "other_release",
        4: "other_release",
        5: "unknown_task",
    }
    assert manifest["counts"]["validation"] == {"no_reference": 2, "passed": 1}
    only = prepare("livebench", source, tmp_path / "only", tasks="coding_completion")
    assert only["counts"]["kept"] == {"test": 2}
    with pytest.raises(ValueError, match="--tasks chess: known are LCB_generation, coding_completion"):
        LiveBenchOptions(out="x", tasks="LCB_generation,chess")
