"""Objectives, corrections and baselines on the device against the CPU: whole groups, ragged groups, determinism."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from openrlhf_maxk import objectives
from openrlhf_maxk.objectives import Baseline, Form, Order

from .parts import Bench, Record

Choice = tuple[str, Order, Baseline]  # an objective's name, and what it is open to
Function = Callable[[Tensor, Tensor, int], Tensor]  # rewards and ratios (groups, n), k

MOST = {torch.float64: 1e-12, torch.float32: 1e-6}  # differences from the CPU, relative to the largest value
STRATEGIES = ("max", "min", "mean_of_best:1", "median", "quantile:0.25")
SHAPES = ((64, 8, 4), (64, 8, 1), (8, 64, 16), (64, 3, 2))  # groups, n, k


def functions() -> dict[str, Function]:
    """All of ``openrlhf_maxk.objectives``, by name and choices."""
    found: dict[str, Function] = {
        "max_at_k": lambda r, p, k: objectives.max_at_k(r, k),
        "pass_at_k": lambda r, p, k: objectives.pass_at_k((r > 0.5).to(r.dtype), k),
        "on_policy_weights": lambda r, p, k: objectives.on_policy_weights(r, k),
        "worth_at_k selected": lambda r, p, k: objectives.worth_at_k(r, k, "selected", p),
        "vote_at_k": lambda r, p, k: objectives.vote_at_k(r, _answers(r), k),
    }
    for name in STRATEGIES:
        found[f"value_at_k {name}"] = lambda r, p, k, name=name: objectives.value_at_k(r, k, name)
        found[f"exact_weights {name}"] = lambda r, p, k, name=name: objectives.exact_weights(r, p, k, strategy=name)
    for baseline in Baseline:
        found[f"vote_weights {baseline}"] = lambda r, p, k, baseline=baseline: objectives.vote_weights(
            r, _answers(r), min(k, 4), p, baseline
        )
    for form in Form:
        found[f"exact_weights {form}"] = lambda r, p, k, form=form: objectives.exact_weights(r, p, k, form)
        found[f"first_order_weights {form}"] = lambda r, p, k, form=form: objectives.first_order_weights(r, p, k, form)
    for order in Order:
        found[f"marginal_gain {order}"] = lambda r, p, k, order=order: objectives.marginal_gain(r, k, p, order)
        found[f"leave_one_out {order}"] = lambda r, p, k, order=order: objectives.leave_one_out(r, k, p, order)
    for choice in choices():
        found[" ".join(choice)] = partial(_advantages, choice)
    return found


def choices() -> Iterator[Choice]:
    """Every registered objective, with what it is open to."""
    for name in objectives.objective_names():
        is_open = name == "offpolicy_bon"
        yield from product((name,), Order if is_open else (Order.EXACT,), Baseline if is_open else (Baseline.MARGINAL,))


def _advantages(choice: Choice, rewards: Tensor, ratios: Tensor, k: int) -> Tensor:
    name, correction, baseline = choice
    objective = objectives.get_objective(name)
    if objective.binary:
        rewards = (rewards > 0.5).to(rewards.dtype)
    return objective(rewards, k, ratios, correction=correction, baseline=baseline).values


def _answers(rewards: Tensor) -> Tensor:
    """Keys to vote over: three of them."""
    return (3 * rewards).long().clamp(max=2)


def objectives_part(bench: Bench) -> Iterator[Record]:
    """Both types, and ragged groups."""
    yield from _all(bench, "")


def deterministic_part(bench: Bench) -> Iterator[Record]:
    """The same where PyTorch refuses whatever is not deterministic (``--train.full_determinism_enable``)."""
    with _deterministic():
        yield from _all(bench, ", deterministic algorithms")


def _all(bench: Bench, suffix: str) -> Iterator[Record]:
    for dtype in MOST:
        found = {name: _largest(function, dtype, bench.device) for name, function in functions().items()}
        yield _record(f"{str(dtype).removeprefix('torch.')}{suffix}", found, MOST[dtype])
    ragged = {" ".join(choice): _ragged(bench.device, choice) for choice in choices()}
    yield _record(f"ragged groups of a micro-batch{suffix}", ragged, MOST[torch.float32])


def _record(case: str, found: dict[str, float | str], most: float) -> Record:
    """``found``: for each function its largest difference, or the last line of its error."""
    differences = [value for value in found.values() if isinstance(value, float)]
    wrong = {name: value for name, value in found.items() if isinstance(value, str) or not value <= most}
    figures: dict[str, Any] = {"functions": len(found), "differences": found}
    if differences:
        figures["largest difference"] = largest(differences)
    problem = ""
    if wrong:
        name, value = next(iter(wrong.items()))
        problem = f"{len(wrong)} of {len(found)} fail, the first is {name}: {value}"
    return Record(case, figures, problem)


def _largest(function: Function, dtype: torch.dtype, device: str) -> float | str:
    differences = []
    for groups, n, k in SHAPES:
        random = torch.Generator().manual_seed(n)
        rewards = torch.rand(groups, n, generator=random, dtype=dtype)
        rewards[::2] = (rewards[::2] * 4).round() / 4  # ties
        ratios = (0.3 * torch.randn(groups, n, generator=random, dtype=dtype)).exp()
        try:
            found = function(rewards.to(device), ratios.to(device), k).cpu()
        except RuntimeError as error:
            return last_line(error)
        differences.append(difference(found, function(rewards, ratios, k)))
    return largest(differences)


def _ragged(device: str, choice: Choice) -> float | str:
    """Advantages of groups of 2 to 8 in any order, with rows that stand for nothing, as the learner computes them."""
    from openrlhf_maxk.experience.advantages import group_advantages
    from openrlhf_maxk.experience.group import FILLER
    from openrlhf_maxk.options.maxk import MaxKOptions

    random = torch.Generator().manual_seed(0)
    sizes = torch.randint(2, 9, (32,), generator=random)
    groups = torch.cat([torch.arange(len(sizes)).repeat_interleave(sizes), torch.full((3,), FILLER)])
    groups = groups[torch.randperm(len(groups), generator=random)]
    rewards = torch.randint(0, 9, groups.shape, generator=random) / 8
    if objectives.get_objective(choice[0]).binary:
        rewards = rewards.round()
    log_ratios = 0.3 * torch.randn(groups.shape, generator=random)
    columns = (groups, rewards, log_ratios, torch.full_like(groups, 2))
    options = MaxKOptions.make(**dict(zip(("objective", "correction", "baseline"), map(str, choice), strict=True)))
    try:
        found = group_advantages(*(column.to(device) for column in columns), options).values
    except RuntimeError as error:
        return last_line(error)
    if found.device.type != device:
        return f"the advantages are on {found.device}"
    return difference(found.cpu(), group_advantages(*columns, options).values)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest expected value; NaN if any is NaN."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny))


def largest(values: Sequence[float]) -> float:
    """Their largest, NaN if any is NaN, which Python's ``max`` may not see."""
    return torch.tensor(values, dtype=torch.float64).max().item()


def last_line(error: BaseException) -> str:
    """The last line of an error, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
