"""Log-probs of the policy that sampled, where experience leaves them to the learner: NaN until it knows them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from openrlhf.trainer.ppo_utils.experience import Experience


def unknown(action_mask: torch.Tensor) -> torch.Tensor:
    """What stands for log-probs of actions (B, A) that nobody has computed yet: NaN, which no arithmetic hides."""
    return torch.full(action_mask.shape, torch.nan)


def are_unknown(experience: Experience) -> bool:
    """Whether the log-probs of an experience, or of a single sample, are still to be computed.

    All of them are, or none: a NaN that a model computed is one among zeros, and must be seen.
    """
    return bool(experience.action_log_probs.isnan().all())


def keep(log_probs: torch.Tensor, action_mask: torch.Tensor, members: Sequence[Experience]) -> None:
    """Give single samples their log-probs from the batch that was made of them.

    Args:
        log_probs: of the batch, shape (B, A).
        action_mask: of the batch, shape (B, A).
        members: the B single samples, shape (A_i,) each, which have as many actions as their row.
    """
    rows = zip(members, log_probs.detach().float().cpu(), action_mask.cpu().bool(), strict=True)
    for member, values, actions in rows:
        own = member.action_mask.bool()
        known = torch.zeros(own.shape, device=own.device)
        known[own] = values[actions].to(own.device)
        member.action_log_probs = known
