"""The experience maker: groups in; log-probs, KL and a max@k objective's advantages out, groups still whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties

from openrlhf_maxk.experience.advantages import group_advantages, sequence_log_ratios
from openrlhf_maxk.experience.behaviour import unknown
from openrlhf_maxk.experience.group import SEQUENCE_ADVANTAGE, Group, K, chosen_by_of, group_ids, groups_of
from openrlhf_maxk.experience.metrics import rollout_metrics
from openrlhf_maxk.experience.sharding import forward_batches, shard
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.upstream.seams import Upstream


class GroupExperience(Upstream):
    """In front of OpenRLHF's ``RemoteExperienceMaker``.

    ``make_experience_batch`` takes groups (or upstream's flat list of samples, n a prompt) and returns upstream's list
    of micro-batches, of which the learner ranks receive equal consecutive parts: each part holds whole groups. Every
    micro-batch carries its samples' group ids, k and sequence-level advantage in ``info``, so that the learner can
    compute the advantages again once the policy has moved.

    Attributes:
        progress: the share of the run that is done, in [0, 1]; it decides k under a schedule. Set by the controller.
        learner_knows: whether the learner computes the policy's log-probs itself where they are left out. Set by the
            controller; a :class:`~openrlhf_maxk.learner.trainer.GroupLearner` does.
        metrics: of the last batch, for the logs.
    """

    learner_knows = False
    _left_out = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.algo.advantage.estimator == "gae":
            raise ValueError(
                "max@k objectives replace --algo.advantage.estimator and train no critic: "
                "set it to group_norm instead of gae"
            )
        self.maxk = options_of(self.args)
        self.progress = 0.0
        self.metrics: dict[str, float] = {}

    @property
    def k(self) -> int:
        """The k of the current step, for groups that have lost no completion."""
        n = self.args.rollout.n_samples_per_prompt
        return self.maxk.k_of(self.maxk.k.at(self.progress, n), n)

    def split_rollout_samples(self, rollout_samples: Sequence[Group] | Sequence[Experience]) -> list[Experience]:
        """Deal whole groups to the learner ranks and cut each rank's samples into micro-batches."""
        args = self.args
        groups = groups_of(rollout_samples, args.rollout.n_samples_per_prompt)
        for group in groups:
            for member in group.members:
                member.info[K] = torch.tensor([self.maxk.k_of(self.k, group.size)])
        ranks = args.actor.num_nodes * args.actor.num_gpus_per_node
        tokens = None
        if args.train.dynamic_batch_enable:
            tokens = args.rollout.max_tokens_per_gpu or args.train.max_tokens_per_gpu
        batches = forward_batches(shard(groups, ranks), args.rollout.micro_batch_size, tokens)
        pad = self.tokenizer.pad_token_id
        return [Experience.concat_experiences(batch, pad) for rank in batches for batch in rank]

    def make_experience(self, samples_list: list[Experience]) -> list[Experience]:
        """As upstream; the policy's log-probs are left to the learner where nothing before it asks for them.

        The learner's first optimizer step computes those of its own groups anyway. For other steps it makes a pass in
        micro-batches of training, so nothing is left out where those cut groups: their prompts count several times.
        """
        args, n = self.args, self.args.rollout.n_samples_per_prompt
        one_step = args.rollout.batch_size * n <= args.train.batch_size
        whole = args.train.dynamic_batch_enable or args.train.micro_batch_size % n == 0
        needed_for_kl = self.initial_model_group is not None and not args.algo.kl.use_loss
        from_vllm = any(samples.rollout_log_probs is not None for samples in samples_list)
        self._left_out = self.learner_knows and (one_step or whole) and not (needed_for_kl or from_vllm)
        return super().make_experience(samples_list)

    def _dispatch_forward(self, group: Any, sync_condition: bool, **kwargs: Any) -> Any:
        if self._left_out and group is self.actor_model_group:
            return [ray.put([unknown(mask) for mask in kwargs["action_mask"]])]
        return super()._dispatch_forward(group, sync_condition, **kwargs)

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """Add advantages and returns: the objective's advantage of the completion on each of its tokens, and upstream's
        token-level KL penalty where KL is part of the reward (no ``--algo.kl.use_loss``)."""
        args = self.args
        for experience in experiences:
            experience.rewards = experience.rewards.float()
        apply_length_penalties(experiences, args)
        groups = torch.cat([group_ids(experience.info) for experience in experiences])
        ks = torch.cat([torch.as_tensor(experience.info[K]).long().reshape(-1) for experience in experiences])
        rewards = torch.cat([experience.rewards for experience in experiences]).clamp(*args.reward.clip_range)
        lengths = [len(experience.rewards) for experience in experiences]
        log_ratios = None
        if self.maxk.behaviour == "rollout":
            log_ratios = torch.cat(
                [
                    sequence_log_ratios(e.action_log_probs, e.rollout_log_probs, e.action_mask.float())
                    for e in experiences
                ]
            )
        chosen_by = chosen_by_of(experiences)
        values = group_advantages(groups, rewards, log_ratios, ks, self.maxk, chosen_by).values

        for experience, value, reward in zip(experiences, values.split(lengths), rewards.split(lengths), strict=True):
            experience.rewards = reward
            per_token = compute_reward(
                value,
                self.kl_ctl.value,
                experience.kl,
                action_mask=experience.action_mask,
                reward_clip_range=None,
            )
            experience.returns = self.get_cumulative_returns(per_token, experience.action_mask, 1.0)
            experience.advantages = experience.returns.clone()
            experience.info["return"] = per_token.sum(dim=-1)
            experience.info[SEQUENCE_ADVANTAGE] = value
            experience.kl = None
        self.metrics = rollout_metrics(experiences, self.maxk.strategy)
        return experiences
