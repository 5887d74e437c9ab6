"""CodeContests and CodeForces: what their pages warn of, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.record import Comparison, Mode, Problem
from openrlhf_maxk.problems.sources.datasets.codecontests import CodeContests, CodeContestsOptions
from openrlhf_maxk.problems.sources.datasets.codeforces import CodeForces, CodeForcesOptions
from openrlhf_maxk.problems.sources.reading.files import LocalFiles
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected
from openrlhf_maxk.problems.store import ProblemStore

from .accounts import adds_up, dropped, reason
from .conftest import Prepare
from .originals import (
    ADD,
    CODECONTESTS,
    CODEFORCES,
    contest,
    forces,
    pairs,
    story,
    write_generated_tests,
    write_parquet,
)


def convert(row: dict[str, Any], **options: Any) -> Candidate:
    return CodeContests(CodeContestsOptions(out="unused", **options)).convert(row, "train", None)  # type: ignore[arg-type]


def test_a_contest_problem() -> None:
    candidate = convert(contest(3))
    p = candidate.problem
    assert (p.id, p.mode, p.source, p.difficulty) == ("codecontests/p00003 Sum", Mode.STDIN, "codecontests", "UNKNOWN")
    assert p.statement == story(3)
    assert [t.input for t in p.tests] == [f"3 {k}\n" for k in (1, 3, 2, 4, 5, 6, 7)]  # public, private, generated
    assert p.public_tests == 1
    assert (p.limits.cpu_seconds, p.limits.memory_bytes) == (5.0, 512 * 2**20)
    assert p.judge.comparison is Comparison.NUMERIC
    assert candidate.references == (ADD,)  # neither C++ nor Python 2
    assert dict(p.provenance) == {"origin": "ATCODER", "split": "train", "rating": 0}


@pytest.mark.parametrize(
    ("difficulty", "options", "expected"),
    [
        (0, {}, ""),
        (3, {}, ""),
        (4, {}, "too_hard"),
        (7, {}, "too_hard"),  # Codeforces' letters are no harder than that, but of another scale
        (7, {"max_difficulty": 28}, ""),
        (0, {"unknown_difficulty": "drop"}, "unknown_difficulty"),
        (1, {"min_difficulty": 2}, "too_easy"),
        (3, {"max_difficulty": 2}, "too_hard"),
        (28, {"max_difficulty": 28}, ""),
        (29, {"max_difficulty": 40}, "wrong_type"),
        (True, {}, "wrong_type"),
        (None, {}, "wrong_type"),
        ("EASY", {}, ""),
        ("K", {}, "too_hard"),
        ("UNKNOWN_DIFFICULTY", {}, ""),
    ],
)
def test_difficulties(difficulty: Any, options: dict[str, Any], expected: str) -> None:
    assert reason(lambda: convert(contest(1, difficulty=difficulty), **options)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input_file": "in.txt"}, "file_io"),
        ({"output_file": "out.txt"}, "file_io"),
        ({"input_file": "stdin"}, ""),
        ({"name": " "}, "missing_field"),
        ({"name": None}, "missing_field"),
        ({"description": ""}, "empty_statement"),
        ({"description": None}, "missing_field"),
        ({"description": 7}, "wrong_type"),
        ({"description": "x" * 100_001}, "absurd_size"),
        ({"description": "lone \ud800"}, "not_unicode"),
        ({"public_tests": None, "private_tests": None, "generated_tests": None}, "no_tests"),
        ({"public_tests": {"input": ["1"], "output": []}}, "unequal_tests"),
        ({"public_tests": {"input": [1], "output": ["1"]}}, "wrong_type"),
        ({"public_tests": {"input": [None], "output": ["1"]}}, "missing_field"),
        ({"private_tests": 5}, "wrong_type"),
        ({"generated_tests": [{"input": "1 1", "output": "2"}]}, ""),
        ({"generated_tests": ["1 1"]}, "wrong_type"),
        ({"solutions": {"language": [3], "solution": []}}, "unequal_solutions"),
        ({"solutions": {"language": [3], "solution": [b"x"]}}, "wrong_type"),
        ({"solutions": None}, ""),
        ({"time_limit": None}, ""),
        ({"time_limit": {"seconds": None, "nanos": None}}, ""),
        ({"time_limit": {"seconds": "2", "nanos": 0}}, "wrong_type"),
        ({"time_limit": {"seconds": float("nan"), "nanos": 0}}, "wrong_type"),
        ({"time_limit": "soon"}, "invalid_json"),
        ({"memory_limit_bytes": "much"}, "wrong_type"),
        ({"private_tests": pairs(("1", "")), "public_tests": pairs(), "generated_tests": pairs()}, "empty_outputs"),
        ({"private_tests": pairs(("x" * (32 * 2**20 + 1), "1"))}, "absurd_size"),
        ({"private_tests": pairs(*((str(i), "1") for i in range(5001)))}, "absurd_size"),
    ],
)
def test_traps_of_contest_rows(changes: dict[str, Any], expected: str) -> None:
    assert reason(lambda: convert(contest(1, **changes))) == expected


def test_pictures_are_dropped_only_on_demand() -> None:
    row = contest(1, description="See <image> and add.")
    assert reason(lambda: convert(row)) == ""
    assert reason(lambda: convert(row, images="drop")) == "needs_image"


@pytest.mark.parametrize(
    ("seconds", "nanos", "memory", "cpu", "megabytes"),
    [
        (0, 0, 0, 12.0, 512),  # nothing stated: the default, scaled
        (1, 0, 64 * 2**20, 2.0, 512),
        (0, 200_000_000, 0, 1.0, 512),
        (60, 0, 2**30, 20.0, 2048),
        (-5, 0, -1, 1.0, 512),
        (2, 0, 2**50, 4.0, 8192),
    ],
)
def test_limits_are_scaled_for_python(seconds: int, nanos: int, memory: int, cpu: float, megabytes: int) -> None:
    row = contest(1, time_limit={"seconds": seconds, "nanos": nanos}, memory_limit_bytes=memory)
    limits = convert(row).problem.limits
    assert (limits.cpu_seconds, limits.memory_bytes) == (cpu, megabytes * 2**20)


def test_enough_output_is_allowed_for_the_tests() -> None:
    assert convert(contest(1)).problem.limits.output_bytes == 2**20
    large = contest(1, private_tests=pairs(("9 9", "1 " * 2**20)))
    assert convert(large).problem.limits.output_bytes == 2**22


def test_line_ends_and_repeated_tests() -> None:
    row = contest(
        1,
        description="One\r\ntwo\rthree",
        public_tests=pairs(("1 1\r\n", "2\r\n"), ("1 1\n", "2\n")),
        private_tests=pairs(("1 1\n", "3\n"), ("2 2\n", "4\n")),
        generated_tests=pairs(),
    )
    p = convert(row).problem
    assert p.statement == "One\ntwo\nthree"
    assert [(t.input, t.output) for t in p.tests] == [("1 1\n", "2\n"), ("2 2\n", "4\n")]
    assert p.public_tests == 1


def test_generated_tests_are_chosen_by_the_seed_alone() -> None:
    tests = [(f"{i} 1", str(i + 1)) for i in range(300)]
    row = contest(1, generated_tests=pairs(*tests))

    def chosen(**options: Any) -> set[str]:
        return {t.input for t in convert(row, **options).problem.tests} - {"1 1\n"}

    assert len(chosen(generated_tests=20)) == 20
    assert chosen(generated_tests=20) == chosen(generated_tests=20)
    assert chosen(generated_tests=20) != chosen(generated_tests=20, seed=1)
    assert len(chosen(generated_tests=-1)) == 300
    assert len(chosen(generated_tests=0)) == 0


@pytest.mark.parametrize(
    ("statement", "comparison"),
    [
        ("Print YES or NO. You can print each letter in any case (upper or lower).", Comparison.CASE_INSENSITIVE),
        ("The answer is case-insensitive.", Comparison.CASE_INSENSITIVE),
        ("In any case, print the sum.", Comparison.NUMERIC),
        ("Print the sum.", Comparison.NUMERIC),
    ],
)
def test_letters_of_any_case_where_the_statement_says_so(statement: str, comparison: Comparison) -> None:
    assert convert(contest(1, description=statement)).problem.judge.comparison is comparison


def test_a_random_split_of_what_is_left(prepare: Prepare, tmp_path: Path) -> None:
    rows = [contest(i) for i in range(40)]
    write_parquet(tmp_path / "cc" / "data" / "train-00000-of-00002.parquet", rows[:25], CODECONTESTS)
    write_parquet(tmp_path / "cc" / "data" / "train-00001-of-00002.parquet", rows[25:35], CODECONTESTS)
    write_parquet(tmp_path / "cc" / "data" / "valid-00000-of-00001.parquet", rows[35:38], CODECONTESTS)
    write_parquet(tmp_path / "cc" / "data" / "test-00000-of-00001.parquet", rows[38:], CODECONTESTS)

    def split(out: str, **options: Any) -> tuple[dict[str, Any], dict[str, set[str]]]:
        manifest = prepare("codecontests", tmp_path / "cc", tmp_path / out, validate=False, **options)
        assert adds_up(manifest)
        found: dict[str, set[str]] = {}
        for p in ProblemStore(tmp_path / out).values():
            found.setdefault(p.provenance["split"], set()).add(p.id)
        return manifest, found

    manifest, first = split("a", train_size=20, test_size=5)
    assert manifest["counts"]["kept"] == {"test": 5, "train": 20}
    assert manifest["counts"]["dropped"] == {"beyond_split_sizes": 15}
    assert manifest["warnings"] == ["reference solutions were not run (--no-validate)"]
    assert split("b", train_size=20, test_size=5, generated_tests=1)[1] == first
    assert split("c", train_size=20, test_size=5, seed=1)[1] != first
    manifest, scaled = split("d")  # 2,490 + 276 are not there
    assert {name: len(ids) for name, ids in scaled.items()} == {"test": 4, "train": 36}
    assert "2,490 + 276 problems were asked for, 40 are left" in manifest["warnings"][0]
    manifest, _ = split("e", train_size=0, test_size=3)
    assert manifest["counts"]["kept"] == {"test": 3, "train": 37}


def test_counts_by_source_and_difficulty(prepare: Prepare, tmp_path: Path) -> None:
    """Labels count without gaps, as the hub's do: ATCODER is 5, L is 18."""
    labels = [(5, 0), (5, 0), (3, 2), (2, 18), (6, 4), (9, 1)]
    rows = [contest(i, source=s, difficulty=d) for i, (s, d) in enumerate(labels)]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, CODECONTESTS)
    manifest = prepare("codecontests", source, validate=False)
    assert adds_up(manifest)
    kept = {"rows_in": 1, "rows_out": 1, "dropped": {}}
    hard = {"rows_in": 1, "rows_out": 0, "dropped": {"too_hard": 1}}
    assert manifest["counts"]["by_source_and_difficulty"] == {
        "?": {"EASY": kept},
        "AIZU": {"HARDER": hard},
        "ATCODER": {"UNKNOWN": {"rows_in": 2, "rows_out": 2, "dropped": {}}},
        "CODEFORCES": {"L": hard},
        "HACKEREARTH": {"MEDIUM": kept},
    }


