"""Whole groups for every learner rank, on however many nodes the ranks are."""

from __future__ import annotations

import random

import pytest

from openrlhf_maxk.experience.group import group_ids

from ..rollouts import random_group
from .test_maker import N, make_maker


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 4), (2, 2), (4, 1)])
def test_every_rank_of_every_node_receives_its_groups(nodes, gpus):
    maker = make_maker(actor__num_nodes=nodes, actor__num_gpus_per_node=gpus, rollout__micro_batch_size=3 * N)
    source = random.Random(0)
    experiences = maker.split_rollout_samples([random_group(i, N, source) for i in range(8)])
    assert len(experiences) == 4, "one micro-batch a rank"
    found = [group_ids(experience.info).tolist() for experience in experiences]
    assert [len(set(numbers)) for numbers in found] == [2] * 4
    assert [len(numbers) for numbers in found] == [2 * N] * 4
