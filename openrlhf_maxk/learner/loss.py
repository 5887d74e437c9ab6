"""The policy loss of a micro-batch, with advantages that belong to the policy of this very moment."""

from __future__ import annotations

from typing import Any

import torch
from openrlhf.models.loss import PolicyLoss, aggregate_loss
from torch import nn

from openrlhf_maxk.experience.advantages import GroupAdvantages, group_advantages, sequence_log_ratios
from openrlhf_maxk.learner.batch import GroupBatch
from openrlhf_maxk.options.maxk import MaxKOptions


class GroupPolicyLoss(nn.Module):
    """In place of OpenRLHF's ``PolicyLoss`` in its training step, around it.

    Called with the log-probs of the forward pass that is being trained on, it takes ρ from them where the micro-batch
    holds whole groups, computes the objective's advantages at that ρ, and gives them to upstream's PPO loss (ratio
    form) or to the score-function loss. Where groups are cut by micro-batches, :attr:`computed` holds what was computed
    for the whole optimizer step beforehand.
    """

    def __init__(self, ppo: PolicyLoss, options: MaxKOptions) -> None:
        super().__init__()
        self.ppo = ppo
        self.options = options
        self.batch: GroupBatch | None = None  # the micro-batch about to be trained on
        self.computed: GroupAdvantages | None = None  # its advantages, if known already; then what was used
        self.policy_is_behaviour = False  # no optimizer step has been taken since the rollout
        self.drift = 0.0  # mean |log ρ| as measured, even where ρ is known to be 1

    def forward(
        self,
        log_probs: torch.Tensor,
        old_log_probs: torch.Tensor,
        advantages: torch.Tensor,
        action_mask: torch.Tensor,
        rollout_log_probs: torch.Tensor | None = None,
        **loss_batch_info: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any, Any]:
        """As upstream's ``PolicyLoss.forward``: (B, A) each, returns the loss and its diagnostics.

        ``advantages`` are those of experience time: the objective's, plus any token-level KL penalty. The objective's
        part is replaced by its value at the current policy.
        """
        assert self.batch is not None
        behaviour = rollout_log_probs if self.options.behaviour == "rollout" else old_log_probs
        assert behaviour is not None
        measured = sequence_log_ratios(log_probs, behaviour, action_mask)
        self.drift = float(measured.abs().mean())
        if self.policy_is_behaviour:
            # ρ is 1 by definition; measuring it would only add the rounding of another batch shape.
            behaviour = log_probs.detach()
        if self.computed is None:
            self.computed = group_advantages(
                self.batch.groups,
                self.batch.rewards,
                None if self.policy_is_behaviour else measured,
                self.batch.ks,
                self.options,
            )
        change = self.computed.values - self.batch.sequence_advantages
        advantages = advantages + change[:, None] * action_mask

        if self.options.loss == "score":
            weights = advantages * self.computed.score_factors[:, None]
            loss = aggregate_loss(
                -log_probs * weights, action_mask, token_level_loss=self.ppo.token_level_loss, **loss_batch_info
            )
            kl = -(measured / action_mask.sum(-1).clamp(min=1)).mean()
            return loss, torch.zeros_like(kl), kl, None, None
        return self.ppo(
            log_probs,
            behaviour,
            advantages,
            action_mask=action_mask,
            rollout_log_probs=rollout_log_probs,
            **loss_batch_info,
        )