def test_problems_that_share_a_name_both_stay(prepare: Prepare, tmp_path: Path) -> None:
    rows = [contest(1), contest(2, name="p00001 Sum"), contest(3, name="p00001 Sum")]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, CODECONTESTS)
    prepare("codecontests", source, train_size=2, test_size=1)
    assert list(ProblemStore(tmp_path / "out")) == [f"codecontests/p00001 Sum{tail}" for tail in ("", " (2)", " (3)")]


def test_references_that_fail_are_counted(prepare: Prepare, tmp_path: Path) -> None:
    wrong, slow_path = "print(1)", "a = input().split()\nprint(int(a[0]) + int(a[1]))"

    def solved_by(*programs: str) -> dict[str, Any]:
        return {"language": [3] * len(programs), "solution": list(programs)}

    rows = [
        contest(1),
        contest(2, solutions=solved_by(wrong)),
        contest(3, solutions=solved_by(ADD, slow_path, wrong)),
        contest(4, solutions=solved_by(ADD, wrong, wrong)),
        contest(5, solutions=solved_by()),
    ]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, CODECONTESTS)
    for rule, failing in (("any", [1]), ("majority", [1, 3]), ("all", [1, 2, 3])):
        manifest = prepare("codecontests", source, tmp_path / rule, reference_rule=rule, unreferenced="drop")
        assert adds_up(manifest)
        expected = dict.fromkeys(failing, "reference_fails") | {4: "no_reference"}
        assert {row: why for row, (why, _) in dropped(tmp_path / rule).items()} == expected
        assert manifest["counts"]["validation"] == {"passed": 4 - len(failing)}
    assert dropped(tmp_path / "all")[2][1] == "2 of 3 references pass; test 1 of 7: wrong"
    kept = {s.program for s in ProblemStore(tmp_path / "majority").solutions()}
    assert kept == {ADD, slow_path}  # only what passes is a reference


