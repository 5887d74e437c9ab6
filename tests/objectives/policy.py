"""A policy whose every expectation can be computed: softmax over five actions, and all 5^6 groups of six."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

N = 6
REWARDS = torch.tensor([-1.0, 0.25, 0.25, 1.0, 3.0], dtype=torch.float64)  # of the actions: ties, a negative one
LOGITS = torch.tensor([0.3, -0.5, 0.1, 0.6, -0.9], dtype=torch.float64)
DIRECTION = torch.tensor([1.0, -0.7, 0.2, -1.1, 0.8], dtype=torch.float64)
GROUPS = torch.tensor(list(product(range(5), repeat=N)))  # (5^6, 6) actions


@dataclass(frozen=True)
class Situation:
    """The policy π, and the policy μ that sampled, ``distance`` away from it in logits."""

    distance: float

    @property
    def policy(self) -> Tensor:
        return LOGITS.softmax(0)

    @property
    def sampler(self) -> Tensor:
        return (LOGITS + self.distance * DIRECTION).softmax(0)

    @property
    def total_variation(self) -> float:
        return 0.5 * (self.policy - self.sampler).abs().sum().item()

    @property
    def rewards(self) -> Tensor:
        """Of all groups: (5^6, 6)."""
        return REWARDS[GROUPS]

    @property
    def ratios(self) -> Tensor:
        """Of all groups: (5^6, 6)."""
        return (self.policy / self.sampler)[GROUPS]

    @property
    def probabilities(self) -> Tensor:
        """Of sampling each group from μ: (5^6,)."""
        return self.sampler[GROUPS].prod(-1)

    def gradients(self, score_weights: Tensor) -> Tensor:
        """Σ_i g_i ∇log π(y_i) of every group: (5^6, 6) -> (5^6, 5), by the logits."""
        score = torch.eye(5, dtype=torch.float64)[GROUPS] - self.policy
        return (score_weights.unsqueeze(-1) * score).sum(1)

    def expected_gradient(self, score_weights: Tensor) -> Tensor:
        """The mean of :meth:`gradients` over groups from μ: (5,)."""
        return self.probabilities @ self.gradients(score_weights)

    def spread(self, score_weights: Tensor) -> float:
        """The standard deviation of :meth:`gradients`, all logits together."""
        gradients = self.gradients(score_weights)
        mean = self.probabilities @ gradients
        return (self.probabilities @ (gradients - mean).square().sum(-1)).sqrt().item()


def true_gradient(k: int) -> Tensor:
    """∇ E[max of k samples from π], by the logits: autograd through the sum over all 5^k outcomes."""
    logits = LOGITS.clone().requires_grad_()
    outcomes = torch.tensor(list(product(range(5), repeat=k)))
    value = (logits.softmax(0)[outcomes].prod(-1) * REWARDS[outcomes].amax(-1)).sum()
    return torch.autograd.grad(value, logits)[0]
