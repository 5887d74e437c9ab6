"""What samples are chosen by, besides their rewards: public tests, scores, other numbers, and answers to vote on."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.store import ProblemStore, write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.request import KEYS, PUBLIC_TESTS, SCORES, BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.code import key_of, reward_of
from openrlhf_maxk.rewards.scoring.math_answers import MathScorer, with_keys
from openrlhf_maxk.rewards.scoring.scorers import make_scorer, parse_answer
from openrlhf_maxk.rewards.scoring.selector import WithSelector, with_selector

LIMITS = Limits(cpu_seconds=1.0)
SUMS = (Test("1 2", "3"), Test("2 2", "4"), Test("0 5", "5"))
PROBLEMS = [
    Problem("sum", "", SUMS, limits=LIMITS, public_tests=1),
    Problem("hidden", "", SUMS, limits=LIMITS),
    Problem("lines", "", (Test("", "b\na"),), judge=Judge(Comparison.UNORDERED_LINES), limits=LIMITS),
    Problem("pair", "", (Test("[3]", "[3, 3]"), Test("[1]", "[1, 1]")), Mode.FUNCTION, "pair", limits=LIMITS),
    Problem("asserts", "", (Test("assert f(2) == 4"), Test("assert f(3) == 9")), Mode.ASSERTS, limits=LIMITS),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("choices") / "store"
    write_problems(folder, PROBLEMS)
    return str(folder)


def group(label: str, *programs: str) -> RewardRequest:
    completions = tuple(f"```python\n{program}\n```" if program else "none" for program in programs)
    return RewardRequest("", label, completions, completions)


def keys(store: str, label: str, *programs: str) -> list[str | None]:
    scorer = make_scorer(RewardSpec(("problems",), store, chosen_by=KEYS), 1)
    return [reward.key for reward in scorer(group(label, *programs))]


def partition(found: list[str | None]) -> list[int]:
    """Numbers of equal keys, -1 for none."""
    numbers: dict[str, int] = {}
    return [-1 if key is None else numbers.setdefault(key, len(numbers)) for key in found]


# Programs


@pytest.mark.parametrize(("kind", "rewards"), [("continuous", [1.0, 1 / 3, 2 / 3, 0.0]), ("binary", [1.0, 0, 0, 0])])
def test_programs_are_selected_by_public_tests_and_are_worth_all_of_them(store, kind, rewards):
    scorer = make_scorer(RewardSpec(("problems",), store, kind, length_penalty=0.001, chosen_by=PUBLIC_TESTS), 1)
    right, gamed = "print(sum(map(int, input().split())))", "print(3)"
    scored = scorer(group("sum", right, gamed, "a, b = map(int, input().split())\nprint(a + b if a != 1 else 0)", ""))
    assert [reward.selector for reward in scored] == [1.0, 1.0, 0.0, 0.0]
    assert [reward.reward for reward in scored] == pytest.approx(rewards, abs=0.001)
    assert [reward.logs["public_tests"] for reward in scored] == [1.0, 1.0, 0.0, 0.0]


def test_a_problem_without_public_tests_has_nothing_to_select_by(store):
    with pytest.raises(BadLabel, match="problem 'hidden' has no public tests to select by"):
        make_scorer(RewardSpec(("problems",), store, chosen_by=PUBLIC_TESTS), 1)(group("hidden", "print(3)"))
    assert ProblemStore(store).without_public_tests() == {"hidden", "lines", "pair", "asserts"}
    (reward,) = make_scorer(RewardSpec(("problems",), store), 1)(group("hidden", "print(3)"))
    assert "public_tests" not in reward.logs
    assert reward.selector is None


def test_programs_that_print_the_same_vote_for_the_same(store):
    same = ("print(sum(map(int, input().split())))", "a, b = input().split()\nprint(int(a) + int(b), '\\n')")
    wrong = ("print(7)", "print(' 7')", "print(8)", "print('7' + '0' * 300)", "print('7' + '0' * 301)")
    some, none = "assert input()[0] != '1'\nprint(7)", "import nothing"
    assert partition(keys(store, "sum", *same, *wrong, some, none, "")) == [0, 0, 1, 1, 2, 3, 4, 5, -1, -1]
    assert partition(keys(store, "lines", "print('a\\nb')", "print('b\\na')", "print('a')", "")) == [0, 0, 1, -1]


def test_functions_vote_by_what_they_return(store):
    programs = ("def pair(x): return [x, x]", "def pair(x): return (x, x)", "def pair(x): return [x]", "pair = 3")
    assert partition(keys(store, "pair", *programs, "def pair(x): print(x); return [x]")) == [0, 0, 1, -1, 1]
    programs = ("def f(x): return x * x", "def f(x): return x ** 2", "def f(x): return 4", "def f(x): return 2 * x")
    assert partition(keys(store, "asserts", *programs, "def f(x): return object()")) == [0, 0, 1, 2, 3]


def test_what_is_expected_has_no_part_in_a_key():
    one, two = TestResult(Verdict.PASSED, answer=b"1"), TestResult(Verdict.WRONG, answer=b"1")
    crashed, slow = TestResult(Verdict.CRASHED), TestResult(Verdict.CPU_TIMEOUT)
    assert key_of([one, crashed]) == key_of([two, crashed])
    assert len({key_of([one, one]), key_of([one, crashed]), key_of([crashed, one]), key_of([one, slow])}) == 4
    assert key_of([crashed, slow]) is None
    lost = reward_of(ProgramResult((TestResult(Verdict.INFRASTRUCTURE_ERROR), one)), public_tests=1)
    assert lost.reward is lost.key is lost.selector is None


# Mathematics


def test_equal_answers_are_votes_for_the_same():
    pytest.importorskip("math_verify")
    right = (r"\boxed{1/2}", "It is 0.5", r"\boxed{\frac{2}{4}}")
    three = (r"\boxed{3}", r"so \boxed{3.0}", r"\boxed{\frac{6}{2}}", "the answer is 3")
    others = (r"\boxed{\text{Monday}}", r"\boxed{(x+1)^2}", r"\boxed{x^2+2x+1}")
    none = ("I do not know", r"\boxed{}", "", r"\boxed{9^{9^{9^9}}}")
    completions = (*right, *three, *others, *none)
    request = RewardRequest("p", "1/2", completions, completions)
    scorer = make_scorer(RewardSpec(("math",), kind="math", chosen_by=KEYS), 2)
    scored = scorer(request)
    assert partition([reward.key for reward in scored]) == [0, 0, 0, 1, 1, 1, 1, 2, 3, 3, -1, -1, -1, -1]
    assert [reward.reward for reward in scored] == [1.0] * 3 + [0.0] * 11


class Verifier:
    """Compares by whole numbers; what the machinery fails on is given."""

    def __init__(self, failing: str) -> None:
        self.failing = failing

    def same(self, answer: str, others: list[str]) -> list[TestResult]:
        return [self._verdict(other, int(answer) == int(other)) for other in others]

    def readable(self, answers: list[str]) -> list[TestResult]:
        return [self._verdict(answer, answer != "?") if answer != "lost" else LOST for answer in answers]

    def _verdict(self, answer: str, passed: bool) -> TestResult:
        if answer == self.failing and passed is not True:
            return LOST
        return TestResult(Verdict.PASSED if passed else Verdict.WRONG)


LOST = TestResult(Verdict.INFRASTRUCTURE_ERROR)


def test_an_answer_that_could_not_be_compared_is_lost_and_no_vote_of_its_own():
    wrong = Reward(0.0, 0.0, {"answer_failed": 0.0})
    rewards = dict.fromkeys(("3", "03", "4", "5", "?", "lost"), wrong) | {
        "7": Reward(1.0, 1.0, {"answer_failed": 0.0}),
        "gone": Reward(None, None),
        "broken": Reward(0.0, 0.0, {"answer_failed": 1.0}),
    }
    found = with_keys(rewards, Verifier(failing="5"))
    assert {answer: reward.key for answer, reward in found.items()} == {
        "3": "03",
        "03": "03",
        "4": "4",
        "5": None,
        "?": None,
        "lost": None,
        "7": "",
        "gone": None,
        "broken": None,
    }
    assert [found[answer].reward for answer in ("5", "lost", "gone", "?", "broken")] == [None, None, None, 0.0, 0.0]


def test_keys_cost_nothing_where_nobody_votes(monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.setattr("openrlhf_maxk.rewards.scoring.math_answers.with_keys", lambda *_: pytest.fail("compared"))
    completions = (r"\boxed{2}", r"\boxed{3}")
    scored = MathScorer(RewardSpec(("math",), kind="math"), 1)(RewardRequest("p", "2", completions, completions))
    assert [reward.reward for reward in scored] == [1.0, 0.0]


# Reward functions


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_keys_of_a_reward_function(make):
    found = parse_answer({"rewards": [0, 1, 2], "keys": make([7, 3, 7])}, 3, KEYS)
    assert [reward.key for reward in found] == ["7", "3", "7"]


def test_keys_may_be_texts_and_none_says_that_there_is_no_answer():
    found = parse_answer({"rewards": [0] * 5, "keys": ["a", None, float("nan"), 4.0, True]}, 5, KEYS)
    assert [reward.key for reward in found] == ["a", None, None, "4", "1"]
    assert parse_answer([{"rewards": [1], "keys": ["x"]}, {"rewards": [0], "keys": "y"}], 2, KEYS)[1].key == "y"
    assert parse_answer({"rewards": [1], "keys": object()}, 1)[0].key is None, "nobody asks for them"


@pytest.mark.parametrize(
    ("answer", "chosen_by", "message"),
    [
        ({"rewards": [1, 2]}, KEYS, "--maxk.strategy vote goes by the 'keys' of the reward function, and it returned"),
        ({"rewards": [1, 2]}, SCORES, "--maxk.strategy selected goes by the 'scores' of the reward function, and it"),
        ({"rewards": [1, 2], "keys": [1]}, KEYS, "returned 1 keys for 2 completions"),
        ({"rewards": [1, 2], "keys": [[1], [2]]}, KEYS, "returned [1] among its keys, not a text or a whole number"),
        ({"rewards": [1, 2], "keys": [1, 0.5]}, KEYS, "returned 0.5 among its keys, not a text or a whole number"),
    ],
)
def test_what_is_missing_to_choose_by_is_said(answer, chosen_by, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_answer(answer, 2, chosen_by)


def test_scores_select_and_rewards_tell_what_passes(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "def reward_func(queries, prompts, labels):\n"
        "    return {'rewards': [0.0, 1.0, None], 'scores': [5.0, None, 2.0], 'extra_logs': {'judge': [1, 2, 3]}}\n"
    )
    request = RewardRequest("p", "", ("pa", "pb", "pc"), ("a", "b", "c"))
    by_scores = make_scorer(RewardSpec((str(file),), chosen_by=SCORES), 1)(request)
    assert [(r.reward, r.score, r.selector) for r in by_scores] == [
        (0.0, 0.0, 5.0),
        (None, 1.0, None),
        (None, None, 2.0),
    ]
    by_name = make_scorer(RewardSpec((str(file),), chosen_by="judge"), 1)(request)
    assert [(r.reward, r.score, r.selector) for r in by_name] == [(0.0, 5.0, 1.0), (1.0, None, 2.0), (None, 2.0, 3.0)]
    with pytest.raises(ValueError, match=r"--maxk\.selector jury: the reward has no number of that name .*\(judge\)"):
        make_scorer(RewardSpec((str(file),), chosen_by="jury"), 1)(request)


def test_without_a_selector_the_scorer_is_as_it_was():
    def scorer(request: RewardRequest) -> list[Reward]:
        return [Reward(None)]

    assert with_selector(scorer, RewardSpec()) is with_selector(scorer, RewardSpec(chosen_by=KEYS)) is scorer
    assert WithSelector(scorer, SCORES)(RewardRequest("", "", ("",), ("",))) == [Reward(None)], "lost, and no mistake"
