"""The ``--maxk.*`` options: their meaning, their defaults, and where a process finds them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from openrlhf_maxk.rewards.execution.backends import check_name
from openrlhf_maxk.rewards.request import KEYS, KINDS, MATH, PUBLIC_TESTS, SCORES, RewardSpec

ENVIRONMENT = "OPENRLHF_MAXK_OPTIONS"  # how install(**options) reaches every Ray worker


@dataclass(frozen=True, slots=True)
class KSchedule:
    """The k that is trained for, over the steps of a run: constant, or linear from ``first`` to ``last``.

    ``first`` None stands for half the group, n // 2.
    """

    first: int | None = None
    last: int | None = None

    @classmethod
    def parse(cls, text: str | int | None) -> KSchedule:
        """Read "8", "8:1" or None.

        Raises:
            ValueError: if it is none of these, or a k is below 1.
        """
        if text is None or text == "":
            return cls()
        parts = str(text).split(":")
        try:
            ks = [int(part) for part in parts]
        except ValueError:
            ks = []
        if not 1 <= len(ks) <= 2 or len(ks) != len(parts) or min(ks) < 1:
            raise ValueError(f"--maxk.k {text} must be a whole number from 1 on, or two with a colon, such as 8:1")
        return cls(ks[0], ks[-1])

    def smallest(self, n: int) -> int:
        """The smallest k of the run, for groups of n."""
        return min(self.at(0.0, n), self.at(1.0, n))

    def largest(self, n: int) -> int:
        """The largest k of the run, for groups of n."""
        return max(self.at(0.0, n), self.at(1.0, n))

    def at(self, progress: float, n: int) -> int:
        """k after the share ``progress`` in [0, 1] of the run, for groups of n."""
        if self.first is None or self.last is None:
            return max(n // 2, 1)
        return round(self.first + (self.last - self.first) * min(max(progress, 0.0), 1.0))

    def __str__(self) -> str:
        if self.first is None:
            return "n/2"
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"


def _option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


@dataclass(frozen=True, slots=True)
class MaxKOptions:
    """All options of this package for training, with OpenRLHF-style names ``--maxk.<field>``."""

    objective: str = _option(
        "offpolicy_bon", "what turns rewards into advantages: a name, or a .py file that registers one"
    )
    strategy: str = _option(
        "max",
        "offpolicy_bon: what k samples are worth: max, min, mean_of_best:q, median, quantile:p (0 is the worst), "
        "selected (the one with the highest --maxk.selector) or vote (the answer given most often)",
    )
    selector: str | None = _option(
        None,
        "--maxk.strategy selected: what the sample to keep is chosen by: public_tests (the default with "
        "--maxk.problems), scores of the reward function (its default), or the name of one of its extra_logs",
    )
    k: KSchedule = _option(
        KSchedule(), "train for the best of k: a number, or first:last for a linear schedule (default: n/2)"
    )
    k_beyond_n: str = _option(
        "refuse",
        "a --maxk.k above the group's n: refuse, or nearest: train for the largest k that a group has, n",
        choices=("refuse", "nearest"),
    )
    correction: str = _option(
        "exact", "offpolicy_bon: how π_θ moving away from μ is corrected", choices=("none", "first", "exact")
    )
    baseline: str = _option(
        "marginal", "offpolicy_bon: variance reduction", choices=("marginal", "leave_one_out", "none")
    )
    delta_clip: float = _option(1.0, "sequence-level ratios are clamped to 1 ± this (and kept positive)")
    behaviour: str = _option(
        "learner",
        "μ, the policy that ratios are taken to: the learner when the rollout was made, or vLLM's own log-probs",
        choices=("learner", "rollout"),
    )
    loss: str = _option(
        "sequence_clip",
        "sequence_clip: the clipped ratio of the whole completion times the advantage, as the paper's eq. 4; ppo: "
        "OpenRLHF's clipped token ratios; score: log π times ρ times the advantage, never clipped",
        choices=("ppo", "sequence_clip", "score"),
    )
    aggregate: str = _option(
        "constant",
        "what a sum over tokens is divided by: completions × --rollout.max_new_tokens (constant), or the number of "
        "tokens sampled (token)",
        choices=("constant", "token"),
    )
    min_ess: float = _option(
        0.3, "a group whose ratios have an effective sample size below this share of it is taken as on-policy"
    )
    rows: str = _option(
        "auto",
        "auto: the prompt of a group is computed once, where the model's first batch shows that this changes nothing; "
        "off: once a completion, as OpenRLHF does",
        choices=("auto", "off"),
    )
    problems: str | None = _option(
        None, "a folder of problems: rewards come from running programs against their tests, labels are problem ids"
    )
    reward: str = _option(
        KINDS[0],
        "continuous: the share of tests passed; binary: 1 for all tests, else 0; math: whether the answer equals the "
        "label, by math-verify",
        choices=KINDS,
    )
    format_reward: float = _option(0.0, "added to the reward of a completion with exactly one program or boxed answer")
    length_penalty: float = _option(0.0, "subtracted from the reward for every 1,000 characters of a completion")
    runner: str = _option(
        "sandbox", "what runs programs: sandbox, bubblewrap, or URLs of services that speak SandboxFusion's run_code"
    )
    reward_workers: int = _option(1, "processes that compute rewards, spread over the cluster's nodes")
    reward_cores: int = _option(0, "cores a reward worker may use for programs (default: its share of its node's)")
    reward_timeout: float = _option(600.0, "seconds without any reward coming back after which the run is ended")
    max_lost: float = _option(0.1, "end the run if more than this share of a step's completions is lost to failures")
    verbose: bool = _option(False, "show the logs of all actors")

    @classmethod
    def make(cls, **values: Any) -> MaxKOptions:
        """Options from plain values; ``k`` may be a number or text.

        Raises:
            ValueError: for an unknown option or a value out of range, saying which.
        """
        known = {f.name: f for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown option maxk.{name}; known: {', '.join(known)}")
            choices = known[name].metadata.get("choices")
            if choices and value not in choices:
                raise ValueError(f"--maxk.{name} {value} is not one of {', '.join(choices)}")
            default = known[name].default
            if isinstance(default, int | float) and not isinstance(default, bool):
                values[name] = _number(name, value, type(default))
        if not isinstance(values.get("k"), KSchedule):
            values["k"] = KSchedule.parse(values.get("k"))
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        from openrlhf_maxk.objectives import Strategy, get_objective

        get_objective(self.objective)
        try:
            Strategy.parse(self.strategy)
        except ValueError as error:
            raise ValueError(f"--maxk.strategy: {error}") from None
        if not self.delta_clip > 0:
            raise ValueError(f"--maxk.delta_clip {self.delta_clip} must be above 0 (inf for no clamping)")
        if not 0 <= self.min_ess <= 1:
            raise ValueError(f"--maxk.min_ess {self.min_ess} must be a share between 0 (never) and 1")
        if not 0 <= self.max_lost <= 1:
            raise ValueError(f"--maxk.max_lost {self.max_lost} must be a share between 0 and 1")
        if self.reward_workers < 1:
            raise ValueError(f"--maxk.reward_workers {self.reward_workers} must be at least 1")
        for name in ("format_reward", "length_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--maxk.{name} {getattr(self, name)} must be a number from 0 on")
        try:
            check_name(self.runner)
        except ValueError as error:
            raise ValueError(f"--maxk.runner {error}") from None
        if not self.reward_timeout > 0:
            raise ValueError(f"--maxk.reward_timeout {self.reward_timeout} must be above 0")

    def k_of(self, k: int, size: int) -> int:
        """The k that a group of ``size`` is trained for where ``k`` is asked; above its size if it cannot be."""
        return min(k, size) if self.k_beyond_n == "nearest" else k

    @property
    def chosen_by(self) -> str:
        """What the strategy chooses samples by, in the terms of :class:`RewardSpec`; empty where rewards are enough."""
        from openrlhf_maxk.objectives.strategy import Kind, Strategy

        kind = Strategy.parse(self.strategy).kind
        if kind is Kind.SELECTED:
            return self.selector or (PUBLIC_TESTS if self.problems else SCORES)
        return KEYS if kind is Kind.VOTE else ""

    def reward_spec(self, source: Sequence[str]) -> RewardSpec:
        """The reward of a run whose ``--reward.remote_url`` is ``source``."""
        return RewardSpec(
            source=(MATH,) if self.reward == MATH else tuple(source),
            problems=self.problems,
            kind=self.reward,
            runner=self.runner,
            format_reward=self.format_reward,
            length_penalty=self.length_penalty,
            chosen_by=self.chosen_by,
        )

    def to_json(self) -> str:
        """The options as JSON, for :data:`ENVIRONMENT`."""
        return json.dumps({**asdict(self), "k": None if self.k.first is None else str(self.k)})


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"--maxk.{name} {value!r} is not a number") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the ``--maxk.*`` options to OpenRLHF's parser."""
    group = parser.add_argument_group("max@k")
    for option in fields(MaxKOptions):
        name, default = f"--maxk.{option.name}", option.default
        text = option.metadata["help"]
        if isinstance(default, bool):
            group.add_argument(name, action="store_true", help=text)
        elif option.name == "objective":
            group.add_argument(name, default=default, help=f"{text} (default: {default}). {_objectives()}")
        elif option.name == "k":
            group.add_argument(name, type=str, default=None, help=text)
        else:
            kind = str if default is None else type(default)
            shown = "" if default is None or "default" in text else f" (default: {default})"
            group.add_argument(
                name, type=kind, default=default, choices=option.metadata.get("choices"), help=text + shown
            )


def _objectives() -> str:
    """What there is to choose from, with where it is from."""
    from openrlhf_maxk.objectives import get_objective, objective_names

    return "; ".join(f"{name}: {get_objective(name).summary.partition(': A_i')[0]}" for name in objective_names())


def options_of(args: Any) -> MaxKOptions:
    """The options of a run: from its parsed arguments, else from ``install(**options)``, else the defaults."""
    namespace = getattr(args, "maxk", None)
    if namespace is not None:
        return MaxKOptions.make(**{f.name: getattr(namespace, f.name) for f in fields(MaxKOptions)})
    return MaxKOptions.make(**json.loads(os.environ.get(ENVIRONMENT, "{}")))


def good_and_bad(args: Any) -> tuple[MaxKOptions, list[str]]:
    """As :func:`options_of` for parsed arguments: with the default where a value is bad, and a line for each."""
    good, bad = {}, []
    for option in fields(MaxKOptions):
        value = getattr(args.maxk, option.name)
        try:
            MaxKOptions.make(**{option.name: value})
        except ValueError as error:
            bad.append(str(error))
        else:
            good[option.name] = value
    return MaxKOptions.make(**good), bad
