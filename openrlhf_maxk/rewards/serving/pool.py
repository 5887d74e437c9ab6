"""Reward workers: Ray actors on CPU, away from the rollout actors, that score a group at a time.

A worker that dies is replaced and its groups are scored again. A reward function that raises ends the run with its
traceback; one that hangs ends it after ``--maxk.reward_timeout`` seconds without any progress.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from openrlhf_maxk.rewards.request import PROBLEMS, Reward, RewardRequest, RewardSpec
from openrlhf_maxk.rewards.serving.worker import RewardWorker

logger = logging.getLogger(__name__)

GROUPS_AT_ONCE = 16  # in a worker; it runs no more programs at once than it has cores
START_SECONDS = 600.0  # the most a worker may take to import its reward function
MAX_ATTEMPTS = 3  # on workers that died under a group


class RewardError(RuntimeError):
    """The reward function failed, or did not come back."""


@dataclass(slots=True)
class _Pending:
    request: RewardRequest
    worker: int
    actor: Any
    attempts: int


class RewardPool:
    """Hands groups to the worker with the fewest waiting, and answers with object references."""

    def __init__(self, spec: RewardSpec, workers: int, cores: int, timeout: float) -> None:
        self.enabled = bool(spec.source) and spec.source != ("agent",)
        self._labels_are_problems = spec.source == (PROBLEMS,)
        actor: Any = ray.remote(RewardWorker)
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]] if self.enabled else []
        on_a_node = -(-workers // max(1, len(nodes)))
        self._make = lambda strategy: actor.options(
            num_cpus=0, max_concurrency=GROUPS_AT_ONCE, scheduling_strategy=strategy
        ).remote(spec, cores, on_a_node)
        self._timeout = timeout
        # Each to its node by name: "SPREAD" may put two on one, and their shares of its cores would not fit.
        places = itertools.islice(itertools.cycle(nodes), workers)
        self._workers = [self._make(NodeAffinitySchedulingStrategy(node, soft=False)) for node in places]
        self._pending: dict[Any, _Pending] = {}
        self._last_progress = time.monotonic()
        if self.enabled:
            self._wait_until_ready()

    def submit(self, request: RewardRequest) -> Any:
        """Start scoring ``request``; the returned reference becomes ready when the rewards are there."""
        if not self._pending:
            self._last_progress = time.monotonic()
        return self._submit(request, attempts=1)

    def result(self, ref: Any) -> list[Reward]:
        """The rewards behind a reference that is ready.

        Raises:
            RewardError: if the reward function raised, workers keep dying under this group, or it hangs in a new one.
        """
        pending = self._pending.pop(ref)
        while True:
            try:
                rewards = ray.get(ref, timeout=self._timeout)
                self._last_progress = time.monotonic()
                return rewards
            except ray.exceptions.RayActorError as error:
                if pending.attempts >= MAX_ATTEMPTS:
                    raise RewardError(
                        f"reward workers died {MAX_ATTEMPTS} times while scoring the completions of "
                        f"label {pending.request.label!r}: {error}"
                    ) from None
                logger.warning(f"a reward worker died; its groups are scored again ({error})")
                self._replace(pending)
                ref = self._submit(pending.request, pending.attempts + 1)
                pending = self._pending.pop(ref)
            except ray.exceptions.GetTimeoutError:
                raise self._hangs([pending.request.label]) from None
            except ray.exceptions.RayTaskError as error:
                raise RewardError(f"the reward function raised on label {pending.request.label!r}:\n{error}") from None

    def check_progress(self, waiting: Iterable[Any], progressed: bool) -> None:
        """Raise if nothing has been scored for ``--maxk.reward_timeout`` seconds.

        Raises:
            RewardError: naming the labels that are waited for.
        """
        now = time.monotonic()
        if progressed:
            self._last_progress = now
        elif now - self._last_progress > self._timeout:
            raise self._hangs([self._pending[ref].request.label for ref in waiting][:3])

    def _hangs(self, labels: list[str]) -> RewardError:
        return RewardError(
            f"no reward came back for {self._timeout:g} s (--maxk.reward_timeout); waiting for labels {labels}. "
            "The reward function hangs, or needs a larger timeout."
        )

    def _submit(self, request: RewardRequest, attempts: int) -> Any:
        loads = [0] * len(self._workers)
        for pending in self._pending.values():
            loads[pending.worker] += 1
        worker = min(range(len(loads)), key=loads.__getitem__)
        if self._labels_are_problems:  # equal programs of one problem run once, in the worker that has it already
            same = (pending.worker for pending in self._pending.values() if pending.request.label == request.label)
            worker = next(same, worker)
        actor = self._workers[worker]
        ref = actor.score.remote(request)
        self._pending[ref] = _Pending(request, worker, actor, attempts)
        return ref

    def _replace(self, pending: _Pending) -> None:
        """Start a new worker where one died; of its groups, the first to notice does it."""
        if self._workers[pending.worker] is pending.actor:
            self._workers[pending.worker] = self._make("SPREAD")

    def _wait_until_ready(self) -> None:
        try:
            ray.get([worker.__ray_ready__.remote() for worker in self._workers], timeout=START_SECONDS)
        except ray.exceptions.RayActorError as error:
            raise RewardError(f"a reward worker could not start: {error}") from None
        except ray.exceptions.GetTimeoutError:
            raise RewardError(f"reward workers did not start within {START_SECONDS:g} s") from None
