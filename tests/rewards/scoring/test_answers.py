"""Problems with answers: found in completions, judged in the sandbox, and never lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, Test
from openrlhf_maxk.problems.store import ProblemStore, write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.request import KEYS, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring import answers
from openrlhf_maxk.rewards.scoring.answers import answer_to, check_ways, marked_answers, open_attempts
from openrlhf_maxk.rewards.scoring.scorers import make_scorer

MATHS = Problem("m", "", (Test("", "1/2"),), Mode.ANSWER, judge=Judge(Comparison.MATH))
FAKE = """
import os
__version__ = "0"
class Countdown:
    def score_answer(self, answer, entry):
        if answer == "raise":
            raise RuntimeError(answer)
        if answer == "exit":
            os._exit(0)
        return {entry["answer"]: 1, "close": 0.25, "much": 7}.get(answer, 0.0)
def create_dataset(task, **config):
    if task != "countdown" or config:
        raise ValueError(task)
    return Countdown()
"""


def graded(task: str = "countdown", name: str = "g") -> Problem:
    test = Test(json.dumps({"task": task, "config": {}, "entry": {"answer": "21", "metadata": {}}}), "21")
    return Problem(name, "", (test,), Mode.ANSWER, judge=Judge(Comparison.REASONING_GYM))


def request(label: str, *completions: str) -> RewardRequest:
    return RewardRequest("", label, completions, completions)


@pytest.fixture
def gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the interface of reasoning-gym."""
    package = tmp_path / "site" / "reasoning_gym"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)  # programs run as another user
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)  # the real one, where another test has imported it
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setitem(answers._MODULES, Comparison.REASONING_GYM, ("reasoning_gym",))


@pytest.mark.parametrize(
    ("source", "verdict", "worth"),
    [
        ("def f():\n    return 0.25", Verdict.WRONG, 0.25),
        ("def f():\n    return 1", Verdict.PASSED, 1.0),
        ("def f():\n    return 0", Verdict.WRONG, 0.0),
        ("def f():\n    return 1.5", Verdict.CRASHED, 0.0),
        ("def f():\n    return float('nan')", Verdict.CRASHED, 0.0),
        ("def f():\n    return True", Verdict.CRASHED, 0.0),
        ("import os\ndef f():\n    print(1)\n    os._exit(0)", Verdict.CRASHED, 0.0),
    ],
)
def test_a_function_may_return_its_score(source, verdict, worth):
    problem = Problem("s", "", (Test("[]", "1"),), Mode.FUNCTION, "f", judge=Judge(Comparison.SCORE))
    with Executor(cores=1) as executor:
        result = executor.run(source, problem)
    assert (result.tests[0].verdict, result.fraction) == (verdict, worth)


def test_the_score_of_a_program_is_the_mean_of_its_tests():
    result = ProgramResult((TestResult(Verdict.WRONG, score=0.5), TestResult(Verdict.PASSED)))
    assert (result.fraction, result.all_passed) == (0.75, 0.0)
    assert ProgramResult((TestResult(Verdict.INFRASTRUCTURE_ERROR, score=0.5),)).fraction is None


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("<answer>1</answer> no, <answer> 2\n3 </answer>.", ["1", "2\n3"]),
        (r"it is \boxed{4}", ["4"]),
        (r"\boxed{4} <answer>5</answer>", ["5"]),
        ("<answer>open", []),
        ("<answer> </answer>", []),
        ("7", []),
        ("<think><answer>1</answer></think>8", []),
    ],
)
def test_answers_stand_between_tags_or_in_boxes(completion, found):
    assert marked_answers(completion) == found
    assert answer_to(graded(), completion) == (found[-1] if found else None)


def test_math_problems_are_scored_and_equal_answers_have_one_signature(tmp_path):
    pytest.importorskip("math_verify")
    write_problems(tmp_path / "store", [MATHS])
    scorer = make_scorer(RewardSpec(("problems",), str(tmp_path / "store"), format_reward=0.125), 1)
    scored = scorer(request("m", r"\boxed{0.5}", r"\boxed{\frac24} \boxed{1/2}", r"\boxed{2}", ""))
    assert [reward.reward for reward in scored] == [1.125, 1.0, 0.125, 0.0]
    with open_attempts(ProblemStore(tmp_path / "store").ways(), "sandbox", 1) as attempts:
        half, same, other = (
            attempts.run(text, MATHS).tests[0] for text in (r"$\frac12$", r"$\frac{2}{4}$", r"\boxed{2}")
        )
    assert half.output == same.output != other.output
    assert half.answer == same.answer != other.answer
    assert (half.verdict, same.verdict, other.verdict) == (Verdict.PASSED, Verdict.PASSED, Verdict.WRONG)


