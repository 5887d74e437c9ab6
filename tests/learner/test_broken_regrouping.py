"""The property test of the regroupings finds what it is there to find: each of these ways to break groups fails it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import chain

import pytest
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience import maker, sharding
from openrlhf_maxk.experience.group import GROUP, Group, regroup
from openrlhf_maxk.learner import buffer

from . import test_regrouping
from .test_regrouping import test_every_group_comes_back_whole_once_an_epoch_in_one_step as property_test

SITUATIONS = [
    {"n": 4, "ranks": 2, "sizes": [4, 2, 4, 3, 4, 1], "forward_rows": 3, "per_step": 4, "micro": 4, "seed": 0},
    {"n": 4, "ranks": 2, "sizes": [4, 2, 4, 3, 4, 1, 2], "forward_rows": 3, "per_step": 8, "micro": 2, "seed": 1},
    {"n": 3, "ranks": 3, "sizes": [3, 1, 3, 1, 3], "forward_rows": 1, "per_step": 3, "micro": 1, "seed": 2},
]


def run_the_property_test() -> None:
    for situation in SITUATIONS:
        property_test.hypothesis.inner_test(situation)


def shuffle_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As upstream's data loader: single samples are shuffled, then cut into steps."""

    def steps(groups, spare, steps, cut, shuffle):
        samples = list(chain.from_iterable(groups))
        random.Random(0).shuffle(samples)
        for window in sharding.even_chunks(samples, steps):
            yield [batch or [spare] for batch in cut([[sample] for sample in window])]

    monkeypatch.setattr(test_regrouping, "optimizer_steps", steps)


def shuffle_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups stay together, their members change places."""

    def reversed_members(samples: list[Experience]) -> list[list[Experience]]:
        return [group[::-1] for group in regroup(samples)]

    monkeypatch.setattr(buffer, "regroup", reversed_members)


def shard_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As upstream: samples are dealt to ranks in equal numbers, wherever that cuts a group."""

    def deal(groups: list[Group], ranks: int) -> list[list[Group]]:
        singles = []
        for group in groups:
            for member in group.members:
                single = Group.__new__(Group)
                single.id, single.members, single.lost = group.id, [member], 0
                singles.append(single)
        return sharding.even_chunks(singles, ranks)

    monkeypatch.setattr(maker, "shard", deal)


def forget_fillers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank with fewer samples gets fewer micro-batches, so upstream's equal parts cut elsewhere."""

    def batches(shards: list[list[Group]], rows: int, _: int | None) -> list[list[list[Experience]]]:
        members = [[member for group in groups for member in group.members] for groups in shards]
        return [[rank[i : i + rows] for i in range(0, len(rank), rows)] for rank in members]

    monkeypatch.setattr(maker, "forward_batches", batches)


def train_on_fillers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filler keeps its group, so that a completion counts twice."""
    monkeypatch.setattr(sharding, "filler", lambda sample: sample)
    monkeypatch.setattr(buffer, "filler", lambda sample: sample)


def number_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """As upstream: a sample's group is its position divided by n, which a lost completion shifts."""

    def numbered(rollouts: list[Group], n: int) -> list[Group]:
        for i, member in enumerate(member for group in rollouts for member in group.members):
            member.info[GROUP][0] = i // n
        return rollouts

    monkeypatch.setattr(maker, "groups_of", numbered)


def train_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group of the buffer is in it twice."""
    monkeypatch.setattr(buffer, "regroup", lambda samples: [*regroup(samples), regroup(samples)[0]])


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    shuffle_samples,
    shuffle_members,
    shard_samples,
    forget_fillers,
    train_on_fillers,
    number_by_position,
    train_twice,
]


def test_the_situations_pass_as_they_are():
    run_the_property_test()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_regrouping_is_found(monkeypatch, broken):
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        run_the_property_test()
