"""One of two ranks, with another made up: it takes its part of every optimizer step, and as many steps as the other."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from openrlhf_maxk.learner.buffer import GroupReplayBuffer, cut_by_tokens

from ..rollouts import random_group
from .learning import experiences_of, make_arguments, make_trainer

N, GROUPS = 4, 3


def trained(nodes: int = 1, gpus: int = 2) -> ActorPPOTrainer:
    """Of four groups in an optimizer step two are a rank's; this one has received three."""
    args = make_arguments(N, 16, 4, ranks=gpus, actor__num_nodes=nodes, train__max_epochs=1)
    source = random.Random(3)
    alone = make_arguments(N, 16, 4)
    trainer = make_trainer(experiences_of([random_group(i, N, source) for i in range(GROUPS)], alone), args)
    trainer.ppo_train(0.0)
    return trainer


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 2), (2, 1)])
def test_a_rank_takes_its_part_of_an_optimizer_step(nodes, gpus):
    assert [len(step.groups) for step in trained(nodes, gpus).strategy.steps] == [2, 1]


@pytest.mark.parametrize(("others", "sizes"), [(1, [2, 1]), (2, [2, 1]), (3, [1, 1, 1]), (4, [1, 1, 1, 0])])
def test_a_rank_takes_as_many_optimizer_steps_as_the_one_with_the_most(monkeypatch, others, sizes):
    """Else they would wait for each other for ever."""
    reduce = torch.distributed.all_reduce
    bounds = {torch.distributed.ReduceOp.MAX: torch.clamp_min_, torch.distributed.ReduceOp.MIN: torch.clamp_max_}

    def with_another(tensor: torch.Tensor, op: Any = torch.distributed.ReduceOp.SUM, **kwargs: Any) -> None:
        if op in bounds:
            bounds[op](tensor, others)
        else:
            reduce(tensor, op=op, **kwargs)

    monkeypatch.setattr(torch.distributed, "all_reduce", with_another)
    steps = trained().strategy.steps
    assert [len(step.groups) for step in steps] == sizes
    assert {number for step in steps for number in step.groups} == set(range(GROUPS))


@pytest.mark.parametrize("more", [-1, 0, 3])
def test_a_rank_takes_as_many_micro_batches_as_the_one_with_the_most_tokens(more):
    args = make_arguments(N, 16, 4)
    source = random.Random(3)
    buffer = GroupReplayBuffer(N)
    for experience in experiences_of([random_group(i, N, source) for i in range(2)], args):
        buffer.append(experience)
    alone = cut_by_tokens(12, lambda count: count)(buffer.groups())
    assert len(alone) > 1
    together = cut_by_tokens(12, lambda count: max(count, len(alone) + more))(buffer.groups())
    assert [len(batch) for batch in together] == [len(batch) for batch in alone] + [0] * max(more, 0)