def test_equal_answers_to_a_problem_are_votes_for_the_same(tmp_path):
    pytest.importorskip("math_verify")
    write_problems(tmp_path / "store", [MATHS])
    scorer = make_scorer(RewardSpec(("problems",), str(tmp_path / "store"), chosen_by=KEYS), 1)
    texts = ("1/2", "0.5", r"\frac{2}{4}", "3", "3.0", r"\frac{6}{2}", "4", r"\boxed{}", "")
    keys = [reward.key for reward in scorer(request("m", *(rf"\boxed{{{text}}}" for text in texts)))]
    scorer.close()
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] == keys[4] == keys[5]
    assert len({keys[0], keys[3], keys[6]}) == 3
    assert keys[7:] == [None, None]


@pytest.mark.usefixtures("gym")
def test_answers_to_a_verifier_are_votes_by_their_text(tmp_path):
    write_problems(tmp_path / "store", [graded()])
    scorer = make_scorer(RewardSpec(("problems",), str(tmp_path / "store"), chosen_by=KEYS), 1)
    scored = scorer(request("g", *(f"<answer>{text}</answer>" for text in ("2 + 1", " 2  + 1", "1 + 2", "")), ""))
    scorer.close()
    keys = [reward.key for reward in scored]
    assert keys[0] == keys[1] != keys[2]
    assert None not in keys[:3]
    assert keys[3:] == [None, None]


@pytest.mark.usefixtures("gym")
def test_the_scores_of_a_verifier_are_rewards(tmp_path):
    write_problems(tmp_path / "store", [graded()])
    wanted = {"21": 1.0, "close": 0.25, "other": 0.0, "much": 0.0, "raise": 0.0, "exit": 0.0}
    for kind, rewards in (("continuous", list(wanted.values())), ("binary", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])):
        scorer = make_scorer(RewardSpec(("problems",), str(tmp_path / "store"), kind), 1)
        scored = scorer(request("g", *(f"<answer>{answer}</answer>" for answer in wanted), "21"))
        assert [reward.reward for reward in scored] == [*rewards, 0.0]
        scorer.close()


@pytest.mark.usefixtures("gym")
def test_a_task_that_is_not_there_ends_the_run_and_is_no_reward():
    problem = graded("no_such_task")
    with (
        open_attempts({(Mode.ANSWER, Comparison.REASONING_GYM)}, "sandbox", 1) as attempts,
        pytest.raises(ValueError, match=r"problem 'g': reasoning-gym's task 'no_such_task' cannot be had here"),
    ):
        attempts.run("21", problem)


@pytest.mark.parametrize("failure", [Verdict.INFRASTRUCTURE_ERROR, Verdict.WALL_TIMEOUT])
def test_what_the_machinery_failed_to_judge_has_no_score(failure):
    for problem in (MATHS, graded()):
        assert answers._told(ProgramResult((TestResult(failure),)), problem, "1").fraction is None
    assert answers._told(ProgramResult((TestResult(Verdict.CPU_TIMEOUT),)), graded(), "1").fraction == 0.0


def test_what_is_missing_is_said_before_anything_starts(monkeypatch):
    ways = {(Mode.ANSWER, Comparison.REASONING_GYM)}
    monkeypatch.setattr(answers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"judged by reasoning_gym, .* pip install reasoning-gym==0\.1\.25"):
        check_ways(ways, "sandbox")
    monkeypatch.setattr(answers.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="answers need sandbox or bubblewrap"):
        check_ways(ways, "http://127.0.0.1:1")
    check_ways({(Mode.STDIN, Comparison.TOKENS)}, "http://127.0.0.1:1")


def test_an_answer_is_not_run_as_a_program():
    with Executor(cores=1) as executor, pytest.raises(ValueError, match="mode answer asks for an answer"):
        executor.submit("print(1)", MATHS)
