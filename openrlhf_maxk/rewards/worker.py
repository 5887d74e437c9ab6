"""The process that scores groups. It imports no more than its reward needs."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_maxk.rewards.request import Reward, RewardRequest
from openrlhf_maxk.rewards.scorers import Scorer, make_scorer


class RewardWorker:
    """Runs as a Ray actor; several groups may be scored at once."""

    def __init__(self, source: Sequence[str], problems: str | None, cores: int) -> None:
        self._scorer: Scorer = make_scorer(source, problems, cores)

    def score(self, request: RewardRequest) -> list[Reward]:
        """One reward for every completion, in order."""
        return self._scorer(request)
