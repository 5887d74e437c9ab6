"""What is asked of a model, and what it answers: the records of the generation stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are sampled. The defaults are the paper's (section 4.4)."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature must be between 0 and 100, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top-k must be 0 (all tokens) or more, not {self.top_k}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max-new-tokens must be at least 1, not {self.max_new_tokens}")


@dataclass(frozen=True, slots=True)
class Request:
    """``count`` samples of one problem, numbered from ``first``. Sample number i is drawn with ``seed_of(...) + i``."""

    problem: str  # id
    prompt: str
    first: int
    count: int
    seed: int  # of the first of these samples; the next ones follow by 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of one problem."""

    problem: str
    index: int  # within the problem
    completion: str
    finish: str = "stop"  # or "length"; as the sampler says
    tokens: int = -1  # generated; -1 if not known
    logprob: float | None = None  # of the completion under the sampling distribution, in nats

    def record(self) -> dict[str, Any]:
        """As a record of the sample log."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Sample:
        """The reverse of :meth:`record`."""
        return cls(**record)


class Sampler(Protocol):
    """Where samples come from."""

    def identity(self) -> Mapping[str, Any]:
        """What decides the samples besides prompts and :class:`Sampling`: it becomes part of the run's key."""
        ...

    def available(self, problem: str) -> int | None:
        """How many samples of a problem there are at most; None if any number can be had."""
        ...

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """Answer requests, in any order and any portions. What a sampler cannot answer it leaves out.

        An empty portion says that preparations are over and the work begins.
        """
        ...


def seed_of(seed: int, problem: str) -> int:
    """The seed of a problem's first sample, below 2**47: the same wherever and whenever it is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{problem}".encode()).digest()[:8], "big") >> 17


def missing_requests(
    prompts: Mapping[str, str], present: Mapping[str, set[int]], samples: Mapping[str, int], seed: int, per_request: int
) -> list[Request]:
    """What is still to be asked so that every problem has the samples 0 .. ``samples[problem]`` - 1."""
    requests = []
    for problem, prompt in prompts.items():
        base = seed_of(seed, problem)
        missing = [i for i in range(samples[problem]) if i not in present.get(problem, ())]
        for run in _runs(missing):
            for first in range(run.start, run.stop, per_request):
                count = min(per_request, run.stop - first)
                requests.append(Request(problem, prompt, first, count, base + first))
    return requests


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Consecutive numbers (ascending) as ranges."""
    start = previous = None
    for number in numbers:
        if previous is None or number != previous + 1:
            if start is not None and previous is not None:
                yield range(start, previous + 1)
            start = number
        previous = number
    if start is not None and previous is not None:
        yield range(start, previous + 1)
