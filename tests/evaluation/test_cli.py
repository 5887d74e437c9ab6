"""Both commands as a user types them, with completions made elsewhere and the real sandbox."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from openrlhf_maxk.cli import compare, evaluate
from openrlhf_maxk.evaluation.reports import paper
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    try:
        Executor(cores=1).close()
    except SandboxUnavailableError as error:
        pytest.skip(str(error))


def adder(p: int, source: str) -> Problem:
    tests = tuple(Test(f"{i} {p}\n", f"{i + p}\n") for i in range(4))
    return Problem(f"{source}/{p}", f"Add the numbers, and {p} <b>is</b> one.", tests, public_tests=1, source=source)


RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
CONSTANT = "```python\ninput()\nprint({})\n```"


@pytest.fixture
def folder(tmp_path):
    """Problems with a split, and the samples of two models."""
    problems = [adder(p, source) for source in ("codecontests", "mbpp") for p in (1, 2, 3)]
    write_problems(tmp_path / "problems", problems)
    with open(tmp_path / "problems" / "test.jsonl", "w") as file:
        for problem in problems:
            file.write(json.dumps({"input": problem.statement, "label": problem.id, "datasource": "x"}) + "\n")
    for name, solved in (("weak", ["codecontests/1"]), ("strong", ["mbpp/1", "mbpp/2", "codecontests/1"])):
        with open(tmp_path / f"{name}.jsonl", "w") as file:
            for problem in problems:
                for i in range(4):
                    text = RIGHT if problem.id in solved and i == 2 else CONSTANT.format(int(problem.id[-1]))
                    row = {"problem": problem.id, "completion": "I give up." if i == 3 else text}
                    if name == "strong":
                        row |= {"tokens": 5, "logprob": -1.0 - i}
                    file.write(json.dumps(row) + "\n")
    return tmp_path


def run_evaluate(folder, name, *more):
    arguments = ["--problems", str(folder / "problems"), "--completions", str(folder / f"{name}.jsonl")]
    return evaluate.main([*arguments, "--out", str(folder / f"out_{name}"), "--cores", "1", *more])


class Page(HTMLParser):
    """Collects what a page would fetch, and its text."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_from_completions_to_a_report(folder, capsys):
    assert run_evaluate(folder, "weak", "--split", "test") == 0
    out = capsys.readouterr().out
    assert "weak: 6 problems" in out
    assert re.search(r"max@4\s*│\s*0\.375", out)  # one problem solved, a quarter of the tests of the five others
    assert re.search(r"pass@4\s*│\s*0\.167", out)
    assert "saved in" in out
    assert out.index("health of 24 samples: 6 without a program or answer, 0 that do not compile, 0 that") < out.index(
        "max@4"
    )
    assert "without a program or answer, such as codecontests/1, sample 3: 'I give up.'" in out
    scores = load_scores(folder / "out_weak" / "latest" / "scores")
    assert scores.rewards.tolist()[:4] == [0.25, 0.25, 1.0, 0.0]
    assert scores.details.programs.tolist()[:4] == [0, 0, 1, -1]

    assert run_evaluate(folder, "strong") == 0
    command = [str(folder / "out_weak"), f"named={folder / 'out_strong'}", "--out", str(folder / "report"), "--paper"]
    assert compare.main(command) == 0
    assert "difference" in capsys.readouterr().out
    files = {path.name for path in (folder / "report").iterdir()}
    assert files == {"report.html", "tables.md", "tables.tex", "comparisons.csv", "curves.csv", "figures"}
    figures = {path.stem for path in (folder / "report" / "figures").iterdir()}
    sets = {f"{name}_{metric}" for name in ("codecontests", "mbpp") for metric in METRICS}
    assert figures == {"curves", "entropy", "solved"} | sets
    page = Page((folder / "report" / "report.html").read_text())
    assert page.open == []
    assert page.fetched
    assert all(value.startswith("data:image/png;base64,") for value in page.fetched)  # nothing is fetched
    text = "".join(page.words)
    assert "named: 2 problems" in text
    assert "weak: 0 problems" in text
    assert "paper: " in (folder / "report" / "tables.md").read_text()
    assert "print(sum(map(int, input().split())))" in text  # the program that only one found
    assert '"temperature": 1.0' in text


