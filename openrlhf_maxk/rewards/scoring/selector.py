"""What a sample is selected by, taken from what its reward says."""

from __future__ import annotations

from dataclasses import replace

from openrlhf_maxk.rewards.request import KEYS, SCORES, Reward, RewardRequest, RewardSpec, Scorer


class WithSelector:
    """In front of a scorer: ``selector`` is the score, or the number of that name among the logs.

    Where it is the score, that of the selector, what passes is told by the reward. A completion without a selector
    could not be scored; a group without any is a mistake.
    """

    def __init__(self, scorer: Scorer, name: str) -> None:
        self._scorer = scorer
        self._name = name

    def __call__(self, request: RewardRequest) -> list[Reward]:
        rewards = [self._with_selector(reward) for reward in self._scorer(request)]
        scored = [reward for reward in rewards if reward.reward is not None]
        if scored and all(reward.selector is None for reward in scored):
            known = ", ".join(sorted({name for reward in scored for name in reward.logs})) or "none"
            raise ValueError(
                f"--maxk.selector {self._name}: the reward has no number of that name among its logs ({known})"
            )
        return [reward if reward.selector is not None else replace(reward, reward=None) for reward in rewards]

    def _with_selector(self, reward: Reward) -> Reward:
        if self._name == SCORES:
            return replace(reward, selector=reward.score, score=reward.reward)
        return replace(reward, selector=reward.logs.get(self._name))


def with_selector(scorer: Scorer, spec: RewardSpec) -> Scorer:
    """The scorer, with what samples are selected by if ``spec`` asks for it."""
    return WithSelector(scorer, spec.chosen_by) if spec.chosen_by not in ("", KEYS) else scorer
