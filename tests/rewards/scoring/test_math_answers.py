"""Answers in completions, compared with gold ones by math-verify in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from openrlhf_maxk.problems.verdict import TestResult, Verdict
from openrlhf_maxk.rewards.request import BadLabel, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring import math_answers
from openrlhf_maxk.rewards.scoring.math_answers import (
    LIMITS,
    LONGEST_TEXT,
    MathScorer,
    Verifier,
    boxed_answers,
    find_answer,
    reward_of,
    unreadable_in,
)

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def scorer() -> Iterator[MathScorer]:
    scorer = MathScorer(RewardSpec(("math",), kind="math"), 2)
    yield scorer
    scorer.close()


def rewards(scorer: MathScorer, gold: str, *completions: str) -> list[float | None]:
    request = RewardRequest("p", gold, tuple("p" + completion for completion in completions), completions)
    return [reward.reward for reward in scorer(request)]


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("42", r"so the answer is \boxed{42}.", r"\boxed{-42}"),
        ("42", "The answer is 42", "The answer is 43"),
        ("0.5", r"\boxed{\frac{1}{2}}", r"\boxed{\frac{2}{1}}"),
        (r"\frac{1}{2}", r"\boxed{0.5}", r"\boxed{0.51}"),
        (r"$\frac{\pi}{2}$", r"\boxed{\pi/2}", r"\boxed{\pi}"),
        (r"We get $x=3$, so \boxed{3}", r"\boxed{3}", r"\boxed{x}"),
        ("x^2+2x+1", r"\boxed{(x+1)^2}", r"\boxed{(x-1)^2}"),
        (r"\sqrt{8}", r"\boxed{2\sqrt{2}}", r"\boxed{2\sqrt{3}}"),
        (r"(3, \frac{\pi}{2})", r"\boxed{\left(3,\frac{\pi}{2}\right)}", r"\boxed{(\frac{\pi}{2}, 3)}"),
        ("1,000", r"\boxed{1000}", r"\boxed{1}"),
        (r"\text{Monday}", r"\boxed{\text{Monday}}", r"\boxed{\text{Tuesday}}"),
    ],
)
def test_equal_answers_are_right_and_others_are_not(scorer, gold, right, wrong):
    assert rewards(scorer, gold, right, wrong) == [1.0, 0.0]


def test_the_last_box_counts_and_a_list_of_guesses_does_not(scorer):
    assert rewards(
        scorer, "2", r"\boxed{1} no: \boxed{2}", r"\boxed{2} or \boxed{3}", r"\boxed{1, 2}", r"<think>\boxed{2}"
    ) == [1.0, 0.0, 0.0, 0.0]


def test_completions_without_an_answer_are_wrong_and_counted(scorer):
    request = RewardRequest("p", "2", ("p", "p ", "p<think>2"), ("", " ", "<think>2"))
    assert [(reward.reward, reward.logs["no_answer"]) for reward in scorer(request)] == [(0.0, 1.0)] * 3


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "100000!!!!",
        "{" * 3000,
        "\\frac{" * 3000 + "}" * 3000,
        "(" * 20000 + ")" * 20000,
        "1" * 100000,
        "__import__('os')._exit(0)",
        "\\" * 1001,
        "\x00",
    ],
)
@pytest.mark.slow
def test_an_answer_that_breaks_the_comparison_is_wrong_and_the_next_one_is_compared(scorer, answer):
    completions = rf"\boxed{{{answer}}}", r"\boxed{7}"
    assert rewards(scorer, "7", *completions) == [0.0, 1.0]


def test_an_answer_that_takes_for_ever_is_wrong_by_cpu_time_and_counted(scorer):
    completions = (r"\boxed{9^{9^{9^9}}}", r"\boxed{7}")
    hanging, quick = scorer(RewardRequest("p", "7", completions, completions))
    assert (hanging.reward, hanging.logs["answer_failed"]) == (0.0, 1.0)
    assert (quick.reward, quick.logs["answer_failed"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("test", "reward"),
    [
        (TestResult(Verdict.PASSED), 1.0),
        (TestResult(Verdict.WRONG), 0.0),
        (TestResult(Verdict.CPU_TIMEOUT), 0.0),
        (TestResult(Verdict.OUT_OF_MEMORY), 0.0),
        (TestResult(Verdict.CRASHED, detail="killed by SIGSEGV"), 0.0),
        (TestResult(Verdict.CRASHED, detail="killed by SIGKILL"), None),
        (TestResult(Verdict.WALL_TIMEOUT), None),
        (TestResult(Verdict.INFRASTRUCTURE_ERROR), None),
    ],
)
def test_only_what_the_answer_did_is_scored(test, reward):
    assert reward_of(test).reward == reward


@pytest.mark.parametrize("gold", ["", "  ", r"\frac{1", "???", "}{"])
def test_a_gold_answer_that_cannot_be_read_is_an_error(scorer, gold):
    with pytest.raises(BadLabel, match="math-verify cannot read the gold answer"):
        rewards(scorer, gold, r"\boxed{1}")


def test_gold_answers_of_data_are_checked_with_their_lines(tmp_path):
    file = tmp_path / "data.jsonl"
    records = [{"label": "1"}, {"label": r"\frac{1"}, {"other": 1}, {"label": 2}, {"label": "???"}, {"label": "???"}]
    file.write_text("\n".join([*map(json.dumps, records), "not JSON", "[]"]))
    assert unreadable_in([str(file)], "label", "sandbox") == [
        rf"data {file}, line 2: math-verify cannot read the gold answer '\\frac{{1'",
        f"data {file}, line 5: math-verify cannot read the gold answer '???'",
    ]


def test_without_math_verify_the_fix_is_said(monkeypatch):
    monkeypatch.setattr(math_answers, "MODULES", ("no_such_module",))
    with pytest.raises(ModuleNotFoundError, match=r"no_such_module.*pip install math-verify"):
        Verifier("sandbox", 1)


def test_a_library_that_does_not_work_is_an_error_and_no_reward(monkeypatch):
    monkeypatch.setattr(math_answers, "PROGRAM", "def equal(gold, answer): return True")
    with pytest.raises(RuntimeError, match="math-verify does not work in the sandbox"):
        Verifier("sandbox", 1)


@pytest.mark.parametrize(
    ("completion", "boxes"),
    [
        ("", []),
        (r"\boxed{1}", ["1"]),
        (r"\boxed {1} \fbox{2}", ["1", "2"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed{\boxed{1}}", [r"\boxed{1}"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed{1", []),
        (r"\boxed{1} \boxed{2", ["1"]),
        (r"{{}} } \boxed{1}", ["1"]),
        (r"\\boxed{1}", []),
        (r"\boxedfoo{1}", []),
        (r"<think>\boxed{1}</think>\boxed{2}", ["2"]),
        (r"<think>\boxed{1}", []),
    ],
)
def test_boxes_are_found(completion, boxes):
    assert boxed_answers(completion) == boxes


def test_finding_answers_takes_linear_time():
    assert boxed_answers(r"\boxed{" * 200_000) == []
    assert len(boxed_answers(r"\boxed{1}" * 200_000)) == 200_000
    assert len(boxed_answers(r"\boxed{" * 200_000 + "}" * 200_000)) == 1


def test_without_a_box_the_end_of_the_text_is_looked_at():
    assert find_answer("x" * 10**6 + " is 4 ") == ("x" * LONGEST_TEXT + " is 4 ")[-LONGEST_TEXT:].strip()
    assert find_answer("<think> 3 </think> 4") == "4"
    assert LIMITS.cpu_seconds < 10
