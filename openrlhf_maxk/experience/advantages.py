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
        ratios: the sequence-level ratios ρ as they were used (clamped, 1 in a group that fell back), float32, (B,).
        score_factors: what turns ``values`` into weights of the score-function loss, float32, shape (B,): ``ratios``
            for an objective in ratio form, 1 for one in score form.
        sums: sums over the batch of what is logged as means, each with what to divide by.
        largest_ratio: the largest ρ before clamping.
    """

    values: torch.Tensor
    ratios: torch.Tensor
    score_factors: torch.Tensor
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    largest_ratio: float = 1.0

    def split(self, lengths: list[int]) -> list[GroupAdvantages]:
        """Consecutive parts of these lengths; the first has the sums, which are to be counted once."""
        columns = zip(
            self.values.split(lengths), self.ratios.split(lengths), self.score_factors.split(lengths), strict=True
        )
        parts = [GroupAdvantages(*part, {}, self.largest_ratio) for part in columns]
        parts[0].sums = self.sums
        return parts


def sequence_log_ratios(
    log_probs: torch.Tensor, behaviour_log_probs: torch.Tensor, action_mask: torch.Tensor
) -> torch.Tensor:
    """log ρ = Σ_t (log π_θ − log μ) over the response, float32, detached; all arguments (B, A), result (B,)."""
    difference = log_probs.detach().float() - behaviour_log_probs.float()
    return (difference * action_mask).sum(dim=-1)


def effective_size(log_ratios: torch.Tensor) -> torch.Tensor:
    """Kish's effective sample size (Σρ)²/Σρ² of groups (..., n) of log ρ, between 1 and n; no ρ overflows here."""
    weights = (log_ratios - log_ratios.amax(-1, keepdim=True)).exp()
    return weights.sum(-1).square() / weights.square().sum(-1)


@torch.no_grad()
def group_advantages(
    groups: torch.Tensor,
    rewards: torch.Tensor,
    log_ratios: torch.Tensor | None,
    ks: torch.Tensor,
    options: MaxKOptions,
    chosen_by: torch.Tensor | None = None,
) -> GroupAdvantages:
    """Advantages of whole groups of any sizes. Computed on the CPU: the numbers are few, and the kernels would be many.

    Args:
        groups: group ids, int64, shape (B,); the members of a group may stand anywhere. Rows of ``FILLER`` get 0.
        rewards: shape (B,).
        log_ratios: log ρ, shape (B,); None says that the policy is still μ, so that every ρ is 1 exactly.
        ks: the k of each completion's group, int64, shape (B,).
        options: objective, strategy, correction, baseline, clamping, and the effective sample size below which the
            ratios of a group are taken as 1.
        chosen_by: what the strategy chooses completions by, int64, shape (B,); None where it goes by rewards.

    Returns:
        Everything on the device of ``rewards``.
    """
    device = rewards.device
    groups, rewards, ks = groups.cpu(), rewards.cpu(), ks.cpu()
    chosen_by = None if chosen_by is None else chosen_by.cpu()
    measured = None if log_ratios is None else log_ratios.cpu().double()  # in float32, ρ is 0 from exp(−104) on
    objective = get_objective(options.objective)
    real = torch.nonzero(groups != FILLER).squeeze(-1)
    order = real[torch.argsort(groups[real], stable=True)]
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    starts = torch.cumsum(sizes, 0) - sizes
    values = torch.zeros_like(rewards, dtype=torch.float32)
    ratios, score_factors = torch.ones_like(values), torch.ones_like(values)
    clamped = fallen = 0.0
    effective = effective_clamped = count = float(len(real))
    if measured is not None:
        effective = effective_clamped = 0.0
    # One call for all groups of the same size and k: ragged groups are rare.
    kinds = torch.stack([sizes, ks[order][starts]], dim=1)
    for size, k in torch.unique(kinds, dim=0).tolist():
        of_kind = starts[(kinds[:, 0] == size) & (kinds[:, 1] == k)]
        rows = order[of_kind[:, None] + torch.arange(size)]
        given = None
        if measured is not None:
            whole = effective_size(measured[rows])
            noise = whole < options.min_ess * size
            given = torch.where(noise[:, None], 1.0, measured[rows].exp())
            effective += float(whole.sum())
            fallen += float(noise.sum()) * size
        result = objective(
            rewards[rows],
            k,
            given,
            correction=options.correction,
            baseline=options.baseline,
            delta_clip=options.delta_clip,
            strategy=options.strategy,
            chosen_by=None if chosen_by is None else chosen_by[rows],
        )
        values[rows] = result.values.float()
        if measured is not None:
            ratios[rows] = result.ratios.float()
            if result.form is Form.RATIO:
                score_factors[rows] = ratios[rows]
            clamped += float(result.clamped.sum())
            effective_clamped += float(effective_size(result.ratios.log()).sum())
    ratio_sum, largest = count, 1.0
    if measured is not None and count:
        raw = measured[real].exp()
        ratio_sum, largest = float(raw.sum()), float(raw.max())
    return GroupAdvantages(
        values.to(device),
        ratios.to(device),
        score_factors.to(device),
        {
            "ratio_mean": (ratio_sum, count),
            "ratio_clamped": (clamped, count),
            "ratio_ess": (effective, count),
            "ratio_ess_clamped": (effective_clamped, count),
            "ratio_fallback": (fallen, count),
            "advantage_abs": (float(values.abs().sum()), count),
        },
        largest,
    )
