"""What is asked of a reward, and what it answers: one group at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    machinery failed: the completion is lost, which is never the same as a reward of 0.
    """

    reward: float | None
    score: float | None = None
    logs: Mapping[str, float] = field(default_factory=dict)
