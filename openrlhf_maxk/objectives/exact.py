"""Exact off-policy weights: eq. 10 of arXiv:2510.23393 in O(n·k), with no approximation.

The off-policy estimate of max@k of π, from samples of μ, sorted by reward, is

    F(ρ) = (1/C(n,k)) Σ_I ρ(I) max r(I) = Σ_j a_j r_(j) ρ_(j) E_{k−1}(j−1),   a_j = C(j−1,k−1)/C(n,k),

with E_m(t) the mean over m-subsets of the t lowest completions of the product of their ratios (``symmetric.py``).
F is linear in each ρ_i, so ∂F/∂ρ_i is the sum over the subsets that hold i, without ρ_i: the ratio form of eq. 10.
"""

from __future__ import annotations

from torch import Tensor

from .checks import as_given, checked_ratios, checked_rewards
from .choices import Form
from .columns import by_columns
from .order import SortedGroups
from .symmetric import shares_and_gradient


def exact_weights(rewards: Tensor, ratios: Tensor, k: int, form: Form | str = Form.RATIO) -> Tensor:
    """Off-policy max@k weights, unbiased at any distance between π and μ.

    * ``ratio``: A_i = ∂F/∂ρ_i = (1/C(n,k)) Σ_{I∋i} ρ(I∖i) max r(I), for Σ_i ρ_i A_i (PPO's).
    * ``score``: g_i = ρ_i A_i, eq. 10 itself, for Σ_i g_i log π(y_i|x).

    Σ_i ρ_i A_i = k F. O(n·k) time a group; memory linear in n.

    Args:
        rewards: (..., n), any order, finite.
        ratios: (..., n), ρ_i = π(y_i|x)/μ(y_i|x) of whole completions, positive; μ sampled them.
        k: 1..n.
        form: which surrogate the weights are for.

    Returns:
        (..., n), in the floating type of ``rewards``: the paper's sum, not multiplied by n.

    Raises:
        ValueError: see :mod:`~openrlhf_maxk.objectives.checks`, or an unknown ``form``.
    """
    form = Form.named(form, "form")
    checked = checked_rewards(rewards, k)
    return as_given(exact(checked, checked_ratios(ratios, rewards), k, form), rewards)


def exact(rewards: Tensor, ratios: Tensor, k: int, form: Form) -> Tensor:
    """:func:`exact_weights` of checked arguments."""
    groups = SortedGroups.of(rewards)
    rho = groups.sort(ratios)
    (weights,) = by_columns(lambda r, rho: (_derivative(r, rho, k),), groups.rewards, rho, k=k, outputs=1)
    return groups.restore(rho * weights if form is Form.SCORE else weights)


def _derivative(rewards: Tensor, ratios: Tensor, k: int) -> Tensor:
    """∂F/∂ρ for (n, batch)."""
    shares, gradient = shares_and_gradient(ratios, k - 1, rewards * ratios)
    return (rewards * shares + gradient) * (k / rewards.shape[0])
