"""What both embedded benchmarks share: how many problems there are, and which split a combination belongs to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")

_BUCKETS = 10
_BUCKETS_OF = {"test": {0, 1}, "validation": {2}, "train": set(range(3, _BUCKETS))}


@dataclass(frozen=True, slots=True)
class ProblemSettings:
    """What the problems depend on."""

    seed: int = 0
    train: int = 2000
    validation: int = 96
    test: int = 256


def belongs_to(combination: str, split: str) -> bool:
    """Whether problems of this combination of words are for that split: fixed, and the same on every machine."""
    return bucket(combination, _BUCKETS) in _BUCKETS_OF[split]


def bucket(combination: str, buckets: int) -> int:
    """The part, of so many, that a combination belongs to."""
    digest = hashlib.sha256(combination.encode()).digest()
    return int.from_bytes(digest[:8], "big") % buckets


def zipf(rng: random.Random, count: int, exponent: float) -> int:
    """A number below ``count``, the first ones more often: in proportion to 1 / (number + 1)^exponent."""
    weights: Sequence[int] = [round(10_000 / (rank + 1) ** exponent) for rank in range(count)]
    return rng.choices(range(count), weights)[0]


def too_few(split: str, found: int, wanted: int) -> ValueError:
    """The error for a split that has fewer different problems than were asked for."""
    return ValueError(f"the {split} split has about {found} different problems; {wanted} were asked for")