def test_options_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="--min_difficulty is above --max_difficulty"):
        CodeContestsOptions(out="x", min_difficulty=4)
    with pytest.raises(ValueError, match="--generated_tests -2 must be at least -1"):
        CodeContestsOptions(out="x", generated_tests=-2)


# CodeForces


def codeforces(row: dict[str, Any], folder: Path | None = None, **options: Any) -> Problem:
    side = LocalFiles(folder or Path("nowhere"))
    return CodeForces(CodeForcesOptions(out="unused", **options)).convert(row, "test", side).problem


def test_a_codeforces_problem() -> None:
    p = codeforces(forces(7))
    assert p.id == "codeforces/107/A"
    assert p.statement == (
        f"{story(1007)}\n\nInput\nOne line holds two integers.\n\nOutput\nPrint one integer.\n\n"
        "Examples\n\nInput\n7 1\nOutput\n8"
    )
    assert [(t.input, t.output) for t in p.tests] == [("7 1\n", "8\n"), ("7 2\n", "9\n"), ("7 3\n", "10\n")]
    assert (p.public_tests, p.limits.cpu_seconds, p.difficulty) == (1, 2.0, "800")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"official_tests_complete": False}, "no_complete_tests"),
        ({"official_tests": []}, "no_complete_tests"),
        ({"input_mode": "file"}, "file_io"),
        ({"interaction_format": "Ask me"}, "interactive"),
        ({"interaction_format": ""}, ""),
        ({"id": "A"}, "wrong_type"),
        ({"id": "../../etc/passwd"}, "wrong_type"),
        ({"description": None}, "missing_field"),
        ({"description": " "}, "empty_statement"),
        ({"examples": None}, ""),
        ({"examples": [{"input": "1"}]}, "missing_field"),
        ({"time_limit": float("inf")}, "wrong_type"),
        ({"rating": None}, ""),
        ({"rating": "high"}, "wrong_type"),
    ],
)
def test_traps_of_codeforces_rows(changes: dict[str, Any], expected: str) -> None:
    assert reason(lambda: codeforces(forces(1, **changes))) == expected


