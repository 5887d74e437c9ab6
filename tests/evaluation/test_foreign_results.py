"""Results written as evalplus and LiveCodeBench write theirs, from an evaluation with known verdicts."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from openrlhf_maxk.evaluation.pipeline import Plan, evaluate
from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
from openrlhf_maxk.evaluation.samples.records import Sampling
from openrlhf_maxk.evaluation.scoring import foreign_results
from openrlhf_maxk.evaluation.scoring.foreign_results import write_results
from openrlhf_maxk.problems.record import Mode, Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict

from .fakes import FakeRunner, extract

ENDINGS = {1: (), 2: (Verdict.WRONG,), 3: (Verdict.PASSED, Verdict.CPU_TIMEOUT), 4: (Verdict.PASSED, Verdict.CRASHED)}


class Runner(FakeRunner):
    """Program n ends as ``ENDINGS`` says, and passes the tests behind; program 9 cannot be run."""

    def _run(self, program: str, problem: Problem) -> ProgramResult:
        number = int(program.strip()[6:-1])
        if number == 9:
            return ProgramResult((TestResult(Verdict.INFRASTRUCTURE_ERROR),) * 3)
        ended = ENDINGS[number]
        verdicts = [*ended, *[Verdict.PASSED] * (3 - len(ended))]
        return ProgramResult(tuple(TestResult(verdict, detail=f"as {verdict}") for verdict in verdicts))

    @contextmanager
    def __call__(self):
        yield self


@pytest.fixture
def finished(tmp_path):
    """An evaluation of two problems, four samples each, one of which could not be run."""
    tests = tuple(Test(f"[{t}]", "0") for t in range(3))
    known = {"title": "Ours", "origin": "leetcode", "date": "2024-05-01"}
    write_problems(
        tmp_path / "problems",
        [
            Problem("livecodebench/20", "Twenty.", tests, Mode.FUNCTION, "f", source="livecodebench", provenance=known),
            Problem("humaneval/HumanEval/3", "Three.", tests, source="humaneval"),
        ],
    )
    rows = [("20", (1, 2, 3, 4)), ("HumanEval/3", (1, 9, 1, None))]
    with open(tmp_path / "s.jsonl", "w") as file:
        for name, numbers in rows:
            texts = ["I cannot." if n is None else f"Here:\n```python\nprint({n})\n```" for n in numbers]
            file.write(json.dumps({"task_id": name, "completions": texts}) + "\n")
    problems = load_problem_set(tmp_path / "problems")
    source = CompletionsFile.open(tmp_path / "s.jsonl", problems)
    plan = Plan("m", problems, dict.fromkeys(problems.ids, ""), source, Sampling(), 4, max_unscored=0.5)
    return evaluate(plan, tmp_path / "runs", Runner(), extract), problems


def test_as_evalplus(finished, monkeypatch):
    evaluation, problems = finished
    monkeypatch.setattr(foreign_results, "_TEXT_AT_ONCE", 10)  # each problem is read on its own
    (path,) = write_results(evaluation.run, problems, 4, ["evalplus"], extract)
    assert path == evaluation.run.path / "evalplus" / "eval_results.json"
    told = json.loads(path.read_text())
    assert list(told["eval"]) == ["livecodebench/20", "HumanEval/3"]
    first = told["eval"]["livecodebench/20"]
    assert [row["base_status"] for row in first] == ["pass", "fail", "timeout", "fail"]
    assert [row["base_fail_tests"] for row in first] == [[], [[0]], [[1]], [[1]]]
    assert first[1] == {
        "task_id": "livecodebench/20",
        "solution": "print(2)\n",
        "base_status": "fail",
        "plus_status": None,
        "base_fail_tests": [[0]],
        "plus_fail_tests": [],
    }
    second = told["eval"]["HumanEval/3"]
    assert [(row["solution"], row["base_status"]) for row in second] == [
        ("print(1)\n", "pass"),
        ("print(1)\n", "pass"),
        ("", "fail"),
    ]
    assert told["pass_at_k"] == {"base": {"pass@1": pytest.approx((1 / 4 + 2 / 3) / 2)}}
    assert set(told) == {"date", "hash", "eval", "pass_at_k"}


def test_as_live_code_bench(finished):
    evaluation, problems = finished
    paths = write_results(evaluation.run, problems, 4, ["livecodebench"], extract)
    names = ["codegeneration.json", "codegeneration_eval.json", "codegeneration_eval_all.json"]
    assert [path.name for path in paths] == names
    outputs, (metrics, results, metadata), everything = (json.loads(path.read_text()) for path in paths)
    assert [row["question_id"] for row in everything] == ["20", "humaneval/HumanEval/3"]
    assert outputs[0] == {
        "question_title": "Ours",
        "question_content": "Twenty.",
        "platform": "leetcode",
        "question_id": "20",
        "contest_id": "",
        "contest_date": "2024-05-01T00:00:00",
        "starter_code": "",
        "difficulty": "",
        "output_list": [f"Here:\n```python\nprint({n})\n```" for n in (1, 2, 3, 4)],
        "code_list": [f"print({n})\n" for n in (1, 2, 3, 4)],
    }
    assert results == {"0": [[True] * 3, [-2], [True, -3], [True, -4]], "1": [[True] * 3, [True] * 3, [-4]]}
    assert everything[0]["graded_list"] == [True, False, False, False]
    assert everything[0]["pass@1"] == 0.25
    assert everything[1]["graded_list"] == [True, True, False]
    assert everything[0] | outputs[0] == everything[0]
    assert metadata == [row["metadata"] for row in everything]
    wrong = {"error": "as wrong", "error_code": -2, "error_message": "Wrong Answer"}
    assert [json.loads(text) for text in metadata[0]][:2] == [{}, wrong]
    assert json.loads(metadata[1][2])["error"] == "no program"
    assert metrics["pass@1"] == pytest.approx((1 / 4 + 2 / 3) / 2)
    assert metrics["detail"] == {"pass@1": pytest.approx({"0": 1 / 4, "1": 2 / 3})}


@pytest.mark.parametrize(
    ("source", "known", "told"),
    [
        ("humaneval", "humaneval/HumanEval/3", "HumanEval/3"),
        ("humanevalplus", "humanevalplus/HumanEval/3", "HumanEval/3"),
        ("humaneval+", "humaneval+/3", "HumanEval/3"),
        ("mbppplus", "mbppplus/2", "Mbpp/2"),
        ("mine", "mine/2", "mine/2"),
    ],
)
def test_what_evalplus_calls_a_problem(source, known, told):
    assert foreign_results.evalplus_id(Problem(known, "", (Test(""),), source=source)) == told


@pytest.mark.parametrize("at_once", [1, 2**27])
def test_programs_that_go_on_from_a_prompt(tmp_path, monkeypatch, at_once):
    """However many problems are read at a time."""
    monkeypatch.setattr(foreign_results, "_TEXT_AT_ONCE", at_once)
    problems = [
        Problem("humaneval/0", "", (Test("", ""),) * 3, program_prefix="def f():", source="humaneval"),
        Problem("humaneval/1", "", (Test("", ""),) * 3, source="humaneval", provenance={"date": "2024-05"}),
    ]
    write_problems(tmp_path / "problems", problems)
    numbers = [3, 1, 2, 4, *[1] * 8]
    rows = [{"task_id": "0", "completion": f"print({n})"} for n in numbers]
    rows += [{"task_id": "1", "completion": "print(2)"}] * 5
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = load_problem_set(tmp_path / "problems")
    source = CompletionsFile.open(tmp_path / "s.jsonl", known)
    told = []

    def whole(completion, goes_on=False):
        told.append((completion, goes_on))
        return completion

    plan = Plan("m", known, dict.fromkeys(known.ids, ""), source, Sampling(), 12, max_unscored=0.5)
    evaluation = evaluate(plan, tmp_path / "runs", WallRunner(), whole)
    told.clear()
    tools = ["evalplus", "livecodebench", "evalplus"]
    paths = write_results(evaluation.run, known, 12, tools, whole)
    assert len(paths) == len(set(paths)) == 4
    assert ("print(3)", True) in told
    assert ("print(2)", False) in told
    found = json.loads(paths[0].read_text())
    assert [row["solution"] for row in found["eval"]["HumanEval/0"]] == [f"def f():\nprint({n})" for n in numbers]
    assert [row["base_status"] for row in found["eval"]["HumanEval/0"]][:4] == ["timeout", "pass", "fail", "fail"]
    assert set(found["pass_at_k"]["base"]) == {"pass@1"}, "one problem has five samples"
    _, metrics, everything = (json.loads(path.read_text()) for path in paths[1:])
    assert [row["contest_date"] for row in everything] == ["", "2024-05"]
    assert set(metrics[0]) == {"pass@1", "pass@5", "detail"}
    assert metrics[1]["0"][1][0] is True, "not 1"


class WallRunner(Runner):
    """Program 3 ends by its wall time."""

    def _run(self, program: str, problem: Problem) -> ProgramResult:
        found = super()._run(program, problem)
        ended = {Verdict.CPU_TIMEOUT: Verdict.WALL_TIMEOUT}
        return ProgramResult(tuple(TestResult(ended.get(test.verdict, test.verdict)) for test in found.tests))


def test_no_tool_no_file(finished):
    evaluation, problems = finished
    before = sorted(evaluation.run.path.iterdir())
    assert write_results(evaluation.run, problems, 4, [], extract) == []
    assert sorted(evaluation.run.path.iterdir()) == before
