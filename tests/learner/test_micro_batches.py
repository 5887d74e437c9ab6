"""A micro-batch: as many rows as there is room for, no wider than its longest, in the order that the seed gives."""

from __future__ import annotations

import random

import pytest

from openrlhf_maxk.experience.group import Group
from openrlhf_maxk.learner.buffer import GroupReplayBuffer

from ..rollouts import random_group, sample
from .learning import experiences_of, make_arguments, make_trainer

N = 4


def groups_of(count: int) -> list[Group]:
    source = random.Random(6)
    return [random_group(i, N, source) for i in range(count)]


@pytest.mark.parametrize(("batch", "micro"), [(24, 6), (12, 3), (8, 4), (16, 8), (40, 10), (20, 5)])
def test_a_micro_batch_has_no_more_rows_than_there_is_room_for(batch, micro):
    """Memory is what ``--train.micro_batch_size`` is set by."""
    args = make_arguments(N, batch, micro, actor__adam__lr=0.01)
    trainer = make_trainer(experiences_of(groups_of(10), args), args)
    trainer.ppo_train(0.0)
    rows = [len(of.groups) for step in trainer.strategy.steps for of in step.micro_batches]
    assert max(rows) <= micro
    assert sum(number >= 0 for step in trainer.strategy.steps for of in step.micro_batches for number in of.groups) == (
        2 * 10 * N
    ), "every completion once an epoch"


def test_the_buffer_keeps_no_padding():
    """Rows of one length are trained on together in batches as narrow as they are, whatever they came with."""
    short, long = sample([11], [3, 4], 0.0), sample([11, 5, 6, 7], [3, 4, 5, 6, 7], 1.0)
    args = make_arguments(2, 2, 2, rollout__micro_batch_size=4)
    buffer = GroupReplayBuffer(2)
    for experience in experiences_of([Group(0, [short, short]), Group(1, [long, long])], args):
        assert experience.sequences.shape == (4, 9)
        buffer.append(experience)
    lengths = sorted(len(member.sequences) for group in buffer.groups() for member in group)
    assert lengths == [3, 3, 9, 9]


def test_another_seed_is_another_order():
    orders = []
    for seed in range(4):
        args = make_arguments(N, 4, 4, train__seed=seed, train__max_epochs=1, actor__adam__lr=0.01)
        trainer = make_trainer(experiences_of(groups_of(6), args), args)
        trainer.ppo_train(0.0)
        orders.append(tuple(next(iter(step.groups)) for step in trainer.strategy.steps))
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) == 4
