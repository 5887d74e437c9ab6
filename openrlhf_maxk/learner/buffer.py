"""The replay buffer of a learner rank: whole groups, cut into the micro-batches of optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from openrlhf.trainer.ppo_utils.experience import Experience, remove_padding_in_sequences, split_experience_batch

from openrlhf_maxk.experience.behaviour import are_unknown
from openrlhf_maxk.experience.group import regroup
from openrlhf_maxk.experience.sharding import by_tokens, even_chunks, filler

Window = Sequence[Sequence[Experience]]  # the groups of an optimizer step
Cut = Callable[[Window], list[list[Experience]]]


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
        if limit > 0:
            raise ValueError("a buffer of whole groups has no limit")
        self.sample_batch_size = sample_batch_size
        self.cpu_offload = cpu_offload
        self.dynamic_optimizer_step: list[bool] = []  # read by upstream's training step where batches are dynamic
        self.dynamic_sample_loss_scale: list[float] = []
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

    @property
    def log_probs_unknown(self) -> bool:
        """Whether the policy's log-probs were left to the learner; of a rollout, on all ranks or on none."""
        return are_unknown(self._samples[0])

    def begin(self, micro_batches: int) -> None:
        """Say of how many micro-batches the next optimizer step consists."""
        self.dynamic_optimizer_step = [False] * (micro_batches - 1) + [True]
        self.dynamic_sample_loss_scale = [1 / micro_batches] * micro_batches

    def filler(self) -> Experience:
        """A single sample that stands for nothing; see :func:`~openrlhf_maxk.experience.sharding.filler`."""
        return filler(self._samples[0])


def optimizer_steps(
    groups: Sequence[Sequence[Experience]],
    spare: Experience,
    steps: int,
    cut: Cut,
    shuffle: torch.Generator,
) -> Iterator[list[list[Experience]]]:
    """Shuffle groups, never their members, and cut them into optimizer steps of whole groups.

    Args:
        groups: the groups of this rank; there may be none.
        spare: the filler.
        steps: the number of optimizer steps, the same on all ranks.
        cut: makes the micro-batches of a step from its groups, as many on all ranks.
        shuffle: decides the order.

    Yields:
        The micro-batches of a step, single samples each. In place of an empty one there is one of one filler, which
        keeps the ranks in step: it has no action tokens, so it adds nothing to loss or gradient.
    """
    order = torch.randperm(len(groups), generator=shuffle).tolist()
    for window in even_chunks([groups[i] for i in order], steps):
        yield [batch or [spare] for batch in cut(window)]


def cut_by_count(micro_batches: int, whole: bool) -> Cut:
    """So many micro-batches, of as many groups each (``whole``), or of as many samples, and then groups are cut."""

    def cut(window: Window) -> list[list[Experience]]:
        if whole:
            return [list(chain.from_iterable(part)) for part in even_chunks(window, micro_batches)]
        return even_chunks(list(chain.from_iterable(window)), micro_batches)

    return cut


def cut_by_tokens(tokens: int, agree: Callable[[int], int]) -> Cut:
    """As many micro-batches as the tokens ask for on the rank that has the most (``agree`` finds it out)."""

    def cut(window: Window) -> list[list[Experience]]:
        batches = by_tokens(window, tokens)
        return batches + [[]] * (agree(len(batches)) - len(batches))

    return cut


def count_steps(groups: int, samples_per_step: int, group_size: int) -> int:
    """The optimizer steps that ``groups`` groups of one rank make, with ``samples_per_step`` of its samples in each."""
    return max(1, -(-groups // (samples_per_step // group_size)))
