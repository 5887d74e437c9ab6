"""Refused because of how the samples will be used: the strategy, and what it chooses by."""

from __future__ import annotations

from openrlhf_maxk.objectives import Strategy
from openrlhf_maxk.objectives.strategy import Kind
from openrlhf_maxk.options.refusals.rule import ADD_IT, LEAVE_OUT, Rule, Run, is_offpolicy_bon
from openrlhf_maxk.rewards.request import MATH, PUBLIC_TESTS


def _is(run: Run, kind: Kind) -> bool:
    return Strategy.parse(run.maxk.strategy).kind is kind


def _selects_by_nothing(run: Run) -> bool:
    """A reward of this package's own has no number by the selector's name."""
    own = run.maxk.problems is not None or run.maxk.reward == MATH
    numbers = {
        PUBLIC_TESTS: run.maxk.problems is not None,
        "format": run.maxk.format_reward > 0,
        "length": run.maxk.length_penalty > 0,
    }
    return own and _is(run, Kind.SELECTED) and not numbers.get(run.maxk.chosen_by, False)


RULES = (
    Rule(
        "maxk.correction maxk.baseline maxk.strategy",
        "only offpolicy_bon and objectives of your own have that choice",
        LEAVE_OUT,
        when="with another --maxk.objective of this package than offpolicy_bon",
        holds=lambda run: not is_offpolicy_bon(run) and not run.maxk.objective.endswith(".py"),
    ),
    Rule(
        "maxk.strategy",
        "it goes by more than rewards, and nothing else is told there",
        "use --maxk.problems, --maxk.reward math (to vote) or a reward function",
        when="with --reward.model_name_or_path or --train.agent_func_path",
        holds=lambda run: bool(run.args.reward.model_name_or_path or run.args.train.agent_func_path),
        values="`selected` or `vote`",
        bad=lambda strategy: not Strategy.parse(strategy).by_rewards,
    ),
    Rule(
        "maxk.strategy",
        "there is nothing to select by",
        "use --maxk.selector public_tests (of problems), format or length (if that term is on), or a reward function",
        when="with --maxk.problems or --maxk.reward math and a --maxk.selector that they do not have",
        holds=_selects_by_nothing,
        values="`selected`",
        bad=lambda strategy: True,
    ),
    Rule(
        "maxk.selector",
        "nothing is selected",
        ADD_IT,
        when="without --maxk.strategy selected",
        holds=lambda run: not _is(run, Kind.SELECTED),
    ),
    Rule(
        "maxk.correction",
        "a vote has no first-order form",
        "use --maxk.correction exact or none",
        when="with --maxk.strategy vote",
        holds=lambda run: _is(run, Kind.VOTE),
        values="`first`",
        bad=lambda correction: correction == "first",
    ),
)
