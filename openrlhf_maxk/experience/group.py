"""The group: one prompt and the completions that were sampled for it, kept together from rollout to loss.

A max@k objective compares the completions of one prompt with each other, so everything between the rollout and the
optimizer step moves groups, never single samples. Where OpenRLHF's interfaces need flat batches of samples, each sample
carries the number of its group in ``Experience.info`` (the only field that survives all of upstream's splitting and
batching), and :func:`regroup` puts the groups together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, fields

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.objectives import Strategy
from openrlhf_maxk.objectives.strategy import MAX

GROUP = "maxk_group"  # key in Experience.info: the group's id, int64
K = "maxk_k"  # key in Experience.info: the k this group is trained for
CHOSEN_BY = "maxk_chosen_by"  # key in Experience.info: what the strategy chooses it by, where rewards are not enough
SEQUENCE_ADVANTAGE = "maxk_advantage"  # key in Experience.info: the objective's part of the advantage, one per sample
FILLER = -1  # group id of a row that only keeps ranks in step; it is never trained on


@dataclass(slots=True)
class Group:
    """One prompt and its completions.

    Attributes:
        id: unique among the groups of a step.
        members: single-sample Experiences (leading dimension 1), in sampling order.
        lost: completions that were asked for and did not arrive, or could not be scored.
        strategy: how the samples will be used.
        chosen_by: what the strategy chooses the members by, int64, shape (size,): their places in the order of the
            selector, the highest last, or the numbers of their answers; None where it goes by rewards.
    """

    id: int
    members: list[Experience]
    lost: int = 0
    strategy: Strategy = MAX
    chosen_by: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for member in self.members:
            member.info[GROUP] = torch.tensor([self.id])
        if self.chosen_by is not None:
            for member, place in zip(self.members, self.chosen_by, strict=True):
                member.info[CHOSEN_BY] = place.reshape(1)

    @property
    def size(self) -> int:
        """The number of completions."""
        return len(self.members)

    @property
    def prompt(self) -> str:
        """The prompt's text."""
        return self.members[0].prompts[0]

    @property
    def rewards(self) -> torch.Tensor | None:
        """The rewards, shape (size,); None where a reward model is to compute them later."""
        if any(member.rewards is None for member in self.members):
            return None
        return torch.cat([member.rewards for member in self.members])

    @property
    def scores(self) -> torch.Tensor | None:
        """What tells whether a completion passes, shape (size,): the task's score, else the reward; None as above."""
        if any(member.scores is None for member in self.members):
            return self.rewards
        return torch.cat([member.scores for member in self.members])

    @property
    def tokens(self) -> int:
        """Prompt and response tokens of all members."""
        return int(sum(member.total_length.item() for member in self.members))


def minimum_size(k: int) -> int:
    """The fewest completions that a group can be trained on."""
    return max(k, 2)


def group_ids(info: dict) -> torch.Tensor:
    """The group ids of a batch's ``info``, int64, shape (B,)."""
    ids = info[GROUP]
    return torch.as_tensor([int(i) for i in ids]) if isinstance(ids, list) else ids.long().reshape(-1)


def chosen_by_of(experiences: Iterable[Experience]) -> torch.Tensor | None:
    """What the rows of micro-batches are chosen by, int64, (B,); None where their strategy goes by rewards."""
    columns = [experience.info.get(CHOSEN_BY) for experience in experiences]
    if any(values is None for values in columns):
        return None
    return torch.cat([torch.as_tensor(values).long().reshape(-1) for values in columns])


def without_fillers(experience: Experience) -> Experience:
    """What is known of each completion of a batch (outcomes and ``info``), the fillers' rows left out."""
    keep = group_ids(experience.info) != FILLER
    kept = copy(experience)
    for column in fields(Experience):
        value = getattr(experience, column.name)
        if Experience.is_episode_tensor_field(column.name) and value is not None:
            setattr(kept, column.name, value[keep])
    kept.info = {name: torch.as_tensor(values)[keep] for name, values in experience.info.items()}
    return kept


def regroup(samples: Iterable[Experience]) -> list[list[Experience]]:
    """Collect single-sample Experiences (as upstream's ``split_experience_batch`` makes them) by their group.

    Groups come in the order in which their first member came; members keep their order. Fillers are left out.
    """
    groups: dict[int, list[Experience]] = {}
    for sample in samples:
        number = int(sample.info[GROUP])
        if number != FILLER:
            groups.setdefault(number, []).append(sample)
    return list(groups.values())


def groups_of(rollouts: Sequence[Group] | Sequence[Experience], n: int) -> list[Group]:
    """Accept groups, or upstream's flat list of samples in which the n samples of a prompt follow each other.

    Raises:
        ValueError: if the flat list does not consist of whole groups of n samples of one prompt.
    """
    if not rollouts or isinstance(rollouts[0], Group):
        return list(rollouts)
    samples: list[Experience] = list(rollouts)
    if len(samples) % n:
        raise ValueError(f"{len(samples)} rollout samples are not whole groups of --rollout.n_samples_per_prompt {n}")
    groups = [Group(i, samples[i * n : (i + 1) * n]) for i in range(len(samples) // n)]
    for group in groups:
        if len({member.prompts[0] for member in group.members}) > 1:
            raise ValueError(f"rollout samples {group.id * n} to {group.id * n + n - 1} do not share one prompt")
    return groups
