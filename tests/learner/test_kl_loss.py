"""KL in the loss (``--algo.kl.use_loss``): what it adds to the gradient of every optimizer step, by autograd."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from openrlhf_maxk.experience.group import Group

from ..rollouts import random_group
from .learning import VOCABULARY, Policy, experiences_of, log_probs_of, make_arguments, make_trainer, true_gradient

N, COEFFICIENT = 4, 0.7
SIZES = (4, 2, 4, 3)
NOISE = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
REFERENCE = Policy().logits.detach() + 0.7 * NOISE
# Samples in an optimizer step and in a micro-batch: whole groups or cut ones, one step an epoch or two.
CUTS = {"whole": (8, 4), "two whole": (8, 8), "cut": (8, 2), "half groups": (16, 6), "single": (8, 1)}


def trained(groups: Sequence[Group], batch: int, micro: int, coefficient: float, **kl: object) -> ActorPPOTrainer:
    options = {f"algo__kl__{name}": value for name, value in kl.items()}
    args = make_arguments(N, batch, micro, algo__kl__use_loss=True, algo__kl__init_coef=COEFFICIENT, **options)
    experiences = experiences_of(groups, args)
    for experience in experiences:
        reference = log_probs_of(REFERENCE, experience.sequences) * experience.action_mask
        experience.base_action_log_probs = reference.float()
    trainer = make_trainer(experiences, args)
    trainer.ppo_train(coefficient)
    return trainer


def kl_gradient(logits: torch.Tensor, groups: Sequence[Group], estimator: str, unbiased: bool) -> torch.Tensor:
    """The gradient at ``logits`` of the mean estimate over the action tokens of ``groups``, in float64.

    k2 = d²/2 and k3 = exp(−d) − 1 + d with d = log π − log π_ref (Schulman, http://joschu.net/blog/kl-approx.html).
    ``unbiased``: the mean of w d ∇log π instead, with w = π/π_old up to 10, whatever the estimator.
    """
    logits = logits.detach().clone().requires_grad_()
    start = Policy().logits.detach()
    values = []
    for member in (member for group in groups for member in group.members):
        mask = member.action_mask
        log_probs = log_probs_of(logits, member.sequences)[mask]
        difference = log_probs - log_probs_of(REFERENCE, member.sequences)[mask]
        if unbiased:
            weights = (log_probs - log_probs_of(start, member.sequences)[mask]).exp().clamp(max=10)
            values.append((weights * difference).detach() * log_probs)
        else:
            values.append(difference**2 / 2 if estimator == "k2" else (-difference).exp() - 1 + difference)
    assert torch.cat(values).max() < 10, "where upstream cuts an estimate off"
    return torch.autograd.grad(torch.cat(values).mean(), logits)[0]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("estimator", "unbiased"), [("k2", False), ("k3", False), ("k3", True)])
def test_every_step_has_the_gradient_of_the_objective_and_of_the_kl(cut, estimator, unbiased):
    source = random.Random(11)
    groups = [random_group(i, size, source) for i, size in enumerate(SIZES)]
    trainer = trained(groups, *CUTS[cut], COEFFICIENT, estimator=estimator, unbiased_gradient=unbiased)
    steps = trainer.strategy.steps
    assert len(steps) == (2 if cut == "half groups" else 4)
    for step in steps:
        of_step = [groups[number] for number in sorted(step.groups)]
        kl = COEFFICIENT * kl_gradient(step.logits, of_step, estimator, unbiased)
        expected = true_gradient(step.logits, of_step) + kl
        scale = expected.abs().max().item()
        assert kl.abs().max() > 0.05 * scale, "it shows"
        torch.testing.assert_close(step.gradient, expected, atol=1e-5 * scale, rtol=1e-4)
    assert (steps[-1].logits - steps[0].logits).abs().max() > 0.1


def test_its_coefficient_is_the_controllers_of_the_moment():
    """``ppo_train`` is given it anew in every step of the run; ``--algo.kl.init_coef`` is where it started."""
    source = random.Random(11)
    groups = [random_group(i, size, source) for i, size in enumerate(SIZES)]
    first = [trained(groups, 16, 4, given, estimator="k2").strategy.steps[0] for given in (0.0, 0.2, 0.6)]
    without, some, more = (step.gradient for step in first)
    torch.testing.assert_close(more - without, 3 * (some - without), atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(without, true_gradient(first[0].logits, groups), atol=1e-6, rtol=1e-4)
    assert (some - without).abs().max() > 1e-3
