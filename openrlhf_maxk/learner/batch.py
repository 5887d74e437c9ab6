"""What a micro-batch says about its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import CHOSEN_BY, GROUP, SEQUENCE_ADVANTAGE, K


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """The group columns of a micro-batch, shape (B,) each, on the device of its sequences.

    Attributes:
        groups: group ids, int64.
        rewards: float32.
        ks: the k each completion's group is trained for, int64.
        sequence_advantages: the objective's advantages at experience time, float32.
        chosen_by: what the strategy chooses completions by, int64; None where it goes by rewards.
    """

    groups: torch.Tensor
    rewards: torch.Tensor
    ks: torch.Tensor
    sequence_advantages: torch.Tensor
    chosen_by: torch.Tensor | None = None

    @classmethod
    def of(cls, experience: Experience) -> GroupBatch:
        """Read them from a micro-batch of the buffer."""
        info, device = experience.info, experience.sequences.device
        return cls(
            column(info[GROUP]).long().to(device),
            experience.rewards.float(),
            column(info[K]).long().to(device),
            column(info[SEQUENCE_ADVANTAGE]).float().to(device),
            column(info[CHOSEN_BY]).long().to(device) if CHOSEN_BY in info else None,
        )


def column(values: Any) -> torch.Tensor:
    """An entry of a micro-batch's ``info`` as one tensor (B,); upstream's collating leaves a list of scalars."""
    return torch.stack([torch.as_tensor(value) for value in values]) if isinstance(values, list) else values.reshape(-1)
