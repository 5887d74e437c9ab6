"""What a reward worker calls: a user's Python file, a user's HTTP service, or programs run against tests."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_maxk.rewards.request import Reward, RewardRequest

Scorer = Callable[[RewardRequest], list[Reward]]

HTTP_TIMEOUT = 180.0  # seconds, and so many tries, as upstream
HTTP_TRIES = 5


def make_scorer(source: Sequence[str], problems: str | None, cores: int) -> Scorer:
    """The scorer for ``--reward.remote_url`` (a ``.py`` file or URLs) or for ``--maxk.problems``."""
    if source[0] == "problems":
        from openrlhf_maxk.rewards.code import CodeScorer

        assert problems is not None
        return CodeScorer(problems, cores)
    if source[0].endswith(".py"):
        return FunctionScorer(source[0])
    return HTTPScorer(source)


class FunctionScorer:
    """``reward_func(queries, prompts, labels)`` of a Python file: OpenRLHF's interface, called once a group.

    It returns a dict with ``rewards`` (n numbers, as a list or a tensor) and optionally ``scores`` and ``extra_logs``;
    a list of n dicts is accepted as well. None or NaN in place of a reward says that the completion could not be
    scored: it is lost, and the group goes on without it.
    """

    def __init__(self, path: str) -> None:
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
        return parse_answer(answer, n)


class HTTPScorer:
    """OpenRLHF's HTTP protocol: a POST of ``query``, ``prompts`` and ``labels``, answered like a ``reward_func``."""

    def __init__(self, urls: Sequence[str]) -> None:
        import requests

        self._urls = itertools.cycle(urls)
        self._post = requests.Session().post
        self._errors = requests.RequestException

    def __call__(self, request: RewardRequest) -> list[Reward]:
        n = len(request.queries)
        payload = {
            "query": list(request.queries),
            "prompts": [request.prompt] * n,
            "labels": [request.label] * n,
        }
        failures = []
        for attempt in range(HTTP_TRIES):
            url = next(self._urls)
            try:
                response = self._post(url, json=payload, timeout=HTTP_TIMEOUT)
                response.raise_for_status()
                return parse_answer(response.json(), n)
            except self._errors as error:
                failures.append(f"{url}: {error}")
                time.sleep(min(2.0**attempt, 10.0))
        raise RuntimeError(f"no answer from the reward service after {HTTP_TRIES} tries:\n" + "\n".join(failures))


def parse_answer(answer: Any, n: int) -> list[Reward]:
    """Read what a reward function returned for n completions.

    Raises:
        ValueError: if it is not n rewards, saying what it is.
    """
    if isinstance(answer, Sequence) and not isinstance(answer, str) and answer and isinstance(answer[0], Mapping):
        if len(answer) == 1 and n > 1:
            answer = answer[0]
        elif n % len(answer):
            raise ValueError(f"a reward function returned {len(answer)} dicts for {n} completions")
        else:
            return [r for part in answer for r in parse_answer(part, n // len(answer))]
    if not isinstance(answer, Mapping) or "rewards" not in answer:
        raise ValueError(f"a reward function must return a dict with 'rewards', not {_short(answer)}")
    rewards = _numbers(answer["rewards"], "rewards", n)
    scores = rewards if answer.get("scores") is None else _numbers(answer["scores"], "scores", n)
    extra_logs = answer.get("extra_logs") or {}
    if not isinstance(extra_logs, Mapping):
        raise ValueError(f"a reward function must return a dict as 'extra_logs', not {_short(extra_logs)}")
    logs = {
        name: _numbers(values if _has_length(values) else [values] * n, f"extra_logs[{name!r}]", n)
        for name, values in extra_logs.items()
    }
    return [
        Reward(reward, score, {name: value for name in logs if (value := logs[name][i]) is not None})
        for i, (reward, score) in enumerate(zip(rewards, scores, strict=True))
    ]


def _numbers(values: Any, field: str, n: int) -> list[float | None]:
    values = values.tolist() if hasattr(values, "tolist") else values
    values = list(values) if _has_length(values) else [values]
    if len(values) != n:
        raise ValueError(f"a reward function returned {len(values)} {field} for {n} completions")
    return [_number(value, field) for value in values]


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
