"""Which reward a run uses, what is asked of it, and what it answers: one group at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PROBLEMS, MATH = "problems", "math"  # sources that are this package's own
KINDS = ("continuous", "binary", MATH)
# What samples are chosen by, besides any number that a reward has among its logs.
PUBLIC_TESTS = "public_tests"  # the share of a problem's public tests passed, which is among the logs of problems
SCORES, KEYS = "scores", "keys"  # what a reward function says under these names


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """The reward of a run.

    ``source`` is ``("problems",)`` (programs are run on tests), ``("math",)`` (answers are compared with the label), a
    ``.py`` file with a ``reward_func``, URLs of services, or nothing. ``kind`` is for problems: the share of tests
    passed (continuous) or 1 for all of them, else 0 (binary). ``runner`` names what runs programs
    (:mod:`.execution.backends`). ``chosen_by`` is what of a completion must be told besides its reward: ``KEYS`` to
    vote on, what a sample is selected by, or nothing.
    """

    source: tuple[str, ...] = ()
    problems: str | None = None
    kind: str = KINDS[0]
    runner: str = "sandbox"
    format_reward: float = 0.0  # added for exactly one program, or boxed answer
    length_penalty: float = 0.0  # subtracted for every 1,000 characters of a completion
    chosen_by: str = ""


class BadLabel(ValueError):
    """A label that a reward can do nothing with: no problem has that id, no answer reads like that."""


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """The completions of one prompt.

    ``queries`` are prompt and completion as one text each, special tokens included: what OpenRLHF gives to a
    ``reward_func``. ``completions`` are the completions alone, without special tokens.
    """

    prompt: str
    label: str
    queries: tuple[str, ...]
    completions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reward:
    """The answer for one completion.

    ``reward`` is what training maximises, ``score`` what dynamic filtering looks at (the reward, unless the reward
    function says otherwise), ``logs`` are numbers to be averaged into the metrics. A ``reward`` of None says that the
    machinery failed: the completion is lost, which is never the same as a reward of 0. Where a strategy asks for it,
    ``selector`` is what the completion is selected by, and ``key`` its answer, equal for equal answers; a key of None
    says that it gives none, and has no vote.
    """

    reward: float | None
    score: float | None = None
    logs: Mapping[str, float] = field(default_factory=dict)
    selector: float | None = None
    key: str | None = None


Scorer = Callable[[RewardRequest], list[Reward]]
"""What answers a request: one reward for every completion, in order."""
