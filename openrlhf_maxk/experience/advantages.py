"""From the rewards and the log-ratios of a batch of whole groups to one advantage a completion."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from openrlhf_maxk.experience.group import FILLER
from openrlhf_maxk.objectives import Form, get_objective
from openrlhf_maxk.options.maxk import MaxKOptions


@dataclass(slots=True)
class GroupAdvantages:
    """What an objective makes of a batch.

    Attributes:
        values: the advantages, float32, shape (B,).
        score_factors: what turns them into weights of the score-function loss, float32, shape (B,): the clamped
            sequence-level ratios ρ for an objective in ratio form, 1 for one in score form.
        sums: sums over the batch of what is logged as means, each with what to divide by.
        largest_ratio: the largest ρ before clamping.
    """

    values: torch.Tensor
    score_factors: torch.Tensor
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    largest_ratio: float = 1.0


def sequence_log_ratios(
    log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor, action_mask: torch.Tensor
) -> torch.Tensor:
    """log ρ = Σ_t (log π_θ − log μ) over the response, float32, detached; all arguments (B, A), result (B,)."""
    difference = log_probs.detach().float() - behaviour_log_probs.float()
    return (difference * action_mask).sum(dim=-1)


@torch.no_grad()
def group_advantages(
    groups: torch.Tensor,
    rewards: torch.Tensor,
    log_ratios: torch.Tensor | None,
    ks: torch.Tensor,
    options: MaxKOptions,
) -> GroupAdvantages:
    """Advantages of whole groups of any sizes.

    Args:
        groups: group ids, int64, shape (B,); the members of a group may stand anywhere. Rows of ``FILLER`` get 0.
        rewards: shape (B,).
        log_ratios: log ρ, shape (B,); None says that the policy is still μ, so that every ρ is 1 exactly.
        ks: the k of each completion's group, int64, shape (B,).
        options: objective, correction, baseline and clamping.
    """
    objective = get_objective(options.objective)
    real = torch.nonzero(groups != FILLER).squeeze(-1)
    order = real[torch.argsort(groups[real], stable=True)]
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    starts = torch.cumsum(sizes, 0) - sizes
    values = torch.zeros_like(rewards, dtype=torch.float32)
    score_factors = torch.ones_like(values)
    raw = None if log_ratios is None else log_ratios.double().exp()  # in float32 it is 0 from exp(−104) on
    clamped = torch.zeros((), dtype=torch.float32, device=rewards.device)
    effective = torch.zeros_like(clamped)
    # One call for all groups of the same size and k: ragged groups are rare.
    kinds = torch.stack([sizes, ks[order][starts]], dim=1)
    for size, k in torch.unique(kinds, dim=0).tolist():
        of_kind = starts[(kinds[:, 0] == size) & (kinds[:, 1] == k)]
        rows = order[of_kind[:, None] + torch.arange(size, device=groups.device)]
        result = objective(
            rewards[rows],
            k,
            None if raw is None else raw[rows],
            correction=options.correction,
            baseline=options.baseline,
            delta_clip=options.delta_clip,
        )
        values[rows] = result.values.float()
        if raw is not None:
            if result.form is Form.RATIO:
                score_factors[rows] = result.ratios.float()
            clamped += result.clamped.sum()
            rho = result.ratios
            effective += ((rho.sum(-1) ** 2) / (rho**2).sum(-1)).sum().float()
    count = float(len(real))
    ratio_sum, clamp_sum, effective_sum = (
        (float(raw[real].sum()), float(clamped), float(effective)) if raw is not None else (count, 0.0, count)
    )
    return GroupAdvantages(
        values,
        score_factors,
        {
            "ratio_mean": (ratio_sum, count),
            "ratio_clamped": (clamp_sum, count),
            "ratio_ess": (effective_sum, count),
            "advantage_abs": (float(values.abs().sum()), count),
        },
        1.0 if raw is None or not count else float(raw[real].max()),
    )
