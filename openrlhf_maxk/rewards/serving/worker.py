"""The process that scores groups. It imports no more than its reward needs."""

from __future__ import annotations

import os

from openrlhf_maxk.rewards.request import Reward, RewardRequest, RewardSpec, Scorer
from openrlhf_maxk.rewards.scoring.scorers import make_scorer


class RewardWorker:
    """Runs as a Ray actor; several groups may be scored at once."""

    def __init__(self, spec: RewardSpec, cores: int, on_this_node: int = 1) -> None:
        """``cores``: how many to use; 0 for this node's, shared with the other workers of ``on_this_node``."""
        share = max(1, len(os.sched_getaffinity(0)) // on_this_node)
        self._scorer: Scorer = make_scorer(spec, cores or share)

    def score(self, request: RewardRequest) -> list[Reward]:
        """One reward for every completion, in order."""
        return self._scorer(request)
