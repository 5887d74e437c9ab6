"""reasoning-gym's tasks as problems."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from openrlhf_maxk.cli.prepare import main
from openrlhf_maxk.problems.sources.reading import reasoning_gym
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.scoring.answers import open_attempts

SIZES = ["--train_size", "6", "--test_size", "4"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--tasks: name one of reasoning-gym's tasks or several"),
        (["--tasks", "countdown", "--config", "{"], "--config is not JSON"),
        (["--tasks", "countdown", "--config", "[]"], "--config must be a JSON object"),
        (["--tasks", "countdown", "--config", '{"gcd": {}}'], "--config has settings of gcd, which --tasks does not"),
        (["--tasks", "gcd", "--config", '{"gcd": {"size": 3}}'], "--config sets size: --seed, --train_size and"),
        (["--tasks", "gcd", "--shots", "-1"], "--shots must be at least 0, not -1"),
        (["--tasks", "gcd", "--shots", "2", "--prompt", "plain"], "--shots are turns of a chat: use --prompt chat"),
    ],
)
def test_wrong_options_stop_at_once(tmp_path: Path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        main(["reasoning_gym", "--out", str(tmp_path / "out"), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_one_clear_line(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(reasoning_gym, "PACKAGE", "no-such-package")
    assert main(["reasoning_gym", "--out", str(tmp_path / "out"), "--tasks", "countdown"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "error: the package no-such-package is not installed: pip install no-such-package==0.1.25"


def test_tasks_become_problems_whose_answers_their_verifiers_accept(tmp_path: Path):
    pytest.importorskip("reasoning_gym")
    command = [
        "reasoning_gym",
        "--tasks",
        "countdown,word_ladder",
        *SIZES,
        "--config",
        '{"countdown": {"max_numbers": 4}}',
    ]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    assert main([*command, "--out", str(tmp_path / "two")]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {name: (tmp_path / "one" / name).read_bytes() for name in names} == {
        name: (tmp_path / "two" / name).read_bytes() for name in names
    }
    store = ProblemStore(tmp_path / "one")
    rows = {
        split: [json.loads(line) for line in (tmp_path / "one" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "test")
    }
    assert {split: len(of_split) for split, of_split in rows.items()} == {"train": 6, "test": 4}
    assert "between <answer> and </answer>" in rows["train"][0]["input"][-1]["content"]
    assert len({problem.statement for problem in store.values()}) == 10
    with open_attempts(store.ways(), "sandbox", 1) as attempts:
        for problem in store.values():
            assert attempts.run(problem.tests[0].output, problem).fraction == 1.0
        countdown = next(problem for problem in store.values() if problem.difficulty == "countdown")
        partly = attempts.run("1", countdown)
    assert partly.tests[0].verdict is Verdict.WRONG
    assert 0 < partly.fraction < 1


def test_shots_are_earlier_turns_that_no_split_has(tmp_path: Path):
    pytest.importorskip("reasoning_gym")
    command = ["reasoning_gym", "--tasks", "word_sorting,gcd", *SIZES, "--shots", "2", "--system_prompt", "Be brief."]
    assert main([*command, "--out", str(tmp_path)]) == 0
    chats = [
        json.loads(line)["input"]
        for split in ("train", "test")
        for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()
    ]
    assert len(chats) == 10
    assert all([turn["role"] for turn in chat] == ["system", *["user", "assistant"] * 2, "user"] for chat in chats)
    asked = {chat[-1]["content"] for chat in chats}
    shown = {(chat[place]["content"], chat[place + 1]["content"]) for chat in chats for place in (1, 3)}
    assert len(asked) == 10
    assert len(shown) == 4  # two of each task, the same in each chat of that task
    assert not asked & {question for question, _ in shown}
    assert all("between <answer> and </answer>" in question for question, _ in shown)
    gcds = {answer for question, answer in shown if "Greatest Common Divisor" in question}
    assert gcds
    assert all(re.fullmatch(r"<answer>\d+</answer>", answer) for answer in gcds)


def test_shots_of_a_task_without_answers_are_refused(tmp_path: Path, capsys):
    pytest.importorskip("reasoning_gym")
    command = ["reasoning_gym", "--tasks", "rush_hour", *SIZES, "--shots", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "--shots: the task of this question gives no answer to show" in capsys.readouterr().err


def test_an_unknown_task_is_named(tmp_path: Path, capsys):
    pytest.importorskip("reasoning_gym")
    assert main(["reasoning_gym", "--out", str(tmp_path / "out"), "--tasks", "no_such_task"]) == 1
    assert "reasoning-gym has no task 'no_such_task'; it has ab, acre" in capsys.readouterr().err
