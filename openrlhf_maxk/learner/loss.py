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
    holds whole groups, and computes the objective's advantages A at that ρ. Where groups are cut by micro-batches,
    :attr:`computed` holds what was computed for the whole optimizer step beforehand. What becomes of A, with ρ_i the
    ratio of a whole completion and ρ_it that of one of its tokens:

    * ``ppo``: upstream's loss, −min(ρ_it A_i, clip(ρ_it) A_i) for every token.
    * ``sequence_clip``: −min(ρ_i A_i, clip(ρ_i) A_i) for every completion (arXiv:2510.23393, eq. 4).
    * ``score``: −ρ_i A_i log π(y_i|x), never clipped; an objective in score form has its ρ_i in A_i.

    The last two are sums over tokens of −log π(y_it|·) times a weight without gradient. All three have the same
    gradient where the policy has not moved, and are aggregated in the same way.
    """

    def __init__(self, ppo: PolicyLoss, options: MaxKOptions) -> None:
        super().__init__()
        self.ppo = ppo
        self.options = options
        self.batch: GroupBatch | None = None  # the micro-batch about to be trained on
        self.computed: GroupAdvantages | None = None  # its advantages, if known already; then what was used
        self.policy_is_behaviour = False  # no optimizer step has been taken since the rollout
        self.fills = False  # the micro-batch's old log-probs are unknown: they are those of this pass
        self.drift = 0.0  # mean |log ρ| as measured, even where ρ is known to be 1
        self.silenced: dict[str, tuple[float, float]] = {}  # what the clip left without gradient, and of how many

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
        part is replaced by its value at the current policy. Where it :attr:`fills` them, ``old_log_probs`` are changed.
        """
        assert self.batch is not None
        if self.fills:
            old_log_probs.copy_(log_probs.detach())
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
                self.batch.chosen_by,
            )
        change = self.computed.values - self.batch.sequence_advantages
        advantages = advantages + change[:, None] * action_mask

        if self.options.loss == "ppo":
            token_ratios = (log_probs.detach() - behaviour).exp()
            self._note(self._clipped(token_ratios, advantages), advantages, action_mask)
            return self.ppo(
                log_probs,
                behaviour,
                advantages,
                action_mask=action_mask,
                rollout_log_probs=rollout_log_probs,
                **loss_batch_info,
            )
        if self.options.loss == "score":
            clipped = torch.zeros_like(action_mask, dtype=torch.bool)
            weights = advantages * self.computed.score_factors[:, None]
        else:
            ratios = self.computed.ratios[:, None]
            clipped = self._clipped(ratios, advantages)
            weights = advantages * ratios * ~clipped
        self._note(clipped, advantages, action_mask)
        loss = aggregate_loss(-log_probs * weights, action_mask, **loss_batch_info)
        kl = -(measured / action_mask.sum(-1).clamp(min=1)).mean()
        return loss, (clipped * action_mask).sum() / action_mask.sum().clamp(min=1), kl, None, None

    def _clipped(self, ratios: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """Where PPO's clip leaves no gradient, bool, (B, A)."""
        above = (advantages > 0) & (ratios > 1 + self.ppo.clip_eps_high)
        below = (advantages < 0) & (ratios < 1 - self.ppo.clip_eps_low)
        if self.ppo.dual_clip is not None:
            below |= (advantages < 0) & (ratios > self.ppo.dual_clip)
        return above | below

    def _note(self, clipped: torch.Tensor, advantages: torch.Tensor, action_mask: torch.Tensor) -> None:
        tokens, lost = float(action_mask.sum()), clipped * action_mask
        self.silenced = {
            "clipped_positive": (float((lost * (advantages > 0)).sum()), tokens),
            "clipped_negative": (float((lost * (advantages < 0)).sum()), tokens),
        }
