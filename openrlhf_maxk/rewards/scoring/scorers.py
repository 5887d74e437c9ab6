"""What a reward worker calls: programs run on tests, answers compared, a user's Python file or HTTP service."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_maxk.rewards.execution.service import Service
from openrlhf_maxk.rewards.request import KEYS, MATH, PROBLEMS, SCORES, Reward, RewardRequest, RewardSpec, Scorer
from openrlhf_maxk.rewards.scoring.selector import with_selector

HTTP_TIMEOUT = 180.0  # seconds, as upstream


def make_scorer(spec: RewardSpec, cores: int) -> Scorer:
    """The scorer that ``spec`` describes, with its optional terms, and with what samples are chosen by."""
    return with_selector(_with_its_terms(spec, cores), spec)


def _with_its_terms(spec: RewardSpec, cores: int) -> Scorer:
    if spec.source[0] == PROBLEMS:
        from openrlhf_maxk.rewards.scoring.code import CodeScorer, marked
        from openrlhf_maxk.rewards.scoring.terms import with_terms

        return with_terms(CodeScorer(spec, cores), spec, marked(spec))
    if spec.source[0] == MATH:
        from openrlhf_maxk.rewards.scoring.math_answers import MathScorer, boxed_answers
        from openrlhf_maxk.rewards.scoring.terms import with_terms

        return with_terms(MathScorer(spec, cores), spec, lambda completion: len(boxed_answers(completion)))
    if spec.source[0].endswith(".py"):
        return FunctionScorer(spec.source[0], spec.chosen_by)
    return HTTPScorer(spec.source, spec.chosen_by)


class FunctionScorer:
    """``reward_func(queries, prompts, labels)`` of a Python file: OpenRLHF's interface, called once a group.

    It returns a dict with ``rewards`` (n numbers, as a list or a tensor) and optionally ``scores``, ``keys`` and
    ``extra_logs``; a list of n dicts is accepted as well. None or NaN in place of a reward says that the completion
    could not be scored: it is lost, and the group goes on without it. ``chosen_by``: see :func:`parse_answer`.
    """

    def __init__(self, path: str, chosen_by: str = "") -> None:
        self._chosen_by = chosen_by
        spec = importlib.util.spec_from_file_location("reward_func", Path(path))
        if spec is None or spec.loader is None:
            raise ValueError(f"--reward.remote_url {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up by its name
        spec.loader.exec_module(module)
        if not hasattr(module, "reward_func"):
            raise ValueError(f"--reward.remote_url {path} defines no reward_func(queries, prompts, labels)")
        self._reward_func = module.reward_func

    def __call__(self, request: RewardRequest) -> list[Reward]:
        n = len(request.queries)
        answer = self._reward_func(list(request.queries), [request.prompt] * n, [request.label] * n)
        return parse_answer(answer, n, self._chosen_by)


class HTTPScorer:
    """OpenRLHF's HTTP protocol: a POST of ``query``, ``prompts`` and ``labels``, answered like a ``reward_func``.

    Failures of the service are tried again. Raises ServiceError if it stays out of order or refuses a request.
    """

    def __init__(self, urls: Sequence[str], chosen_by: str = "") -> None:
        self._service = Service(urls)
        self._chosen_by = chosen_by

    def __call__(self, request: RewardRequest) -> list[Reward]:
        n = len(request.queries)
        payload = {
            "query": list(request.queries),
            "prompts": [request.prompt] * n,
            "labels": [request.label] * n,
        }
        return self._service.post(payload, HTTP_TIMEOUT, lambda answer: parse_answer(answer, n, self._chosen_by))


def parse_answer(answer: Any, n: int, chosen_by: str = "") -> list[Reward]:
    """Read what a reward function returned for n completions.

    ``keys`` are texts or whole numbers, looked at where samples are ``chosen_by`` them; None or NaN says that the
    completion gives no answer.

    Raises:
        ValueError: if it is not n rewards, saying what it is; ``scores`` or ``keys`` are missing that samples are
            ``chosen_by``.
    """
    if isinstance(answer, Sequence) and not isinstance(answer, str) and answer and isinstance(answer[0], Mapping):
        if len(answer) == 1 and n > 1:
            answer = answer[0]
        elif n % len(answer):
            raise ValueError(f"a reward function returned {len(answer)} dicts for {n} completions")
        else:
            return [r for part in answer for r in parse_answer(part, n // len(answer), chosen_by)]
    if not isinstance(answer, Mapping) or "rewards" not in answer:
        raise ValueError(f"a reward function must return a dict with 'rewards', not {_short(answer)}")
    for name, strategy in ((SCORES, "selected"), (KEYS, "vote")):
        if chosen_by == name and answer.get(name) is None:
            raise ValueError(
                f"--maxk.strategy {strategy} goes by the {name!r} of the reward function, and it returned none: add "
                f"them to {_short(list(answer))}, one for each completion"
            )
    rewards = _numbers(answer["rewards"], "rewards", n)
    scores = rewards if answer.get("scores") is None else _numbers(answer["scores"], "scores", n)
    keys: list[str | None] = _keys(answer[KEYS], n) if chosen_by == KEYS else [None] * n
    extra_logs = answer.get("extra_logs") or {}
    if not isinstance(extra_logs, Mapping):
        raise ValueError(f"a reward function must return a dict as 'extra_logs', not {_short(extra_logs)}")
    logs = {
        name: _numbers(values if _has_length(values) else [values] * n, f"extra_logs[{name!r}]", n)
        for name, values in extra_logs.items()
    }
    return [
        Reward(reward, score, {name: value for name in logs if (value := logs[name][i]) is not None}, key=key)
        for i, (reward, score, key) in enumerate(zip(rewards, scores, keys, strict=True))
    ]


def _numbers(values: Any, field: str, n: int) -> list[float | None]:
    return [_number(value, field) for value in _one_each(values, field, n)]


def _keys(values: Any, n: int) -> list[str | None]:
    return [_key(value) for value in _one_each(values, KEYS, n)]


def _key(value: Any) -> str | None:
    value = value.item() if hasattr(value, "item") else value
    if value is None or value != value:  # None or NaN
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and value == value // 1:
        return str(int(value))
    raise ValueError(f"a reward function returned {_short(value)} among its keys, not a text or a whole number")


def _one_each(values: Any, field: str, n: int) -> list[Any]:
    if getattr(values, "ndim", 0) > 1:
        raise ValueError(
            f"a reward function returned {field} of shape {tuple(values.shape)} for {n} completions: "
            f"the shape must be ({n},), one number a completion"
        )
    values = values.tolist() if hasattr(values, "tolist") else values
    values = list(values) if _has_length(values) else [values]
    if len(values) != n:
        raise ValueError(f"a reward function returned {len(values)} {field} for {n} completions")
    return values


def _number(value: Any, field: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"a reward function returned {_short(value)} among its {field}, not a number") from None
    if math.isinf(number):
        raise ValueError(f"a reward function returned {number} among its {field}")
    return None if math.isnan(number) else number


def _has_length(values: Any) -> bool:
    if hasattr(values, "ndim"):  # torch, numpy
        return values.ndim > 0
    return isinstance(values, Sequence) and not isinstance(values, str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
