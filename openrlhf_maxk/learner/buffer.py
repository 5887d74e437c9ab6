"""The replay buffer of a learner rank: whole groups, cut into the micro-batches of optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from openrlhf.trainer.ppo_utils.experience import (
    Experience,
    make_experience_batch,
    remove_padding_in_sequences,
    split_experience_batch,
)

from openrlhf_maxk.experience.group import regroup
from openrlhf_maxk.experience.sharding import even_chunks, filler


class GroupReplayBuffer:
    """Holds what one rank received for a step. Constructed and filled as upstream's ``NaiveReplayBuffer``."""

    def __init__(
        self,
        sample_batch_size: int,
        limit: int = 0,
        cpu_offload: bool = True,
        packing_samples: bool = False,
        dynamic_batch: bool = False,
    ) -> None:
        if limit > 0 or packing_samples or dynamic_batch:
            raise ValueError("a buffer of whole groups has no limit, does not pack and has no dynamic batches")
        self.sample_batch_size = sample_batch_size
        self.cpu_offload = cpu_offload
        self._samples: list[Experience] = []

    @torch.no_grad()
    def append(self, experience: Experience) -> None:
        """Add a micro-batch; the groups in it may continue in the next one."""
        if self.cpu_offload:
            experience.to_device(torch.device("cpu"))
        self._samples.extend(remove_padding_in_sequences(split_experience_batch(experience)))

    def clear(self) -> None:
        """Forget everything."""
        self._samples.clear()

    def __len__(self) -> int:
        return len(self._samples)

    def groups(self) -> list[list[Experience]]:
        """The groups, each a list of single samples; fillers are left out. None for a rank that was dealt no group."""
        return regroup(self._samples)

    def filler(self) -> Experience:
        """A single sample that stands for nothing; see :func:`~openrlhf_maxk.experience.sharding.filler`."""
        return filler(self._samples[0])


def optimizer_steps(
    groups: Sequence[Sequence[Experience]],
    spare: Experience,
    steps: int,
    micro_batches: int,
    whole: bool,
    shuffle: torch.Generator,
) -> Iterator[list[Experience]]:
    """Shuffle groups, never their members, and cut them into optimizer steps of whole groups.

    Args:
        groups: the groups of this rank; there may be none.
        spare: the filler.
        steps: the number of optimizer steps, the same on all ranks.
        micro_batches: the number of micro-batches in each, the same on all ranks.
        whole: whether micro-batches hold whole groups, or a group may continue in the next one.
        shuffle: decides the order.

    Yields:
        ``micro_batches`` batched Experiences. Where there are too few samples for that, a micro-batch of one filler row
        keeps the ranks in step: it has no action tokens, so it adds nothing to loss or gradient.
    """
    order = torch.randperm(len(groups), generator=shuffle).tolist()
    for window in even_chunks([groups[i] for i in order], steps):
        if whole:
            batches = [list(chain.from_iterable(part)) for part in even_chunks(window, micro_batches)]
        else:
            batches = even_chunks(list(chain.from_iterable(window)), micro_batches)
        yield [make_experience_batch(batch or [spare]) for batch in batches]


def count_steps(groups: int, samples_per_step: int, group_size: int) -> int:
    """The optimizer steps that ``groups`` groups of one rank make, with ``samples_per_step`` of its samples in each."""
    return max(1, -(-groups // (samples_per_step // group_size)))
