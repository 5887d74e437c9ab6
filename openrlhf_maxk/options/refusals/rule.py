"""The form of a refusal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from openrlhf_maxk.options.maxk import MaxKOptions
from openrlhf_maxk.upstream.command_line import upstream_parser

LEAVE_OUT = "leave it out"
ADD_IT = "add that option, or leave this one out"


@functools.cache
def defaults() -> dict[str, Any]:
    """The default of every option of a training run, OpenRLHF's and ours, by its name without the dashes."""
    upstream = {action.dest: action.default for action in upstream_parser()._actions if action.dest != "help"}
    return {**upstream, **{f"maxk.{option.name}": option.default for option in fields(MaxKOptions)}}


@dataclass(frozen=True, slots=True)
class Run:
    """The options of a run, as the conditions of refusals look at them.

    Attributes:
        args: nested, as OpenRLHF's ``hierarchize`` makes them.
        maxk: ours, checked.
        cpu: whether the run is on the CPU platform.
    """

    args: Any
    maxk: MaxKOptions
    cpu: bool

    def value(self, option: str) -> Any:
        """The value of an option, by its dotted name."""
        room, _, name = option.partition(".")
        if room == "maxk":
            return getattr(self.maxk, name)
        return functools.reduce(getattr, option.split("."), self.args)

    def is_set(self, option: str) -> bool:
        """Whether an option has another value than its default."""
        value, default = self.value(option), defaults()[option]
        return _plain(value) != _plain(default)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def kl_in_rewards(run: Run) -> bool:
    """Whether the KL to the base model is subtracted from the advantage of each token."""
    return run.args.algo.kl.init_coef > 0 and not run.args.algo.kl.use_loss


def is_offpolicy_bon(run: Run) -> bool:
    """Whether the objective has a correction, a baseline and a strategy to choose."""
    return run.maxk.objective == "offpolicy_bon"


def always(run: Run) -> bool:
    """No condition."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """Options that are refused for one reason.

    Attributes:
        options: their dotted names, with spaces between.
        why: the reason.
        instead: what to do.
        when: in words, what :attr:`holds` asks of the other options and the machine; it follows the option's name.
        holds: the condition.
        values: in words, which values :attr:`bad` is about.
        bad: which values of an option are refused; None: all but its default.
    """

    options: str
    why: str
    instead: str
    when: str = ""
    holds: Callable[[Run], bool] = always
    values: str = ""
    bad: Callable[[Any], bool] | None = None

    @property
    def names(self) -> list[str]:
        """The options."""
        return self.options.split()

    @property
    def is_final(self) -> bool:
        """Whether no run can give these options another value than their default."""
        return self.holds is always and self.bad is None

    def refused(self, run: Run) -> list[str]:
        """The options that a run may not have as it has them."""
        if not self.holds(run):
            return []
        return [name for name in self.names if (run.is_set(name) if self.bad is None else self.bad(run.value(name)))]

    def lines(self, run: Run) -> Iterator[str]:
        """One line for each of them."""
        for name in self.refused(run):
            value = run.value(name)
            shown = "" if value is True else f" {' '.join(map(str, value)) if isinstance(value, list) else value}"
            yield f"--{name}{shown}{' ' * bool(self.when)}{self.when}: {self.why}; {self.instead}"
