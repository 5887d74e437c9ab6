"""MBPP: every assert becomes a test that accepts what the assert accepts, or is rejected for the right reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.record import Comparison, Mode, Test
from openrlhf_maxk.problems.sources.datasets.mbpp import Mbpp, MbppOptions
from openrlhf_maxk.problems.sources.source import Candidate, Rejected
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import Verdict

from .accounts import adds_up, dropped
from .conftest import Prepare
from .mbpp_problems import CONVERTIBLE, FAILING, REJECTED, numbered, problem
from .originals import MBPP_FULL, MBPP_SANITIZED, write_json_lines, write_parquet
from .plain_runner import run_many, run_test


def convert(row: dict[str, Any], **options: Any) -> Candidate:
    return Mbpp(MbppOptions(out="unused", **options)).convert({"task_id": 11, **row}, "test", None)  # type: ignore[arg-type]


def test_every_convertible_problem_is_solved_by_its_reference() -> None:
    """And so it is by its reference as a function: the conversion changes the form only."""
    candidates = [convert(row) for row in CONVERTIBLE]
    natives = [convert(row, mode="asserts") for row in CONVERTIBLE]
    assert all(r.all_passed for r in run_many([(c.references[0], c.problem) for c in natives]))
    strict = run_many([(c.references[0], c.problem) for c in candidates])
    again = [c for c, result in zip(candidates, strict, strict=True) if not result.all_passed]
    assert all(c.lenient is not None for c in again), [c.problem.statement for c in again if c.lenient is None]
    lenient = run_many([(c.references[0], c.lenient) for c in again if c.lenient])
    failing = [c.problem.statement for c, result in zip(again, lenient, strict=True) if not result.all_passed]
    assert not failing
    assert len(again) <= 3  # values of another type than the asserts write: 27.0 for 27, 1 for True


@pytest.mark.parametrize(("reason", "row"), [(reason, row) for reason, rows in REJECTED.items() for row in rows])
def test_what_cannot_be_converted_is_rejected_with_the_reason(reason: str, row: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as rejected:
        convert(row)
    assert rejected.value.reason == reason


@pytest.mark.parametrize("row", CONVERTIBLE)
def test_a_wrong_program_fails(row: dict[str, Any]) -> None:
    candidate = convert(row)
    judged = candidate.lenient or candidate.problem
    for wrong in ("print('wrong')", "", "print([None, 'wrong', 7])", "print(1e300)"):
        assert run_test(wrong, judged, judged.tests[0]).verdict is Verdict.WRONG


def test_the_statement_says_what_to_read_and_print() -> None:
    row = problem(
        "Write a function to repeat a list.",
        "def repeat(items, times):\n    return items * times",
        "assert repeat(['a'], 2) == ['a', 'a']",
        "assert repeat([], 3) == []",
    )
    p = convert(row).problem
    assert p.statement == (
        "Write a function to repeat a list.\n\n"
        "Input\nEvery line holds one value, written as a Python literal.\n"
        "Line 1: items, a list of strings\nLine 2: times, an integer\n\n"
        "Output\nPrint the result as Python's print shows it: a list of strings.\n\n"
        "Example input\n['a']\n2\nExample output\n['a', 'a']"
    )
    assert p.tests == (Test("['a']\n2\n", "['a', 'a']\n"), Test("[]\n3\n", "[]\n"))
    assert (p.mode, p.public_tests, p.judge.comparison) == (Mode.STDIN, 1, Comparison.TOKENS)
    assert "Example" not in convert(row, examples=0).problem.statement
    assert convert(row, examples=9).problem.public_tests == 2


@pytest.mark.parametrize(
    ("test", "comparison"),
    [
        ("assert f(1) == 5", Comparison.TOKENS),
        ("assert f(1) == 'two  words'", Comparison.EXACT),
        ("assert f(1) == ['two  words']", Comparison.EXACT),
        ("assert f(1) == 0.5", Comparison.NUMERIC),
        ("assert f(1) == [0.5]", Comparison.CHECKER),
        ("assert f(1) == {1, 2}", Comparison.CHECKER),
        ("assert f(1) == {1: 2}", Comparison.TOKENS),
        ("assert f(1) == {1: 2, 3: 4}", Comparison.CHECKER),
        ("assert f(1) == [{1: 2, 3: 4}]", Comparison.CHECKER),
        ("assert set(f(1)) == {1}", Comparison.CHECKER),
        ("assert f(1) == (1, ['a'], None)", Comparison.TOKENS),
        ("assert math.isclose(f(1), 2, rel_tol=0.01)", Comparison.NUMERIC),
    ],
)
def test_the_cheapest_fair_comparison_is_chosen(test: str, comparison: Comparison) -> None:
    assert convert(problem("F.", "def f(x):\n    return x", test)).problem.judge.comparison is comparison


def test_tolerance_is_the_one_that_is_asked_for() -> None:
    tests = ("assert math.isclose(f(1.0), 2, rel_tol=0.25)", "assert abs(f(2.0) - 2) < 0.5")
    row = problem("F.", "def f(x):\n    return x", *tests)
    p = convert(row).problem
    assert (p.judge.tolerance, p.tests[0].output) == (0.5, "2.0\n")


def test_native_call_mode_keeps_the_asserts() -> None:
    """The setup of asserts runs after the solution, whose classes it may use; imports run before."""
    row = problem(
        "Length of a chain.",
        "class Link:\n    def __init__(self, next=None):\n        self.next = next\n"
        "def length(link):\n    return 0 if link is None else 1 + length(link.next)",
        "assert length(two) == 2",
        "assert length(Link()) == math.floor(1.5)",
        setup="two = Link()\r\ntwo.next = Link()",
    )
    candidate = convert(row | {"test_imports": ["import math"]}, mode="asserts")
    p = candidate.problem
    assert (p.mode, p.setup_code, p.public_tests) == (Mode.ASSERTS, "import math", 1)
    assert [t.input for t in p.tests] == [f"two = Link()\ntwo.next = Link()\n{test}" for test in row["test_list"]]
    assert p.statement == "Length of a chain."
    assert run_many([(candidate.references[0], p)])[0].all_passed


def test_every_original_form_of_the_files_gives_the_same_problems(prepare: Prepare, tmp_path: Path) -> None:
    """The hub's Parquet, the authors' JSON lines (all splits in one) and a folder saved by ``datasets``."""
    rows = numbered(CONVERTIBLE[:6], 508)  # the last three are of the validation split
    write_json_lines(tmp_path / "authors" / "mbpp.jsonl", rows)
    write_parquet(tmp_path / "hub" / "full" / "test-00000-of-00001.parquet", rows[:3], MBPP_FULL)
    write_parquet(tmp_path / "hub" / "full" / "train-00000-of-00001.parquet", rows[3:], MBPP_FULL)
    write_parquet(tmp_path / "hub" / "sanitized" / "test-00000-of-00001.parquet", [], MBPP_SANITIZED)
    datasets = pytest.importorskip("datasets")
    saved = datasets.DatasetDict(test=datasets.Dataset.from_list(rows[:3]), train=datasets.Dataset.from_list(rows[3:]))
    saved.save_to_disk(tmp_path / "saved")
    stores = {}
    for form in ("authors", "hub", "saved"):
        manifest = prepare("mbpp", tmp_path / form, tmp_path / "out" / form)
        assert adds_up(manifest)
        stores[form] = [(p.id, p.statement, p.tests, p.judge) for p in ProblemStore(tmp_path / "out" / form).values()]
        assert manifest["counts"]["rows_in"] == (6 if form == "authors" else 3)
    assert stores["authors"] == stores["hub"] == stores["saved"]
    assert [d[0] for d in dropped(tmp_path / "out" / "authors").values()] == ["other_split"] * 3


def test_the_sanitized_subset(prepare: Prepare, tmp_path: Path) -> None:
    rows = [
        {
            "source_file": "x",
            "task_id": r["task_id"],
            "prompt": r["text"],
            "code": r["code"],
            "test_list": r["test_list"],
        }
        | {"test_imports": r["test_setup_code"].splitlines()}
        for r in numbered(CONVERTIBLE)
    ]
    write_parquet(tmp_path / "hub" / "sanitized" / "test-00000-of-00001.parquet", rows, MBPP_SANITIZED)
    write_parquet(tmp_path / "hub" / "full" / "test-00000-of-00001.parquet", [], MBPP_FULL)
    (tmp_path / "authors").mkdir()
    (tmp_path / "authors" / "sanitized-mbpp.json").write_text(json.dumps(rows), encoding="utf-8")
    for form in ("hub", "authors"):
        manifest = prepare("mbpp", tmp_path / form, tmp_path / "out" / form, config="sanitized", validate=False)
        assert manifest["counts"]["kept"] == {"test": len(rows)}
    ids = [list(ProblemStore(tmp_path / "out" / form)) for form in ("hub", "authors")]
    assert ids[0] == ids[1] == [f"mbpp/sanitized/{11 + i}" for i in range(len(rows))]


def test_a_file_of_every_shape(prepare: Prepare, tmp_path: Path) -> None:
    """At least 97 % of converted problems pass their references; every other row is listed with its reason."""
    rejected = [(reason, row) for reason, rows in REJECTED.items() for row in rows]
    rows = numbered([*CONVERTIBLE, *(row for _, row in rejected), *FAILING])
    source = write_json_lines(tmp_path / "mbpp.jsonl", rows)
    manifest = prepare("mbpp", source)
    assert adds_up(manifest)
    first = len(CONVERTIBLE)
    expected = {first + i: reason for i, (reason, _) in enumerate(rejected)}
    expected |= {first + len(rejected) + i: "reference_fails" for i in range(len(FAILING))}
    assert {row: reason for row, (reason, _) in dropped(tmp_path / "out").items()} == expected
    assert manifest["counts"]["rows_out"] == len(CONVERTIBLE)
    solutions = {s.problem_id: s.program for s in ProblemStore(tmp_path / "out").solutions()}
    assert set(solutions) == set(ProblemStore(tmp_path / "out"))
    prompts = (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8")
    assert not any(program in prompts for program in solutions.values())
