"""Problems of one's own: the documented record, the formats that people have, and what is said about wrong rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrlhf_maxk.cli.prepare import main
from openrlhf_maxk.problems.record import Comparison, Mode, Problem
from openrlhf_maxk.problems.sources.conversion.checks import comparisons
from openrlhf_maxk.problems.sources.source import SourceError
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.judging.steps import StepKind, steps_of_asserts

from . import own_rows as rows
from .accounts import adds_up, dropped
from .conftest import Prepare
from .originals import write_json_lines

ADD = {
    "id": 1,
    "statement": rows.SUM_TEXT,
    "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "5 7\n", "output": "12\n"}],
    "references": [rows.SUM],
}
STDIN = [("1 2\n", "3\n"), ("5 7\n", "12\n")]
FUNCTION = [("[[1, 5, 2]]", "4"), ("[[4, 4]]", "0")]


def read(prepare: Prepare, tmp_path: Path, row: Mapping[str, Any], **options: Any) -> Problem:
    """The problem in a file of one row, its reference run."""
    manifest = prepare("jsonl", write_json_lines(tmp_path / "mine.jsonl", [row]), **options)
    assert adds_up(manifest)
    (problem,) = ProblemStore(tmp_path / "out").values()
    return problem


def pairs(problem: Problem) -> list[tuple[str, str]]:
    return [(test.input, test.output) for test in problem.tests]


def test_the_smallest_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "my_problems.jsonl"
    source.write_text('{"statement": "Print 3.", "tests": [{"input": "", "output": "3"}]}', encoding="utf-8")
    assert main(["jsonl", str(source), "--out", str(tmp_path / "out"), "--no-validate"]) == 0
    prompt = json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8"))
    assert "Print 3." in prompt["input"][0]["content"]
    assert prompt["label"].startswith("my_problems/")
    assert prompt["datasource"] == "my_problems"


def test_every_field_of_the_record(prepare: Prepare, tmp_path: Path) -> None:
    row = ADD | {
        "public_tests": 1,
        "time_limit": 3.5,
        "memory_limit_mb": 1024,
        "comparison": "exact",
        "split": "valid",
        "difficulty": 2,
    }
    problem = read(prepare, tmp_path, row)
    assert (problem.id, problem.mode, pairs(problem)) == ("mine/1", Mode.STDIN, STDIN)
    assert (problem.public_tests, problem.difficulty, problem.judge.comparison) == (1, "2", Comparison.EXACT)
    assert (problem.limits.cpu_seconds, problem.limits.memory_bytes) == (3.5, 2**30)
    assert (tmp_path / "out" / "valid.jsonl").is_file()


def test_a_checker_decides(prepare: Prepare, tmp_path: Path) -> None:
    checker = "import sys\nprint(int(open(sys.argv[3]).read().strip() in ('3', 'three', '12')))"
    problem = read(prepare, tmp_path, ADD | {"checker": checker})
    assert (problem.judge.comparison, problem.judge.checker) == (Comparison.CHECKER, checker)


def test_calls_and_asserts(prepare: Prepare, tmp_path: Path) -> None:
    tests = [{"input": [[1, 5, 2]], "output": 4}, {"input": [[4, 4]], "output": 0}]
    row = {"statement": "Find it.", "entry_point": "widest", "tests": tests, "references": rows.WIDEST}
    called = read(prepare, tmp_path, row)
    assert (called.mode, called.entry_point, pairs(called)) == (Mode.FUNCTION, "widest", FUNCTION)
    assert called.statement.endswith("The function is called widest.")
    row = {"statement": "Halve.", "tests": ["assert half(4) == 2"], "references": "def half(x): return x // 2"}
    asserted = read(prepare, tmp_path, row, out=tmp_path / "out", overwrite=True)
    assert (asserted.mode, pairs(asserted)) == (Mode.ASSERTS, [("assert half(4) == 2", "")])


def test_messages_are_the_prompt(prepare: Prepare, tmp_path: Path) -> None:
    row = {k: v for k, v in ADD.items() if k != "statement"} | {"messages": rows.CHAT}
    assert read(prepare, tmp_path, row).statement == rows.SUM_TEXT
    assert json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8"))["input"] == rows.CHAT


def test_columns_are_mapped(prepare: Prepare, tmp_path: Path) -> None:
    row = {"question": ADD["statement"], "info": {"cases": ADD["tests"]}, "answer": rows.SUM}
    problem = read(prepare, tmp_path, row, columns="statement=question, tests=info.cases,references=answer")
    assert (problem.statement, pairs(problem)) == (rows.SUM_TEXT, STDIN)


@pytest.mark.parametrize("kind", ["lines", "list", "list named lines", "lines named json", "gzip", "parquet"])
def test_kinds_of_files(prepare: Prepare, tmp_path: Path, kind: str) -> None:
    two = [ADD, ADD | {"id": 2}]
    lines = "\n\n".join(map(json.dumps, two)).encode()
    names = {"list": "a.json", "lines named json": "a.json", "gzip": "a.jsonl.gz", "parquet": "a.parquet"}
    path = tmp_path / names.get(kind, "a.jsonl")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(two), path)
    elif kind.startswith("list"):
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(two, indent=2).encode())
    else:
        path.write_bytes(gzip.compress(lines) if kind == "gzip" else lines)
    assert prepare("jsonl", path)["counts"]["kept"] == {"train": 2}
    assert ProblemStore(tmp_path / "out").ids() == ("a/1", "a/2")


def test_some_go_to_the_test_split(prepare: Prepare, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "mine.jsonl", [ADD | {"id": i} for i in range(6)])
    assert prepare("jsonl", source, test_size=2)["counts"]["kept"] == {"test": 2, "train": 4}


WIDEST_LINES = {"fn_name": "widest", "inputs": ["[1, 5, 2]", "[4, 4]"], "outputs": ["4", "0"]}
STDIN_CASES = [{"type": "stdin_stdout", "input": i, "output": o, "fn_name": None} for i, o in STDIN]
FUNCTIONAL = [
    {"input": "[1, 5, 2]", "output": "4", "testtype": "functional", "metadata": {"func_name": "widest"}},
    {"input": "[4, 4]", "output": "0", "testtype": "functional", "metadata": {"func_name": "widest"}},
]
FENCED = f"```python\n{rows.SUM}\n```"


@pytest.mark.parametrize(
    ("row", "mode", "tests", "name"),
    [
        (rows.verl(rows.PAIRS), Mode.STDIN, STDIN, "7"),
        (rows.verl(WIDEST_LINES), Mode.FUNCTION, FUNCTION, "7"),
        (rows.verl(FUNCTIONAL), Mode.FUNCTION, FUNCTION, "7"),
        (rows.apps(rows.PAIRS, [rows.SUM]), Mode.STDIN, STDIN, "12"),
        (rows.apps(rows.CALLS, [rows.WIDEST]), Mode.FUNCTION, FUNCTION, "12"),
        (rows.apps(rows.CALLS, [rows.METHOD]), Mode.FUNCTION, FUNCTION, "12"),
        (rows.apps(rows.PAIRS, [rows.SUM], **rows.TACO), Mode.STDIN, STDIN, "12"),
        (rows.deepcoder(STDIN_CASES, [FENCED]), Mode.STDIN, STDIN, ""),
        (rows.deepcoder(rows.CALLS, [rows.WIDEST]), Mode.FUNCTION, FUNCTION, ""),
        (rows.deepcoder(FUNCTIONAL, [], starter_code="class Solution:"), Mode.FUNCTION, FUNCTION, ""),
        (rows.open_r1(STDIN_CASES, FENCED), Mode.STDIN, STDIN, "vfc_3"),
    ],
)
def test_inputs_and_outputs(
    prepare: Prepare, tmp_path: Path, row: dict[str, Any], mode: Mode, tests: list[tuple[str, str]], name: str
) -> None:
    problem = read(prepare, tmp_path, row, split="train")
    assert (problem.mode, pairs(problem)) == (mode, tests)
    assert problem.id == f"mine/{name}" if name else problem.id.startswith("mine/")
    if mode is Mode.FUNCTION:
        method = "class Solution" in json.dumps(row)
        assert problem.entry_point == ("Solution.widest" if method else "widest")


def test_limits_of_taco(prepare: Prepare, tmp_path: Path) -> None:
    problem = read(prepare, tmp_path, rows.apps(rows.PAIRS, [rows.SUM], **rows.TACO))
    assert (problem.limits.cpu_seconds, problem.limits.memory_bytes) == (2.5, 2**30)


def test_references_say_what_a_list_of_one_is(prepare: Prepare, tmp_path: Path) -> None:
    """APPS wraps results in lists: ``[[4]]`` is 4 for one function and [4] for another."""
    listed = "def widest(nums):\n    return [max(nums) - min(nums)]\n"
    problem = read(prepare, tmp_path, rows.apps(rows.CALLS, [listed]))
    assert pairs(problem) == [("[[1, 5, 2]]", "[4]"), ("[[4, 4]]", "[0]")]


DOUBLED = [("[1, 2]", "[2, 4]"), ("[]", "[]"), ("[-3]", "[-6]")]


@pytest.mark.parametrize(
    ("row", "sources"),
    [
        (rows.HUMANEVAL, ["assert double([1, 2]) == [2, 4]", "assert double([]) == [], 'nothing'", ""]),
        (rows.HUMANEVAL_PLUS, [f"assert double({i}) == {o}" for i, o in DOUBLED]),
        (rows.MULTIPL_E, ["assert double([1, 2]) == [2, 4]", "assert double([]) == []"]),
        (rows.MBPP_PLUS, ["assert half(1) == 0.5", "assert half(4) == 2.0", "assert half(-6.0) == -3.0"]),
    ],
)  # fmt: skip
def test_checks_are_taken_apart(prepare: Prepare, tmp_path: Path, row: dict[str, Any], sources: list[str]) -> None:
    problem = read(prepare, tmp_path, row)
    found = [test.input for test in problem.tests]
    assert [text for text, wanted in zip(found, sources, strict=True) if wanted] == [s for s in sources if s]
    assert (problem.judge.comparison is Comparison.NUMERIC) == (row is rows.MBPP_PLUS)
    for text in found:
        assert any(step.kind is StepKind.VALUE for step in steps_of_asserts(text))


def test_expected_values_may_come_from_a_function(prepare: Prepare, tmp_path: Path) -> None:
    problem = read(prepare, tmp_path, rows.CROSSCHECKED)
    steps = steps_of_asserts(problem.tests[0].input)
    assert [step.kind for step in steps] == [StepKind.RUN, StepKind.EQUAL]
    assert "numpy" not in problem.tests[0].input


ALIKE = "class Any:\n    def __eq__(self, other): return True\n    __hash__ = None\n"
CHEATS = [
    f"{ALIKE}def double(*a): return Any()\nhalf = double",
    "import builtins\nbuiltins.exec = builtins.eval = lambda *a, **k: None\ndef double(*a): pass\nhalf = double",
    "import os\nos._exit(0)",
]


@pytest.mark.parametrize(
    "row", [rows.HUMANEVAL, rows.HUMANEVAL_PLUS, rows.CROSSCHECKED, rows.MULTIPL_E, rows.MBPP_PLUS]
)
def test_cheats_fail_and_the_right_program_passes(prepare: Prepare, tmp_path: Path, row: dict[str, Any]) -> None:
    problem = read(prepare, tmp_path, row)
    right = row["prompt"] + "    return [2 * x for x in xs]" if row is not rows.MBPP_PLUS else str(row["code"])
    with Executor(cores=1) as executor:
        results = executor.run_many([(program, problem) for program in (right, *CHEATS)])
    assert [result.fraction for result in results] == [1.0, 0.0, 0.0, 0.0]


def test_a_loop_that_cannot_be_unrolled_stays_whole() -> None:
    loop = "    for _ in range(3):\n        x = random.random()\n        assert candidate(x) == x\n"
    found = comparisons(f"def check(candidate):\n    import random\n{loop}", "same")
    (source,) = found.tests
    space: dict[str, Any] = {"same": lambda x: x}
    exec(source, space)
    with pytest.raises(AssertionError):
        exec(source, {"same": lambda x: x + 1})


def test_many_asserts_are_put_together(prepare: Prepare, tmp_path: Path) -> None:
    row = {"statement": "Same.", "tests": [f"assert same({i}) == {i}" for i in range(25)]}
    assert len(read(prepare, tmp_path, row, most_tests=10).tests) == 9
    assert len(read(prepare, tmp_path, row, most_tests=0, overwrite=True).tests) == 25


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"statement": "x", "test": []}, "unknown_format", "--columns tests=test"),
        ({"tests": ADD["tests"]}, "missing_field", "statement"),
        (ADD | {"tests": [{"input": "1"}]}, "missing_field", "tests[0].output"),
        (ADD | {"tests": [{"input": 1, "output": "2"}]}, "wrong_type", "tests[0].input: expected text, found int"),
        (ADD | {"tests": []}, "no_tests", "tests"),
        (ADD | {"tests": ["half(2)"]}, "not_an_assert", "tests[0]"),
        (ADD | {"entry_point": "f"}, "wrong_type", "tests[0].input: expected a list of arguments, found int"),
        (ADD | {"comparison": "fuzzy"}, "wrong_value", "comparison: 'fuzzy'; known are exact"),
        (ADD | {"public_tests": 3}, "wrong_value", "public_tests: 3 of 2 tests"),
        (ADD | {"time_limit": -1}, "wrong_value", "time_limit"),
        (ADD | {"split": "../x"}, "wrong_value", "split"),
        (rows.verl("42"), "not_code", "reward_model.ground_truth"),
        (rows.open_r1(STDIN_CASES, "", "javascript"), "not_python", "verification_info.language"),
        (rows.MULTIPL_E | {"language": "rs"}, "not_python", "only Python is run"),
        ({"task_id": "HumanEval/0", "base_input": [], "plus_input": []}, "unknown_format", "evalplus/humanevalplus"),
    ],
)
def test_wrong_rows(prepare: Prepare, tmp_path: Path, row: dict[str, Any], reason: str, detail: str) -> None:
    if row.get("entry_point") == "f":
        row = row | {"tests": [{"input": "1", "output": "2"}]}
    manifest = prepare("jsonl", write_json_lines(tmp_path / "mine.jsonl", [ADD, row]))
    found_reason, found_detail = dropped(tmp_path / "out")[1]
    assert found_reason == reason
    assert detail in found_detail
    assert any(w.startswith(f"mine.jsonl, line 2: {reason}") for w in manifest["warnings"])


def test_an_error_names_file_line_and_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text(
        '\n{"statement": "x", "tests": [{"input": "1", "output": 2}]}\n{"statement": \n', encoding="utf-8"
    )
    assert main(["jsonl", str(source), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "mine.jsonl, line 2: wrong_type: tests[0].output: expected text, found int\n" in error
    assert "mine.jsonl, line 3: invalid_json: " in error


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jsonl", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) == 1
    assert "there is no such file or folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["jsonl", "--out", str(tmp_path / "out")])
    assert "name a file: prepare jsonl my_problems.jsonl --out DIR" in capsys.readouterr().err


def test_a_wrong_reference_is_found(prepare: Prepare, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "mine.jsonl", [ADD | {"references": "print(0)"}])
    with pytest.raises(SourceError, match=r"mine.jsonl, line 1: reference_fails: 0 of 1 references pass; test 1 of 2"):
        prepare("jsonl", source)


def test_the_hub_is_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(self: Any, repo: str, **more: Any) -> None:
        asked.append(repo)
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    assert main(["hub", "someone/problems", "--out", str(tmp_path / "out")]) == 1
    assert asked == ["someone/problems"]
    assert "copy the original files here and name their folder with --source" in capsys.readouterr().err