def test_incomplete_official_tests_are_replaced_by_generated_ones(tmp_path: Path) -> None:
    cut = forces(1, id="7/A", official_tests_complete=False, official_tests=[{"input": "1 2 3...", "output": "6"}])
    generated = [("7/B", "9 9", "18"), *(("7/A", f"7 {k}\r\n", f"{7 + k}\r\n") for k in range(100))]
    write_generated_tests(tmp_path, 7, generated)  # contest numbers are padded to four digits
    p = codeforces(cut, tmp_path)
    assert [t.input for t in p.tests] == ["1 1\n", *(f"7 {k}\n" for k in range(50))]
    assert len(codeforces(cut, tmp_path, generated_tests=0).tests) == 101
    whole = forces(1, id="7/A")
    assert len(codeforces(whole, tmp_path).tests) == 3
    assert len(codeforces(whole, tmp_path, tests="generated").tests) == 51
    assert len(codeforces(whole, tmp_path, tests="complete_and_generated").tests) == 53
    for row, tests in ((cut, "complete"), (forces(1, id="8/A"), "generated"), (forces(1, id="7/C"), "generated")):
        with pytest.raises(Rejected, match="no_complete_tests"):
            codeforces(row, tmp_path, tests=tests)


def test_checkers_are_kept_or_dropped() -> None:
    row = forces(1, generated_checker="print(1)")
    p = codeforces(row)
    assert (p.judge.comparison, p.judge.checker) == (Comparison.CHECKER, "print(1)")
    with pytest.raises(Rejected, match="needs_checker"):
        codeforces(row, checkers="drop")