def test_samples_that_no_test_has_a_say_in_are_counted_again_from_what_is_kept(folder, capsys):
    """The second run executes nothing; asked for fewer samples, it counts fewer."""
    bad = {0: "```python\ndef f(:\n```", 1: "```python\nimport no_such_module\n```", 2: RIGHT, 3: "No."}
    with open(folder / "bad.jsonl", "w") as file:
        for name in ("codecontests/1", "mbpp/2"):
            for text in bad.values():
                file.write(json.dumps({"problem": name, "completion": text}) + "\n")
    for samples, counts in (
        (4, "8 samples: 2 without a program or answer, 2 that do not compile, 2"),
        (2, "4 samples: 0 w"),
    ):
        assert run_evaluate(folder, "bad", "--only-given", "--samples", str(samples)) == 0
        assert f"health of {counts}" in (out := capsys.readouterr().out)
        assert "SyntaxError: invalid syntax, in '```python\\ndef f(:" in out
        assert "ModuleNotFoundError: No module named 'no_such_module', in" in out


def test_the_prompt_is_shown_as_text_not_as_markup(folder):
    """The evaluation of a model records its prompts; a statement may hold anything."""
    run_evaluate(folder, "strong")
    run_evaluate(folder, "weak")
    for name in ("strong", "weak"):
        prompts = (folder / f"out_{name}" / "latest" / "prompts.jsonl").resolve()
        rows = [json.dumps({"problem": f"mbpp/{p}", "prompt": "<script>x</script>"}) + "\n" for p in (1, 2)]
        prompts.write_text("".join(rows))
    assert compare.main([str(folder / "out_weak"), str(folder / "out_strong"), "--out", str(folder / "report")]) == 0
    html = (folder / "report" / "report.html").read_text()
    assert "&lt;script&gt;x" in html
    assert "<script>x" not in html


def test_one_evaluation_alone_makes_a_report(folder):
    run_evaluate(folder, "strong")
    assert compare.main([str(folder / "out_strong"), "--out", str(folder / "report"), "--k", "1", "4"]) == 0
    assert "Differences from" not in (folder / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "train"], "has no split 'train'; there is test"),
        (["--samples", "9"], "some problem has only 4 completions"),
        (["--k", "8"], "k = 8 needs at least 8 samples"),
        (["--temperature", "-1"], "temperature must be"),
        (["--id-field", "nothing"], "line 1 has no field for the problem's id ('nothing')"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(folder, capsys, more, message):
    assert run_evaluate(folder, "weak", *more) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "out_weak").exists()


def test_options_that_do_not_go_together(folder, capsys):
    base = ["--problems", str(folder / "problems"), "--out", str(folder / "out")]
    for arguments, message in (
        ([], "one of --model and --completions"),
        (["--completions", "x", "--model", "y"], "goes with neither"),
        (["--model", "x", "--k", "128"], "--k 128 needs at least as many --samples, not 64"),
        (["--model", "x", "--samples", "0"], "not positive"),
        (["--model", "x", "--ids", "ids.txt"], "--ids goes with --completions"),
    ):
        with pytest.raises(SystemExit) as stop:
            evaluate.main([*base, *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems", "{}/none", "--model", "{}/none"], "no problem store at"),
        (["--problems", "{}/problems", "--model", "{}/none"], "there is no model at"),
        (["--problems", "{}/problems", "--model", "{}/problems"], "is not a Hugging Face model"),
        (["--problems", "{}/problems", "--completions", "{}/none.jsonl"], "No such file or directory: {}/none.jsonl"),
    ],
)
def test_missing_input(folder, capsys, arguments, message):
    arguments = [argument.replace("{}", str(folder)) for argument in arguments]
    assert evaluate.main([*arguments, "--out", str(folder / "out")]) == 1
    said = capsys.readouterr().err
    assert message.replace("{}", str(folder)) in said
    assert "is kept" not in said  # nothing was done
    assert not (folder / "out").exists()


def test_problems_without_completions_are_named_or_left_out_on_request(folder, capsys):
    lines = (folder / "weak.jsonl").read_text().splitlines(keepends=True)
    (folder / "weak.jsonl").write_text("".join(lines[:12]))
    assert run_evaluate(folder, "weak") == 1
    assert "has no completion of 3 of 6 problems, the first of them 'mbpp/1'" in capsys.readouterr().err
    assert run_evaluate(folder, "weak", "--only-given") == 0
    assert len(load_scores(folder / "out_weak" / "latest" / "scores")) == 3


