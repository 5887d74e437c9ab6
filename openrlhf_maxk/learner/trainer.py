"""The learner: PPO epochs over optimizer steps of whole groups, with the off-policy correction inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from openrlhf.trainer.ppo_utils.experience import Experience, make_experience_batch
from openrlhf.utils.loss_utils import iter_grad_accum_global_norm
from tqdm import tqdm

from openrlhf_maxk.experience.advantages import GroupAdvantages, group_advantages, sequence_log_ratios
from openrlhf_maxk.experience.behaviour import keep
from openrlhf_maxk.experience.group import CHOSEN_BY, GROUP, SEQUENCE_ADVANTAGE, K
from openrlhf_maxk.experience.sharding import row_tokens
from openrlhf_maxk.learner.batch import GroupBatch
from openrlhf_maxk.learner.buffer import count_steps, cut_by_count, cut_by_tokens, optimizer_steps
from openrlhf_maxk.learner.lora import MergedBroadcast
from openrlhf_maxk.learner.loss import GroupPolicyLoss
from openrlhf_maxk.learner.status import StatusMean
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.rows.check import OFF


class GroupLearner(MergedBroadcast):
    """In front of OpenRLHF's ``ActorPPOTrainer``: its own loop over optimizer steps, upstream's training step in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.maxk = options_of(self.args)
        self.actor_loss_fn: GroupPolicyLoss = GroupPolicyLoss(self.actor_loss_fn, self.maxk)
        self.actor.entropy_gradient = bool(self.args.actor.entropy_coef)
        if self.maxk.rows == "off":
            self.actor.rows = OFF
        self.args.vllm.enable_prefix_caching = True  # the rollout actors' always is; weights that leave clear the cache
        self._dropout = _has_dropout(self.actor)  # then training passes say other log-probs than evaluation
        self._updates = 0  # calls of ppo_train, to shuffle differently in each

    def ppo_train(self, kl_ctl: float) -> dict[str, float]:
        """Train on everything in the buffer for ``--train.max_epochs`` PPO epochs; returns the mean of the metrics."""
        args, strategy = self.args, self.strategy
        n, world = args.rollout.n_samples_per_prompt, args.actor.num_nodes * args.actor.num_gpus_per_node
        unknown = self.replay_buffer.log_probs_unknown
        dynamic, tokens = args.train.dynamic_batch_enable, args.train.max_tokens_per_gpu
        groups, spare = self.replay_buffer.groups(), self.replay_buffer.filler()
        steps = self._agree(count_steps(len(groups), args.train.batch_size // world, n))
        if dynamic:
            whole = not self._agree(int(any(row_tokens(group) > tokens for group in groups)))
            cut = cut_by_tokens(tokens, self._agree)
        else:
            whole = args.train.micro_batch_size % n == 0
            cut = cut_by_count(strategy.accumulated_gradient, whole)
        shuffle = torch.Generator().manual_seed(args.train.seed + self._updates)
        self._updates += 1
        status = StatusMean()
        loss_fn = self.actor_loss_fn
        with tqdm(
            total=self.max_epochs * steps,
            desc="PPO",
            unit="step",
            disable=not strategy.is_rank_0(),
        ) as bar:
            for epoch in range(self.max_epochs):
                windows = list(optimizer_steps(groups, spare, steps, cut, shuffle))
                computing = unknown and epoch == 0
                if computing:  # the first optimizer step's are those of its own pass
                    own = 0 if self._dropout and self.max_epochs > 1 else 1
                    self._compute_log_probs(chain.from_iterable(windows[own:]))
                for index, window in enumerate(windows):
                    loss_fn.policy_is_behaviour = self.maxk.behaviour == "learner" and epoch == index == 0
                    loss_fn.fills = computing and index < own
                    for batch, told in self._optimizer_step(window, kl_ctl, whole):
                        if computing:
                            told["group_sums"]["policy_entropy"] = _surprise(batch)
                        status.add(told)
                    bar.update()
        return status.reduce()

    def _optimizer_step(
        self, window: Sequence[Sequence[Experience]], kl_ctl: float, whole: bool
    ) -> Iterator[tuple[Experience, dict[str, Any]]]:
        """Train on the micro-batches of an optimizer step; yields each, with its status, when that is done."""
        batches = [self._batch(members) for members in window]
        known = self._advantages_of(batches) if not whole else [None] * len(batches)
        counted = iter_grad_accum_global_norm(batches, self.strategy, len(batches), lambda b: b.action_mask)
        self.replay_buffer.begin(len(batches))
        for step, ((batch, info), computed) in enumerate(zip(counted, known, strict=True)):
            if self.args.train.dynamic_batch_enable:
                # DeepSpeed takes each for a whole step, and does not divide by their number
                self.actor.model.set_gradient_accumulation_boundary(step == len(batches) - 1)
                for name in ("batch_num_tokens", "global_batch_size"):
                    info = {**info, name: info[name] * len(batches)}
            told = self._train_on(batch, kl_ctl, step, info, computed)
            if self.actor_loss_fn.fills and self.max_epochs > 1:
                keep(batch.action_log_probs, batch.action_mask, window[step])
            yield batch, told

    def _train_on(
        self, batch: Experience, kl_ctl: float, step: int, info: dict, computed: GroupAdvantages | None
    ) -> dict[str, Any]:
        """Upstream's training step on one micro-batch; its status with the group metrics added."""
        loss_fn = self.actor_loss_fn
        loss_fn.batch, loss_fn.computed = GroupBatch.of(batch), computed
        for key in (GROUP, K, SEQUENCE_ADVANTAGE, CHOSEN_BY):
            batch.info.pop(key, None)
        divisor = self._divisor(info)
        status = super().training_step(batch, kl_ctl, step, {**info, "batch_num_tokens": divisor})
        for name in ("policy_loss", "kl", "entropy_loss"):  # logged as means over tokens, whatever divides the loss
            if status["weights"].get(name) == "token":
                status["metrics"][name] = status["metrics"][name] * (divisor / info["batch_num_tokens"])
        assert loss_fn.computed is not None
        count = float(len(batch.rewards))
        status["group_sums"] = {
            **loss_fn.computed.sums,
            **loss_fn.silenced,
            "log_ratio_abs_measured": (loss_fn.drift * count, count),
            "rows": (float(self.actor.rows.agree) * count, count),
        }
        status["ratio_max"] = loss_fn.computed.largest_ratio
        return status

    def _divisor(self, info: dict) -> torch.Tensor:
        """What the sums over tokens of loss, KL and entropy are divided by, in upstream's terms (see ``info``).

        ``constant``: completions × the most tokens that one may have, which nothing that was sampled changes.
        """
        if self.maxk.aggregate == "token":
            return info["batch_num_tokens"]
        return info["global_batch_size"] * (self.args.rollout.max_new_tokens or self.args.data.max_len)

    @torch.no_grad()
    def _advantages_of(self, window: Sequence[Experience]) -> list[GroupAdvantages]:
        """Advantages at the current policy for an optimizer step whose micro-batches cut groups: one extra pass."""
        loss_fn = self.actor_loss_fn
        batches = [GroupBatch.of(batch) for batch in window]
        chosen_by = [batch.chosen_by for batch in batches if batch.chosen_by is not None]
        log_ratios = None
        if not loss_fn.policy_is_behaviour:
            log_ratios = torch.cat([self._log_ratios(batch) for batch in window])
        computed = group_advantages(
            torch.cat([batch.groups for batch in batches]),
            torch.cat([batch.rewards for batch in batches]),
            log_ratios,
            torch.cat([batch.ks for batch in batches]),
            self.maxk,
            torch.cat(chosen_by) if chosen_by else None,
        )
        return computed.split([len(batch.rewards) for batch in batches])

    @torch.no_grad()
    def _compute_log_probs(self, micro_batches: Iterable[Sequence[Experience]]) -> None:
        """Give single samples the log-probs of the policy as it is, in evaluation mode."""
        self.actor.eval()
        for members in micro_batches:
            batch = self._batch(members)
            keep(self._log_probs(batch), batch.action_mask, members)
        self.actor.train()

    def _batch(self, members: Sequence[Experience]) -> Experience:
        batch = make_experience_batch(list(members))
        batch.to_device(torch.cuda.current_device())
        return batch

    def _log_probs(self, batch: Experience) -> torch.Tensor:
        return self.actor(batch.sequences, batch.action_mask, attention_mask=batch.attention_mask)

    def _log_ratios(self, batch: Experience) -> torch.Tensor:
        log_probs = self._log_probs(batch)
        behaviour = batch.rollout_log_probs if self.maxk.behaviour == "rollout" else batch.action_log_probs
        return sequence_log_ratios(log_probs, behaviour, batch.action_mask)

    def _agree(self, steps: int) -> int:
        """The largest of a number over all ranks."""
        largest = torch.tensor(steps, device=torch.cuda.current_device())
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        return int(largest)


def _surprise(batch: Experience) -> tuple[float, float]:
    """The sum of −log π over the tokens that were sampled, and their number."""
    return -float((batch.action_log_probs * batch.action_mask).sum()), float(batch.action_mask.sum())


def _has_dropout(model: torch.nn.Module) -> bool:
    """Whether training passes of a model are random: by layers for it, or by layers' own numbers for it."""
    return any(
        (isinstance(layer, torch.nn.Dropout) and layer.p > 0)
        or any(
            isinstance(p, float) and p > 0 and ("drop" in name or "jitter" in name) for name, p in vars(layer).items()
        )
        for layer in model.modules()
    )
