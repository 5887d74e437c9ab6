"""Whole groups to learner ranks, and each rank's rows to micro-batches, so that all ranks take the same steps."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Protocol, TypeVar

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import FILLER, GROUP, Group


class Sized(Protocol):
    """Anything with a length in tokens."""

    @property
    def tokens(self) -> int: ...


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)


def shard(groups: Sequence[SizedItem], ranks: int) -> list[list[SizedItem]]:
    """Deal groups to ranks: counts differ by at most one, tokens are balanced (longest first to the lightest rank).

    With fewer groups than ranks, as at the end of the data, the last ranks get none.
    """
    larger = len(groups) % ranks  # so many ranks take one group more
    room = [len(groups) // ranks + (rank < larger) for rank in range(ranks)]
    lightest = [(0, rank) for rank in range(ranks) if room[rank]]
    shards: list[list[SizedItem]] = [[] for _ in range(ranks)]
    for group in sorted(groups, key=lambda g: -g.tokens):
        tokens, rank = heapq.heappop(lightest)
        shards[rank].append(group)
        if len(shards[rank]) < room[rank]:
            heapq.heappush(lightest, (tokens + group.tokens, rank))
    return shards


def even_chunks(items: Sequence[Item], count: int) -> list[list[Item]]:
    """Cut ``items`` into ``count`` consecutive chunks whose lengths differ by at most one (some may be empty)."""
    size, larger = divmod(len(items), count)
    starts = [i * size + min(i, larger) for i in range(count + 1)]
    return [list(items[a:b]) for a, b in pairwise(starts)]


def forward_batches(shards: Sequence[Sequence[Group]], rows: int) -> list[list[list[Experience]]]:
    """The micro-batches of every rank for a forward pass: [rank][micro-batch] → at most ``rows`` single samples.

    Every rank gets the same number (ZeRO-3 gathers parameters in step). A rank with fewer rows than micro-batches gets
    copies of a row as fillers, which carry the group id ``FILLER``.
    """
    members = [[member for group in groups for member in group.members] for groups in shards]
    count = max(-(-len(rank) // rows) for rank in members)
    spare = filler(next(member for rank in members for member in rank))
    return [even_chunks(rank + [spare] * (count - len(rank)), count) for rank in members]


def filler(sample: Experience) -> Experience:
    """A copy of a single sample that stands for nothing: no action tokens, and a group id that says so."""
    duplicate = copy(sample)
    duplicate.action_mask = torch.zeros_like(sample.action_mask)
    number = sample.info[GROUP]
    duplicate.info = {**sample.info, GROUP: torch.full_like(torch.as_tensor(number), FILLER)}
    return duplicate
