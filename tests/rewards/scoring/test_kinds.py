"""The kinds of rewards, their optional terms, and the options that choose them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from openrlhf_maxk.options.maxk import MaxKOptions
from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.request import BadLabel, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.scoring.code import reward_of
from openrlhf_maxk.rewards.scoring.extraction import fenced_programs
from openrlhf_maxk.rewards.scoring.scorers import make_scorer
from openrlhf_maxk.rewards.scoring.terms import with_terms

HALF = "```python\nprint(3)\n```"
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("kinds") / "store"
    tests = (Test("1 2", "3"), Test("2 2", "4"))
    write_problems(folder, [Problem("p", "", tests, limits=Limits(cpu_seconds=1.0))])
    return str(folder)


def group(*completions: str, label: str = "p") -> RewardRequest:
    return RewardRequest("", label, completions, completions)


@pytest.mark.parametrize(("kind", "rewards"), [("continuous", [1.0, 0.5, 0.0]), ("binary", [1.0, 0.0, 0.0])])
def test_the_papers_two_rewards(store, kind, rewards):
    scored = make_scorer(RewardSpec(("problems",), store, kind), 1)(group(RIGHT, HALF, "nothing"))
    assert [reward.reward for reward in scored] == [reward.score for reward in scored] == rewards
    assert [reward.logs.get("fraction") for reward in scored] == [1.0, 0.5, None]
    assert [reward.logs.get("all_passed") for reward in scored] == [1.0, 0.0, None]
    assert [reward.logs["no_program"] for reward in scored] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("binary", [False, True])
def test_what_could_not_be_run_has_no_reward_of_either_kind(binary):
    result = ProgramResult((TestResult(Verdict.PASSED), TestResult(Verdict.INFRASTRUCTURE_ERROR)))
    reward = reward_of(result, binary)
    assert reward.reward is reward.score is None
    assert reward.logs["tests_infrastructure_error"] == 0.5


def test_a_label_that_is_no_problem_is_an_error(store):
    with pytest.raises(BadLabel, match="label 'q' is not the id of a problem in"):
        make_scorer(RewardSpec(("problems",), store), 1)(group(RIGHT, label="q"))


def test_terms_are_added_and_logged_one_by_one(store):
    spec = RewardSpec(("problems",), store, format_reward=0.25, length_penalty=0.5)
    one, two, none = make_scorer(spec, 1)(group(RIGHT, HALF + "\n" + HALF, "x" * 2000))
    assert one.reward == pytest.approx(1.0 + 0.25 - 0.5 * len(RIGHT) / 1000)
    assert two.reward == pytest.approx(0.5 - 0.5 * (2 * len(HALF) + 1) / 1000)
    assert none.reward == pytest.approx(-1.0)
    assert [reward.score for reward in (one, two, none)] == [1.0, 0.5, 0.0], "filtering looks at the task alone"
    assert [reward.logs["task"] for reward in (one, two, none)] == [1.0, 0.5, 0.0]
    assert [reward.logs["format"] for reward in (one, two, none)] == [0.25, 0.0, 0.0]
    assert none.logs["length"] == -1.0


def test_a_term_that_is_off_is_not_logged():
    scorer = with_terms(lambda request: [Reward(1.0, 1.0)], RewardSpec(length_penalty=1.0), len)
    assert scorer(group("x" * 500)) == [Reward(0.5, 1.0, {"task": 1.0, "length": -0.5})]


def test_without_terms_the_scorer_is_as_it_was():
    def scorer(request: RewardRequest) -> list[Reward]:
        return []

    assert with_terms(scorer, RewardSpec(), len) is scorer


def test_terms_do_not_turn_a_lost_completion_into_a_reward():
    spec = RewardSpec(format_reward=1.0, length_penalty=1.0)
    scorer = with_terms(lambda request: [Reward(None, None, {"lost": 1.0})], spec, lambda completion: 1)
    assert scorer(group("x")) == [Reward(None, None, {"lost": 1.0})]


def test_boxed_answers_are_the_format_of_mathematics():
    pytest.importorskip("math_verify")
    scorer = make_scorer(RewardSpec(("math",), kind="math", format_reward=0.5), 1)
    scored = scorer(group(r"\boxed{2}", r"\boxed{1}\boxed{2}", "2", r"\boxed{3}", label="2"))
    assert [reward.reward for reward in scored] == [1.5, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("completion", "programs"),
    [
        (RIGHT, 1),
        (RIGHT + "\n" + HALF, 2),
        ("```\nprint(1)\n```", 1),
        ("```python\nprint(1)", 1),
        ("```text\n1\n```\n" + RIGHT, 1),
        ("```python\n\n```", 0),
        ("print(1)", 0),
        ("<think>" + HALF + "</think>" + RIGHT, 1),
        ("<think>" + HALF, 0),
        ("", 0),
    ],
)
def test_fenced_programs_are_counted(completion, programs):
    assert fenced_programs(completion) == programs


# options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reward": "fraction"}, "--maxk.reward fraction is not one of continuous, binary, math"),
        ({"runner": "docker"}, "--maxk.runner 'docker' runs no programs: choose sandbox, bubblewrap"),
        ({"format_reward": -1.0}, "--maxk.format_reward -1.0 must be a number from 0 on"),
        ({"format_reward": float("nan")}, "--maxk.format_reward nan must be"),
        ({"length_penalty": float("inf")}, "--maxk.length_penalty inf must be"),
    ],
)
def test_a_bad_option_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MaxKOptions.make(**values)


@pytest.fixture(scope="module")
def parser():
    pytest.importorskip("openrlhf")
    from openrlhf_maxk.options.maxk import add_arguments
    from openrlhf_maxk.upstream.command_line import upstream_parser

    parser = upstream_parser()
    add_arguments(parser)
    return parser


def wrong(parser, data: Path, **values: object) -> list[str]:
    """What validation says of the rewards of a run."""
    from openrlhf.utils.config import hierarchize

    from openrlhf_maxk.options.inputs import _rewards
    from openrlhf_maxk.options.maxk import options_of

    options = {"data.prompt_dataset": str(data), "data.label_key": "label"} | values
    argv = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    args = hierarchize(parser.parse_args(["--actor.model_name_or_path", "m", *argv]))
    return list(_rewards(args, options_of(args)))


@pytest.fixture
def data(tmp_path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"input": "?", "label": label}) + "\n" for label in ("1", "2/3")))
    return file


def test_mathematics_needs_no_problems(parser, data):
    pytest.importorskip("math_verify")
    assert wrong(parser, data, **{"maxk.reward": "math", "maxk.format_reward": 0.1}) == []


def test_gold_answers_that_cannot_be_read_are_named_before_training(parser, data):
    pytest.importorskip("math_verify")
    with data.open("a") as file:
        file.write(json.dumps({"input": "?", "label": "???"}) + "\n")
    (line,) = wrong(parser, data, **{"maxk.reward": "math"})
    assert line == f"data {data}, line 3: math-verify cannot read the gold answer '???'"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"maxk.reward": "math", "maxk.problems": "p"}, "--maxk.problems and --maxk.reward math all give rewards"),
        ({"maxk.reward": "math", "data.label_key": None}, "--data.label_key is missing: with --maxk.reward math"),
        ({"maxk.reward": "math", "maxk.runner": "http://a"}, "--maxk.reward math needs sandbox or bubblewrap"),
        ({"maxk.reward": "binary"}, "--maxk.reward binary changes nothing without --maxk.problems"),
        ({"maxk.runner": "bubblewrap"}, "--maxk.runner bubblewrap changes nothing without --maxk.problems"),
        ({"maxk.format_reward": 1}, "--maxk.format_reward changes nothing without --maxk.problems"),
        ({"maxk.length_penalty": 1}, "--maxk.length_penalty changes nothing without --maxk.problems"),
    ],
)
def test_options_that_do_not_go_together_are_refused(parser, data, values, message):
    pytest.importorskip("math_verify")
    given = {} if "maxk.reward" in values and values["maxk.reward"] == "math" else {"reward.remote_url": "http://a"}
    assert any(message in line for line in wrong(parser, data, **given, **values))
