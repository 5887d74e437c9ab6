"""The data sets with the project's own executor: what is prepared can be run, in every mode, as in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.rewards.execution.executor import Executor

from .accounts import adds_up, dropped
from .mbpp_problems import CONVERTIBLE, FAILING, numbered
from .originals import (
    CODEFORCES,
    LIVEBENCH,
    SOLVED,
    STARTER,
    completion,
    forces,
    leetcode,
    live_code,
    write_json_lines,
    write_parquet,
)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(cores=2) as found:
        yield found


def prepare(executor: Executor, data_set: str, source: Path, out: Path, **options: Any) -> dict[str, Any]:
    source_type = SOURCES[data_set]
    given = {"tokenizer": "none", "token_limit": 0, "source": str(source), "out": str(out)}
    chosen = source_type.options_type(**(given | options))

    def run_many(stack: ExitStack) -> Any:
        return executor.run_many

    manifest = Preparation(source_type(chosen), chosen, run_many).run()
    assert adds_up(manifest)
    return manifest


@pytest.mark.parametrize(("mode", "leniently"), [("stdin", 2), ("asserts", 0)])
def test_mbpp_references_pass(executor: Executor, tmp_path: Path, mode: str, leniently: int) -> None:
    source = write_json_lines(tmp_path / "mbpp.jsonl", numbered([*CONVERTIBLE, *FAILING]))
    manifest = prepare(executor, "mbpp", source, tmp_path / "out", mode=mode)
    assert {row for row, _ in dropped(tmp_path / "out").items()} == {len(CONVERTIBLE), len(CONVERTIBLE) + 1}
    found = manifest["counts"]["validation"]
    assert found.get("passed_leniently", 0) == leniently
    assert found["passed"] == len(CONVERTIBLE) - leniently


def test_references_fail_with_one_wrong_token(executor: Executor, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "mbpp.jsonl", numbered(CONVERTIBLE))
    prepare(executor, "mbpp", source, tmp_path / "out")
    store = ProblemStore(tmp_path / "out")
    solutions = list(store.solutions())
    spoiled = [s.program.replace("print(_result)", 'print(_result, "wrong")') for s in solutions]
    results = executor.run_many([(p, store[s.problem_id]) for p, s in zip(spoiled, solutions, strict=True)])
    assert [r.fraction for r in results] == [0.0] * len(CONVERTIBLE)


def test_functions_of_live_benchmarks(executor: Executor, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "test.jsonl", [leetcode(3), live_code(4)])
    prepare(executor, "livecodebench", source, tmp_path / "lcb", release="v1")
    store = ProblemStore(tmp_path / "lcb")
    right, wrong, add = executor.run_many(
        [
            (SOLVED, store["livecodebench/3003"]),
            (f"{STARTER}return 6", store["livecodebench/3003"]),
            ("print(sum(map(int, input().split())))", store["livecodebench/abc404_a"]),
        ]
    )
    assert (right.all_passed, wrong.fraction, add.all_passed) == (1.0, pytest.approx(1 / 3), 1.0)


def test_begun_solutions_are_completed(executor: Executor, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "test.parquet", [completion(1)], LIVEBENCH)
    manifest = prepare(executor, "livebench", source, tmp_path / "lb")
    assert manifest["counts"]["validation"] == {"passed": 1}
    (problem,) = ProblemStore(tmp_path / "lb").values()
    rest = completion(1)["remainder"].lstrip("\n")
    assert executor.run(rest, problem).all_passed


def test_checkers_of_contests(executor: Executor, tmp_path: Path) -> None:
    """The sum may be printed with any sign; a checker that refuses the expected output goes."""
    checker = (
        "import sys\nwanted, given = (open(p).read().split() for p in sys.argv[2:4])\n"
        "print(int(len(given) == 1 and abs(int(given[0])) == abs(int(wanted[0]))))"
    )
    rows = [forces(1, generated_checker=checker), forces(2, generated_checker="print(0)")]
    source = write_parquet(tmp_path / "test.parquet", rows, CODEFORCES)
    manifest = prepare(executor, "codeforces", source, tmp_path / "cf")
    assert manifest["counts"]["validation"] == {"checker_accepts": 1}
    assert manifest["counts"]["dropped"] == {"checker_fails": 1}
    (problem,) = ProblemStore(tmp_path / "cf").values()
    negative, wrong = executor.run_many(
        [("print(-sum(map(int, input().split())))", problem), ("print(1 + sum(map(int, input().split())))", problem)]
    )
    assert (negative.all_passed, wrong.fraction) == (1.0, 0.0)
