"""The mathematics of max@k training, as pure functions of tensors. Needs torch and nothing else.

The last dimension is a *group*: the n completions sampled for one prompt. See docs/mathematics.md for the derivations.
"""

from . import library as library  # registers the objectives
from .baselines import leave_one_out, marginal_gain
from .choices import Baseline, Form, Order
from .exact import exact_weights
from .first_order import first_order_weights
from .metrics import max_at_k, pass_at_k, value_at_k, worth_at_k
from .on_policy import on_policy_weights
from .registry import (
    Advantages,
    Objective,
    ObjectiveOptions,
    get_objective,
    objective_names,
    register,
)
from .strategy import RankWeights, Strategy
from .vote import NO_VOTE, vote_at_k, vote_weights

__all__ = [
    "NO_VOTE",
    "Advantages",
    "Baseline",
    "Form",
    "Objective",
    "ObjectiveOptions",
    "Order",
    "RankWeights",
    "Strategy",
    "exact_weights",
    "first_order_weights",
    "get_objective",
    "leave_one_out",
    "marginal_gain",
    "max_at_k",
    "objective_names",
    "on_policy_weights",
    "pass_at_k",
    "register",
    "value_at_k",
    "vote_at_k",
    "vote_weights",
    "worth_at_k",
]
