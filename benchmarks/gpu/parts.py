"""What a part of the kit is: a function that gets a :class:`Bench` and yields records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learners import Learners


@dataclass(frozen=True, slots=True)
class Sizes:
    """The model and the batches of a run of the kit.

    Attributes:
        model: of ``Qwen2Config``.
        rows: completions of a PPO update; an optimizer step has half of them.
        n: completions in a group.
        cut_n: completions in a group that micro-batches cut.
        micro: completions in a micro-batch.
        prompt, shortest, longest: tokens of prompts, and of completions.
    """

    model: dict[str, int]
    rows: int
    n: int
    cut_n: int
    micro: int
    prompt: int
    shortest: int
    longest: int


REAL = Sizes(  # Qwen2.5-1.5B's shapes: 1,543,714,304 parameters
    {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    rows=256,
    n=8,
    cut_n=64,
    micro=8,
    prompt=256,
    shortest=128,
    longest=256,
)
TINY = Sizes(
    {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    rows=128,
    n=8,
    cut_n=64,
    micro=8,
    prompt=8,
    shortest=4,
    longest=8,
)


@dataclass(slots=True)
class Bench:
    """What parts work with.

    Attributes:
        device: "cuda" or "cpu".
        folder: for the random model, shared by the processes of a run.
        rounds: timed rounds of whatever is timed.
        learners: upstream's learner and ours; None for a part that has no engine.
    """

    device: str
    sizes: Sizes
    folder: Path
    rounds: int
    learners: Learners | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the table.

    Attributes:
        case: what was measured.
        figures: names and values; what is no single value is for the file alone.
        problem: why the figures are not what they must be; empty if they are.
    """

    case: str
    figures: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to measure.

    Attributes:
        name: for ``--parts``.
        run: yields records as it goes.
        zero: the ZeRO stage of the engine that it wants; None: it wants none. Parts that want the same one share it.
    """

    name: str
    run: Callable[[Bench], Iterator[Record]]
    zero: int | None = None


@dataclass(slots=True)
class Result:
    """What became of a part."""

    part: str
    records: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""  # the last line of what ended it

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, or a figure is not what it must be."""
        return bool(self.error) or any(record.problem for record in self.records)
