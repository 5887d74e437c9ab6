"""What is said of samples that no test has a say in: the same in training and in evaluation."""

from __future__ import annotations

import pytest

from openrlhf_maxk.problems.record import Mode, Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.request import RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.health import Ailment, Health, ailment_of, as_metrics
from openrlhf_maxk.rewards.scoring.scorers import make_scorer

CRASH, WRONG = TestResult(Verdict.CRASHED, detail="NameError: name 'x' is not defined"), TestResult(Verdict.WRONG)


@pytest.mark.parametrize(
    ("tests", "found"),
    [
        ([CRASH, CRASH], Ailment.CRASHED_AT_ONCE),
        ([CRASH, TestResult(Verdict.CRASHED, output=b"1")], None),
        ([CRASH, WRONG], None),
        ([TestResult(Verdict.PASSED), CRASH], None),
        ([TestResult(Verdict.CRASHED, detail="SyntaxError: invalid syntax")] * 2, Ailment.NOT_COMPILED),
        ([TestResult(Verdict.CRASHED, detail="IndentationError: expected an indented block")], Ailment.NOT_COMPILED),
        ([TestResult(Verdict.CPU_TIMEOUT)], None),
        ([TestResult(Verdict.INFRASTRUCTURE_ERROR)], None),
        ([], None),
    ],
)
def test_what_a_program_suffers_from(tests, found):
    assert ailment_of(ProgramResult(tuple(tests))) is found


COMPLETIONS = {
    "I give up.": Ailment.NO_PROGRAM,
    "```python\ndef f(:\n```": Ailment.NOT_COMPILED,
    "```python\nimport no_such_module\nprint(input())\n```": Ailment.CRASHED_AT_ONCE,
    "```python\nprint(input())\nraise ValueError\n```": None,
    "```python\nprint(input())\n```": None,
}


@pytest.mark.parametrize("mode", [Mode.STDIN, Mode.FUNCTION])
def test_training_counts_them_in_every_reward(tmp_path, mode):
    entry = {"entry_point": "f"} if mode is Mode.FUNCTION else {}
    tests = (Test("[1]", "1"), Test("[2]", "2"))
    write_problems(tmp_path / "store", [Problem("p", "", tests, mode, **entry)])
    request = RewardRequest("", "p", tuple(COMPLETIONS), tuple(COMPLETIONS))
    rewards = make_scorer(RewardSpec(("problems",), str(tmp_path / "store")), 1)(request)
    for reward, wanted in zip(rewards, COMPLETIONS.values(), strict=True):
        if mode is Mode.FUNCTION and wanted is None:
            wanted = Ailment.CRASHED_AT_ONCE  # the program defines no f
        assert {name: reward.logs[name] for name in map(str, Ailment)} == as_metrics(wanted)


def test_counts_and_an_example_of_what_is_frequent():
    health = Health()
    for number in range(40):
        health.add(
            Ailment.NOT_COMPILED if number < 2 else None, f"p, sample {number}", f"{number}" * 300, "SyntaxError"
        )
    health.add(Ailment.NO_PROGRAM, "q, sample 0", "no")
    first, *examples = health.lines()
    assert first.startswith("health of 41 samples: 1 without a program or answer, 2 that do not compile, 0 that crash")
    assert examples == []  # 2 of 41 are fewer than one in twenty
    health.add(Ailment.NOT_COMPILED, "r", "", "")
    (example,) = health.lines()[1:]
    assert "that do not compile, such as p, sample 0: SyntaxError, in '0000" in example
    assert len(example) < 300


def test_of_healthy_samples_one_line_is_said():
    health = Health()
    health.add(None, "p", "")
    assert len(health.lines()) == 1
    assert len(Health().lines()) == 1