@pytest.mark.parametrize(
    ("rating", "expected"),
    [(700, "too_easy"), (800, ""), (1500, ""), (1501, "too_hard"), (None, "unrated"), (0, "unrated")],
)
def test_ratings(rating: int | None, expected: str) -> None:
    assert reason(lambda: codeforces(forces(1, rating=rating), min_rating=800, max_rating=1500)) == expected


def test_groups_never_fail() -> None:
    source = CodeForces(CodeForcesOptions(out="x"))
    for rating, name in (
        (800.0, "800"),
        (None, "unrated"),
        (0, "unrated"),
        ("x", "?"),
        (True, "?"),
        (-1, "?"),
        (10**9, "?"),
    ):
        assert source.group({"rating": rating}) == Group("codeforces", name)


def test_the_verifiable_configuration_is_the_default(prepare: Prepare, tmp_path: Path) -> None:
    write_parquet(tmp_path / "cf" / "data" / "test-00000-of-00001.parquet", [forces(i) for i in range(4)], CODEFORCES)
    write_parquet(tmp_path / "cf" / "data" / "train-00000-of-00001.parquet", [forces(9)], CODEFORCES)
    write_parquet(tmp_path / "cf" / "verifiable" / "test-00000-of-00001.parquet", [forces(1), forces(2)], CODEFORCES)
    write_parquet(tmp_path / "cf" / "verifiable-prompts" / "test-00000-of-00001.parquet", [], CODEFORCES)
    write_generated_tests(tmp_path / "cf", 101, [("101/A", "1 1", "2")])
    for config, rows in (("verifiable", 2), ("default", 4)):
        manifest = prepare("codeforces", tmp_path / "cf", tmp_path / config, config=config)
        assert adds_up(manifest)
        assert manifest["counts"]["kept"] == {"test": rows}
        assert manifest["counts"]["validation"] == {"no_reference": rows}


def test_checkers_must_accept_the_expected_outputs(prepare: Prepare, tmp_path: Path) -> None:
    checker = "import sys\nprint(int(open(sys.argv[2]).read().split() == open(sys.argv[3]).read().split()))"
    rows = [
        forces(1, generated_checker=checker),
        forces(2, generated_checker="print(0)"),
        forces(3, generated_checker="1/0"),
    ]
    source = write_parquet(tmp_path / "test-00000-of-00001.parquet", rows, CODEFORCES)
    manifest = prepare("codeforces", source)
    assert adds_up(manifest)
    assert manifest["counts"]["validation"] == {"checker_accepts": 1}
    assert dropped(tmp_path / "out")[1] == ("checker_fails", "refuses the expected output of test 1")
    assert dropped(tmp_path / "out")[2][0] == "checker_fails"


def test_generated_tests_are_inputs_of_the_manifest(prepare: Prepare, tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "cf" / "test-00000-of-00001.parquet", [forces(1, official_tests_complete=False)], CODEFORCES
    )
    write_generated_tests(tmp_path / "cf", 101, [("101/A", "1 1", "2")])
    manifest = prepare("codeforces", tmp_path / "cf")
    assert list(manifest["side_files"]) == ["generated_tests/test_cases_0101.parquet"]
