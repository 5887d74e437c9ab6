"""The tables of docs/mathematics.md are what the code gives."""

from itertools import product
from pathlib import Path

import pytest
import torch

from openrlhf_maxk.objectives import exact_weights, first_order_weights, get_objective, leave_one_out, marginal_gain
from openrlhf_maxk.objectives import on_policy_weights as on_policy
from openrlhf_maxk.objectives.strategy import rank_weights_of

from .policy import LOGITS, REWARDS, N, Situation, true_gradient

TEXT = (Path(__file__).parents[2] / "docs" / "mathematics.md").read_text(encoding="utf-8")


def situation_of(total_variation: float) -> Situation:
    """The situation at this total variation, by bisection."""
    near, far = 0.0, 5.0
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if Situation(middle).total_variation < total_variation else (near, middle)
    return Situation(near if total_variation > 0 else 0.0)


def weighted_by_whole_subset(rewards, ratios, k):
    """The exact weight less (k/n) times the mean of ρ(J) max r(J) over k-subsets J of the others."""
    baselines = []
    for i in range(N):
        rest = [l for l in range(N) if l != i]
        baselines.append((ratios[:, rest] * exact_weights(rewards[:, rest], ratios[:, rest], k)).sum(-1) / k)
    return exact_weights(rewards, ratios, k) - k / N * torch.stack(baselines, -1)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("variation", [0, 0.1, 0.3, 0.5])
def test_spread(k, variation):
    situation = situation_of(variation)
    r, rho = situation.rewards, situation.ratios
    weights = [
        exact_weights(r, rho, k),
        marginal_gain(r, k, rho),
        leave_one_out(r, k, rho),
        weighted_by_whole_subset(r, rho, k),
    ]
    length = true_gradient(k).norm().item()
    cells = [f"{situation.spread(rho * weight) / length:.3g}" for weight in weights]
    assert f"| {k} | {variation:g} | {' | '.join(cells)} |" in TEXT


@pytest.mark.parametrize("strategy", ["max", "mean_of_best:2", "median", "quantile:0.25", "min"])
@pytest.mark.parametrize("variation", [0, 0.3])
def test_spread_of_strategies(strategy, variation):
    situation = situation_of(variation)
    r, rho = situation.rewards, situation.ratios
    weights = [
        exact_weights(r, rho, 4, strategy=strategy),
        marginal_gain(r, 4, rho, strategy=strategy),
        leave_one_out(r, 4, rho, strategy=strategy),
    ]
    logits = LOGITS.clone().requires_grad_()
    outcomes = torch.tensor(list(product(range(5), repeat=4)))
    worth = (
        REWARDS[outcomes].sort(-1, descending=True).values @ torch.tensor(rank_weights_of(strategy, 4).values).double()
    )
    length = torch.autograd.grad((logits.softmax(0)[outcomes].prod(-1) * worth).sum(), logits)[0].norm().item()
    cells = [f"{situation.spread(rho * weight) / length:.3g}" for weight in weights]
    assert f"| `{strategy}` | {variation:g} | {' | '.join(cells)} |" in TEXT


BIASES = {
    "on-policy $\\tilde r$, no ratio at all": [lambda r, rho, k: on_policy(r, k)],
    "PPO ratio, on-policy weights (any baseline)": [
        lambda r, rho, k: rho * on_policy(r, k),
        lambda r, rho, k: rho * marginal_gain(r, k),
        lambda r, rho, k: rho * leave_one_out(r, k),
    ],
    "$w'$, score form": [lambda r, rho, k: first_order_weights(r, rho, k, "score")],
    "$w''$, or first-order gain or leave one out, ratio form": [
        lambda r, rho, k: rho * first_order_weights(r, rho, k),
        lambda r, rho, k: rho * marginal_gain(r, k, rho, "first"),
        lambda r, rho, k: rho * leave_one_out(r, k, rho, "first"),
    ],
    "$w'$ in a PPO loss: ratio counted twice": [lambda r, rho, k: rho * first_order_weights(r, rho, k, "score")],
    "exact, any baseline, either form": [
        lambda r, rho, k: rho * exact_weights(r, rho, k),
        lambda r, rho, k: rho * marginal_gain(r, k, rho),
        lambda r, rho, k: rho * leave_one_out(r, k, rho),
        lambda r, rho, k: exact_weights(r, rho, k, "score"),
    ],
}


@pytest.mark.parametrize("name", BIASES)
def test_bias(name):
    true = true_gradient(3)
    for weights in BIASES[name]:
        cells = []
        for variation in (0.01, 0.03, 0.1, 0.2, 0.3):
            situation = situation_of(variation)
            gradient = situation.expected_gradient(weights(situation.rewards, situation.ratios, 3))
            error = ((gradient - true).norm() / true.norm()).item()
            bend = 1 - torch.nn.functional.cosine_similarity(gradient, true, dim=0).item()
            cells.append(f"{error:.2g} ({bend:.1g})" if error > 1e-12 else "0")
        assert f"| {name} | {' | '.join(cells)} |" in TEXT


def test_cosine_of_the_z_score():
    situation = Situation(0.0)
    gradient = situation.expected_gradient(get_objective("bon_mean")(situation.rewards, 3).values)
    cosine = torch.nn.functional.cosine_similarity(gradient, true_gradient(3), dim=0)
    assert f"(cosine {cosine:.2f} with the true gradient" in TEXT
