"""What may be added to a reward: a bonus for the form of a completion, a price for its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from openrlhf_maxk.rewards.request import Reward, RewardRequest, RewardSpec, Scorer

CHARACTERS = 1000  # of a completion, that the length penalty is for


class WithTerms:
    """In front of a scorer: ``reward = task + format_reward · [one answer] − length_penalty · characters / 1000``.

    Each part is a log of its own. ``score``, which dynamic filtering looks at, stays that of the task. What could not
    be scored stays so.
    """

    def __init__(self, scorer: Scorer, spec: RewardSpec, answers: Callable[[str], int]) -> None:
        """``answers`` counts the programs or answers that stand in a completion as they should."""
        self._scorer = scorer
        self._spec = spec
        self._answers = answers

    def __call__(self, request: RewardRequest) -> list[Reward]:
        return [
            self._add(reward, completion)
            for reward, completion in zip(self._scorer(request), request.completions, strict=True)
        ]

    def _add(self, task: Reward, completion: str) -> Reward:
        if task.reward is None:
            return task
        terms = {}
        if self._spec.format_reward:
            terms["format"] = self._spec.format_reward * (self._answers(completion) == 1)
        if self._spec.length_penalty:
            terms["length"] = -self._spec.length_penalty * len(completion) / CHARACTERS
        logs = {**task.logs, "task": task.reward, **terms}
        return replace(task, reward=task.reward + sum(terms.values()), logs=logs)


def with_terms(scorer: Scorer, spec: RewardSpec, answers: Callable[[str], int]) -> Scorer:
    """The scorer, with the terms of ``spec`` if there are any."""
    return WithTerms(scorer, spec, answers) if spec.format_reward or spec.length_penalty else scorer
