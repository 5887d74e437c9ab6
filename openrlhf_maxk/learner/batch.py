"""What a micro-batch says about its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import GROUP, SEQUENCE_ADVANTAGE, K


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """The group columns of a micro-batch, shape (B,) each, on the device of its sequences.

    Attributes:
        groups: group ids, int64.
        rewards: float32.
        ks: the k each completion's group is trained for, int64.
        sequence_advantages: the objective's advantages at experience time, float32.
    """

    groups: torch.Tensor
    rewards: torch.Tensor
    ks: torch.Tensor
    sequence_advantages: torch.Tensor

    @classmethod
    def of(cls, experience: Experience) -> GroupBatch:
        """Read them from a micro-batch of the buffer."""
        info, device = experience.info, experience.sequences.device
        return cls(
            column(info[GROUP]).long().to(device),
            experience.rewards.float(),
            column(info[K]).long().to(device),
            column(info[SEQUENCE_ADVANTAGE]).float().to(device),
        )


def column(values: Any) -> torch.Tensor:
    """An entry of a micro-batch's ``info`` as one tensor (B,); upstream's collating leaves a list of scalars."""
    return torch.stack([torch.as_tensor(value) for value in values]) if isinstance(values, list) else values.reshape(-1)
