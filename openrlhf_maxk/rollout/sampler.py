"""From prompts to scored groups: generation and rewards overlap, and every group arrives whole or is counted."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties
from openrlhf.trainer.ppo_utils.samples_generator import _collect_prompt_batch
from openrlhf.utils.logging_utils import init_logger
from vllm import SamplingParams

from openrlhf_maxk.experience.advantages import group_advantages
from openrlhf_maxk.experience.group import Group, minimum_size
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.rewards.request import Reward, RewardRequest
from openrlhf_maxk.rewards.scoring.health import Ailment
from openrlhf_maxk.rewards.serving.pool import RewardPool
from openrlhf_maxk.upstream.seams import Upstream

logger = init_logger(__name__)

POLL_SECONDS = 1.0


@dataclass(slots=True)
class RolloutCounts:
    """What became of the completions of one call."""

    asked: int = 0
    lost: int = 0  # not generated, or not scored
    dropped_groups: int = 0  # too few completions left
    filtered_groups: int = 0  # by dynamic filtering
    reward_logs: dict[str, list[float]] = field(default_factory=dict)
    ailing: dict[Ailment, str] = field(default_factory=dict)  # a completion of each ailment
    reward_wait_seconds: float = 0.0  # when nothing was left to generate

    def metrics(self) -> dict[str, float]:
        """The counts as metrics of the step."""
        means = {f"reward/{name}": sum(values) / len(values) for name, values in self.reward_logs.items() if values}
        return {
            "rollout/lost_completions": float(self.lost),
            "rollout/lost_share": self.lost / max(self.asked, 1),
            "rollout/dropped_groups": float(self.dropped_groups),
            "rollout/filtered_groups": float(self.filtered_groups),
            "rollout/reward_wait_seconds": self.reward_wait_seconds,
            **means,
        }


class TooManyLost(RuntimeError):
    """More completions were lost to failures of the machinery than ``--maxk.max_lost`` allows."""


class GroupSampling(Upstream):
    """In front of OpenRLHF's ``SamplesGenerator``: its samples are :class:`~openrlhf_maxk.experience.group.Group`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.maxk = options_of(self.args)
        self.counts = RolloutCounts()
        self.consumed = 0  # prompts, of the whole run
        self._group_ids = itertools.count()
        self._tokenizer_ref: Any = None
        self.k = self.maxk.k.at(0.0, self.args.rollout.n_samples_per_prompt)
        self._smallest = self._smallest_group
        self.rewards = RewardPool(
            self.maxk.reward_spec(self.args.reward.remote_url or ()),
            self.maxk.reward_workers,
            self.maxk.reward_cores,
            self.maxk.reward_timeout,
        )

    def generate_samples(self, **generate_kwargs: Any) -> tuple[list[Group], float | None, int, bool]:
        """As upstream, counting the prompts that are used."""
        samples, pass_rate, consumed, exhausted = super().generate_samples(**generate_kwargs)
        self.consumed += consumed
        return samples, pass_rate, consumed, exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether the last call has come to the end of the data, and has returned all that was made of it."""
        return self._dataloader_iter is None and not self._sample_buffer

    def _smallest_group(self) -> int:
        return minimum_size(self.k)

    def generate_eval_samples(self, **generate_kwargs: Any) -> list[Group]:
        """As upstream; for a metric, a group is good from one completion on."""
        self._smallest = lambda: 1
        try:
            return super().generate_eval_samples(**generate_kwargs)
        finally:
            self._smallest = self._smallest_group

    def _generate_vllm(self, dataloader_iter, num_prompts: int, dynamic_filtering, **generate_kwargs):
        """Generate ``num_prompts`` groups; with dynamic filtering, a group that is filtered out is replaced.

        Returns:
            The groups, how many prompts were used, and whether the data is exhausted (as upstream).
        """
        counts = self.counts = RolloutCounts()
        n = generate_kwargs.get("n_samples_per_prompt", self.args.rollout.n_samples_per_prompt)
        prompts, labels, images, exhausted = _collect_prompt_batch(dataloader_iter, num_prompts)
        if not prompts:
            return [], 0, True
        consumed = len(prompts)
        generating = set(self._dispatch_prompts_to_vllm(prompts, labels, images=images, **generate_kwargs))
        scoring: dict[Any, list[dict[str, Any]]] = {}
        groups: list[Group] = []

        def finish(responses: list[dict[str, Any]], rewards: list[Reward] | None) -> None:
            nonlocal consumed, exhausted
            group = self._group(responses, rewards, n, counts, **generate_kwargs)
            if group is not None and dynamic_filtering and not (self._in_range(group) and self._has_signal(group)):
                counts.filtered_groups += 1
                group = None
            if group is not None:
                groups.append(group)
            elif dynamic_filtering:
                more, more_labels, more_images, exhausted = _collect_prompt_batch(dataloader_iter, 1)
                consumed += len(more)
                if more:
                    generating.update(
                        self._dispatch_prompts_to_vllm(more, more_labels, images=more_images, **generate_kwargs)
                    )

        while generating or scoring:
            started = time.monotonic()
            only_rewards = not generating
            ready, _ = ray.wait([*generating, *scoring], num_returns=1, timeout=POLL_SECONDS)
            if only_rewards:
                counts.reward_wait_seconds += time.monotonic() - started
            if scoring:
                self.rewards.check_progress(scoring, progressed=any(ref in scoring for ref in ready))
            for ref in ready:
                if ref in scoring:
                    finish(scoring.pop(ref), self.rewards.result(ref))
                    continue
                generating.remove(ref)
                responses = ray.get(ref)
                if responses and self.rewards.enabled and responses[0]["reward"] is None:
                    scoring[self.rewards.submit(_request(responses))] = responses
                else:
                    finish(responses, None)

        self._check_losses(counts, groups)
        return sorted(groups, key=lambda group: group.id), consumed, exhausted

    def _dispatch_prompts_to_vllm(self, prompts, labels, *, images=None, **generate_kwargs):
        """Start one request a prompt, each on the engine with the fewest samples waiting; returns references."""
        if self._tokenizer_ref is None:
            self._tokenizer_ref = ray.put(self.tokenizer)  # it travels once, not with every prompt
        n = generate_kwargs.get("n_samples_per_prompt", self.args.rollout.n_samples_per_prompt)
        wants_log_probs = self.maxk.behaviour == "rollout" or self.args.algo.advantage.is_correction_level != "off"
        params = SamplingParams(
            temperature=generate_kwargs.get("temperature", 1.0),
            top_p=generate_kwargs.get("top_p", 1.0),
            top_k=generate_kwargs.get("top_k", -1),
            max_tokens=generate_kwargs.get("max_new_tokens"),
            min_tokens=generate_kwargs.get("min_new_tokens", 1),
            skip_special_tokens=generate_kwargs.get("skip_special_tokens", False),
            logprobs=1 if wants_log_probs else None,
        )
        waiting = ray.get([engine.get_num_unfinished_requests.remote() for engine in self.vllm_engines])
        engines = [(count, index) for index, count in enumerate(waiting)]
        heapq.heapify(engines)
        refs = []
        for prompt, label, image in zip(prompts, labels, images or [None] * len(prompts), strict=True):
            count, index = engines[0]
            heapq.heapreplace(engines, (count + n, index))
            refs.append(
                self.vllm_engines[index].generate_responses.remote(
                    prompt=prompt,
                    label=label,
                    sampling_params=params,
                    max_length=generate_kwargs.get("max_len", 2048),
                    hf_tokenizer=self._tokenizer_ref,
                    num_samples=n,
                    images=image,
                )
            )
        return refs

    def _group(
        self,
        responses: list[dict[str, Any]],
        rewards: list[Reward] | None,
        n: int,
        counts: RolloutCounts,
        **generate_kwargs: Any,
    ) -> Group | None:
        """The group of the completions that were generated and scored; None if too few are left to train on."""
        counts.asked += n
        if rewards is not None:
            for response, reward in zip(responses, rewards, strict=True):
                response.update(reward=reward.reward, scores=reward.score, extra_logs={})
                for name, value in reward.logs.items():
                    counts.reward_logs.setdefault(name, []).append(value)
                for ailment in Ailment:
                    if reward.logs.get(ailment):
                        counts.ailing.setdefault(ailment, response["completion"])
        if rewards is not None or self.args.train.agent_func_path:  # a reward model scores later
            responses = [response for response in responses if _is_number(response["reward"])]
        lost = n - len(responses)
        counts.lost += lost
        if len(responses) < self._smallest():
            counts.dropped_groups += 1
            return None
        members = [self._process_response_into_experience(response, **generate_kwargs) for response in responses]
        return Group(next(self._group_ids), members, lost)

    def _in_range(self, group: Group) -> bool:
        scores = [member.scores.item() for member in group.members if member.scores is not None]
        low, high = self.args.algo.dynamic_filtering_range
        return not scores or low < sum(scores) / len(scores) < high

    def _has_signal(self, group: Group) -> bool:
        """Whether the objective says anything about the group, with the rewards that it will be trained on."""
        if group.rewards is None:  # a reward model scores later
            return True
        members = [copy(member) for member in group.members]
        for member in members:
            member.rewards, member.info = member.rewards.float().clone(), {}
        apply_length_penalties(members, self.args)
        rewards = torch.cat([member.rewards for member in members]).clamp(*self.args.reward.clip_range)
        same = torch.zeros(group.size, dtype=torch.long)
        advantages = group_advantages(same, rewards, None, torch.full_like(same, self.k), self.maxk)
        return bool(advantages.values.any())

    def _check_losses(self, counts: RolloutCounts, groups: Iterable[Group]) -> None:
        if counts.lost:
            logger.warning(
                f"{counts.lost} of {counts.asked} completions were lost to failures of the machinery; "
                f"{counts.dropped_groups} groups were dropped for it"
            )
        if counts.lost > self.maxk.max_lost * counts.asked:
            raise TooManyLost(
                f"{counts.lost} of {counts.asked} completions were lost to failures of the machinery, more than "
                f"--maxk.max_lost {self.maxk.max_lost} allows. Failures are never scored as rewards; see the log of "
                "the reward workers and engines for their cause."
            )


def _is_number(reward: Any) -> bool:
    return reward is not None and not math.isnan(float(reward))


def _request(responses: list[dict[str, Any]]) -> RewardRequest:
    return RewardRequest(
        prompt=responses[0]["prompt"],
        label=responses[0]["label"],
        queries=tuple(response["query"] for response in responses),
        completions=tuple(response["completion"] for response in responses),
    )
