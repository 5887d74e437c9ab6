"""Whole groups to learner ranks, and each rank's rows to micro-batches, so that all ranks take the same steps."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Any, Protocol, TypeVar

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


def forward_batches(
    shards: Sequence[Sequence[Group]], samples: int, tokens: int | None = None
) -> list[list[list[Experience]]]:
    """The micro-batches of every rank for a forward pass: [rank][micro-batch] → single samples.

    Every rank gets the same number (ZeRO-3 gathers parameters in step). A rank that has too little for that gets
    copies of a sample as fillers, which carry the group id ``FILLER``.

    Args:
        shards: the groups of each rank.
        samples: the most samples in a micro-batch.
        tokens: the most tokens in one instead, each group as a row; see :func:`by_tokens`.
    """
    members = [[member for group in groups for member in group.members] for groups in shards]
    spare = filler(next(member for rank in members for member in rank))
    if tokens is not None:
        batches = [by_tokens([group.members for group in groups], tokens) for groups in shards]
        count = max(map(len, batches))
        return [rank + [[spare]] * (count - len(rank)) for rank in batches]
    count = max(-(-len(rank) // samples) for rank in members)
    return [even_chunks(rank + [spare] * (count - len(rank)), count) for rank in members]


def as_dealt(experiences: list[Experience], args: Any) -> list[Experience]:
    """In place of upstream's ``balance_experiences``: whole groups have been dealt to the ranks, balanced by tokens."""
    return experiences


def by_tokens(groups: Sequence[Sequence[Experience]], most: int) -> list[list[Experience]]:
    """Put groups into as few micro-batches of at most ``most`` tokens as first-fit decreasing finds.

    A group is cut only where it has more tokens than that by itself, its prompt then counting in each part; a sample
    that has more stands alone.
    """
    parts = [part for group in groups for part in _parts(group, most)]
    batches: list[list[Experience]] = []
    room: list[int] = []
    for size, part in sorted(parts, key=lambda sized: -sized[0]):
        fits = next((i for i, left in enumerate(room) if size <= left), None)
        if fits is None:
            batches.append(list(part))
            room.append(most - size)
        else:
            batches[fits].extend(part)
            room[fits] -= size
    return batches


def _parts(group: Sequence[Experience], most: int) -> list[tuple[int, list[Experience]]]:
    """Consecutive members with their tokens as a row."""
    parts: list[tuple[int, list[Experience]]] = []
    for member in group:
        prompt, total = _lengths(member)
        if parts and parts[-1][0] + total - prompt <= most:
            size, members = parts[-1]
            parts[-1] = (size + total - prompt, [*members, member])
        else:
            parts.append((total, [member]))
    return parts


def row_tokens(members: Sequence[Experience]) -> int:
    """The tokens of single samples of one group as a row: the prompt once, and each completion."""
    prompts, totals = zip(*map(_lengths, members), strict=True)
    return prompts[0] + sum(totals) - sum(prompts)


def _lengths(sample: Experience) -> tuple[int, int]:
    """The tokens before a single sample's first action, and all of them."""
    present, actions = sample.attention_mask.reshape(-1), sample.action_mask.reshape(-1)
    total = int(present.sum())
    first = int(actions.long().argmax()) if bool(actions.any()) else len(actions)
    return total - int(present[len(present) - len(actions) + first :].sum()), total


def filler(sample: Experience) -> Experience:
    """A copy of a single sample that stands for nothing: no action tokens, and a group id that says so."""
    duplicate = copy(sample)
    duplicate.action_mask = torch.zeros_like(sample.action_mask)
    if sample.action_log_probs is not None:
        duplicate.action_log_probs = torch.zeros_like(sample.action_log_probs)  # none are unknown
    number = sample.info[GROUP]
    duplicate.info = {**sample.info, GROUP: torch.full_like(torch.as_tensor(number), FILLER)}
    return duplicate