def test_comparing_what_cannot_be_compared(folder, capsys):
    run_evaluate(folder, "weak")
    assert compare.main([str(folder / "out_weak"), str(folder / "out_weak"), "--out", str(folder / "r")]) == 1
    assert "two evaluations are called 'weak'" in capsys.readouterr().err
    assert compare.main([str(folder), "--out", str(folder / "r")]) == 1
    assert "is no evaluation" in capsys.readouterr().err
    assert compare.main([str(folder / "out_weak"), "--out", str(folder / "r"), "--k", "64"]) == 1
    assert "k = 64 needs that many samples" in capsys.readouterr().err
    assert not (folder / "r").exists()


def test_an_unfinished_evaluation_is_not_compared(folder, capsys):
    run_evaluate(folder, "weak")
    (folder / "out_weak" / "latest").unlink()
    assert compare.main([str(folder / "out_weak"), "--out", str(folder / "r")]) == 1
    assert "is finished: run it again to go on, or name" in capsys.readouterr().err


def test_lists_in_the_order_of_a_file_and_results_as_other_tools_write_them(folder, capsys):
    """Of the six problems two are in the file, which has no ids of its own."""
    (folder / "lists.jsonl").write_text(json.dumps([[RIGHT, "No."], [CONSTANT.format(1), RIGHT]]))
    (folder / "ids.txt").write_text("mbpp/3\ncodecontests/2\n")
    more = ["--only-given", "--results-for", "livecodebench", "evalplus", "--ids", str(folder / "ids.txt")]
    assert run_evaluate(folder, "lists", *more) == 0
    run = folder / "out_lists" / "latest"
    out = capsys.readouterr().out
    told = json.loads((run / "evalplus" / "eval_results.json").read_text())["eval"]
    statuses = {name: [row["base_status"] for row in rows] for name, rows in told.items()}
    assert statuses == {"codecontests/2": ["fail", "pass"], "Mbpp/3": ["pass", "fail"]}
    for name in ("livecodebench/codegeneration.json", "evalplus/eval_results.json"):
        assert f"for other tools: {(run / name).resolve()}" in out
    assert json.loads((run / "run.json").read_text())["about"]["ids"] == str(folder / "ids.txt")


def test_data_sets_that_the_paper_does_not_have_are_told(folder, capsys, monkeypatch):
    run_evaluate(folder, "weak")
    command = [str(folder / "out_weak"), "--out", str(folder / "r"), "--k", "1", "--paper"]
    assert compare.main(command) == 0
    assert "--paper" not in capsys.readouterr().err
    monkeypatch.setattr(paper, "DATA_SETS", ("LiveBench",))
    assert compare.main([*command[:2], str(folder / "r2"), *command[3:]]) == 0
    assert "--paper has nothing to show: the paper's data sets are LiveBench" in capsys.readouterr().err


def test_other_tests_under_the_same_ids_are_told(folder, capsys):
    run_evaluate(folder, "weak")
    changed = [replace(adder(p, name), public_tests=2) for name in ("codecontests", "mbpp") for p in (1, 2, 3)]
    write_problems(folder / "problems", changed)
    run_evaluate(folder, "strong")
    folders = [str(folder / "out_weak"), str(folder / "out_strong")]
    assert compare.main([*folders, "--out", str(folder / "r"), "--k", "1"]) == 0
    assert "differ in problems, tests or prompts" in capsys.readouterr().err
    assert compare.main([f"a={folders[1]}", f"b={folders[1]}", "--out", str(folder / "r2"), "--k", "1"]) == 0
    assert "differ in problems" not in capsys.readouterr().err


def test_verdicts_come_from_the_real_sandbox(folder):
    with open(folder / "weak.jsonl", "w") as file:
        for program in ("print(1/0)", "import sys\nsys.exit(0)", "print(sum(map(int, input().split())))"):
            file.write(json.dumps({"problem": "mbpp/1", "completion": f"```python\n{program}\n```"}) + "\n")
    assert run_evaluate(folder, "weak", "--only-given") == 0
    scores = load_scores(folder / "out_weak" / "latest" / "scores")
    assert scores.rewards.tolist() == [0.0, 0.0, 1.0]
    assert np.diff(scores.offsets).tolist() == [3]
    assert scores.details.verdicts.sum(axis=1).tolist() == [4, 4, 4]
    assert len(set(scores.details.behaviours.tolist())) == 3
