"""OpenRLHF's HTTP reward protocol: ``query``, ``prompts``, ``labels`` in, ``rewards``, ``scores``, ``extra_logs`` out.

A query is a prompt and its completion in one text, special tokens included. A reward that could not be had is null, as
long as there is another one in the request; a request without any is refused as a failure of the machinery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from openrlhf_maxk.rewards.request import BadLabel, Reward, RewardRequest, Scorer
from openrlhf_maxk.rewards.scoring.extraction import SPECIAL_TOKENS
from openrlhf_maxk.rewards.serving.server import Answerer, BadRequest, Unavailable


def reward_answerer(scorer: Scorer, ends: Sequence[str] = ()) -> Answerer:
    """Answers requests by ``scorer``, a group (equal prompts and labels that follow each other) at a time.

    The usual end tokens, and ``ends``, are taken off the completions.
    """
    end = re.compile("(?:" + "|".join([SPECIAL_TOKENS, *map(re.escape, filter(None, ends))]) + r")\s*\Z")

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        rewards: list[Reward] = []
        for request in _groups(body, end):
            try:
                rewards += scorer(request)
            except BadLabel as error:
                raise BadRequest(str(error)) from error
        if all(reward.reward is None for reward in rewards):
            raise Unavailable("no completion could be scored: the machinery failed")
        names = dict.fromkeys(name for reward in rewards for name in reward.logs)
        return {
            "rewards": [reward.reward for reward in rewards],
            "scores": [reward.score for reward in rewards],
            "extra_logs": {name: [reward.logs.get(name) for reward in rewards] for name in names},
        }

    return answer


def _groups(body: dict[str, Any], end: re.Pattern[str]) -> list[RewardRequest]:
    queries = _texts(body, "query")
    prompts, labels = _texts(body, "prompts"), _texts(body, "labels")
    if not queries:
        raise BadRequest("query is empty")
    if not len(queries) == len(prompts) == len(labels):
        raise BadRequest(
            f"query, prompts and labels must be equally many, not {len(queries)}, {len(prompts)} and {len(labels)}"
        )
    rows = list(zip(queries, prompts, labels, strict=True))
    for number, (query, prompt, _) in enumerate(rows):
        if not query.startswith(prompt):
            raise BadRequest(f"query[{number}] does not begin with prompts[{number}]")
    return [
        RewardRequest(prompt, label, tuple(group), tuple(_without_end(query[len(prompt) :], end) for query in group))
        for (prompt, label), part in groupby(rows, key=lambda row: row[1:])
        for group in [[query for query, _, _ in part]]
    ]


def _texts(body: dict[str, Any], name: str) -> list[str]:
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadRequest(f"{name} must be a list of texts")
    return found


def _without_end(completion: str, end: re.Pattern[str]) -> str:
    while match := end.search(completion, max(0, len(completion) - 200)):
        completion = completion[: match.start()]
    return completion
