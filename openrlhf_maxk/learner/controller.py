"""The controller: OpenRLHF's PPO trainer with the metrics of groups, and with news for whoever started the run."""

from __future__ import annotations

import math
from typing import Any

import torch
from openrlhf.utils.logging_utils import init_logger

from openrlhf_maxk.console import Console
from openrlhf_maxk.evaluation.during_training import check_best_metric
from openrlhf_maxk.experience.group import without_fillers
from openrlhf_maxk.experience.metrics import POLICY_ENTROPY
from openrlhf_maxk.learner.schedule import optimizer_steps_of_run, progress
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.rewards.scoring.health import MOST, TEXTS, Ailment, excerpt
from openrlhf_maxk.upstream.seams import Upstream

logger = init_logger(__name__)

MOST_CLIPPED = 0.01  # of the tokens, before it is said
SAID_ALREADY = ("reward", "response_length", "truncated")
"""What OpenRLHF's learner averages over its micro-batches, and ``rollout/*`` says under a fuller name."""

RENAMED = {"maxk/policy_entropy": POLICY_ENTROPY}  # of the learner, where it computes what the maker leaves out


class GroupController(Upstream):
    """In front of OpenRLHF's ``PPOTrainer`` (the single controller of a run)."""

    def __init__(self, pretrain: str, strategy: Any, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(strategy.args.train.seed)  # of the order of the data; upstream seeds its learners only
        super().__init__(pretrain, strategy, *args, **kwargs)
        arguments = self.args
        self.maxk = options_of(arguments)
        self.experience_maker.learner_knows = True
        steps = math.ceil(len(self.prompts_dataloader) / arguments.rollout.batch_size)  # the last may be smaller
        self.total_steps = max(1, steps * arguments.train.num_episodes)
        self.console = Console.of(arguments)
        self._warned: set[str] = set()
        if self.wandb_logger:
            _draw_evaluations_over_steps(self.wandb_logger.handle)
        check_best_metric(
            arguments.ckpt.best_metric_key,
            self.eval_dataloader,
            arguments.eval.n_samples_per_prompt,
            self.maxk.strategy,
        )

    def fit(self, global_step: int = 0) -> None:
        """Run the training; whoever follows the console hears of its start and of every step."""
        self.console.send("start", total=self.total_steps)
        n = self.args.rollout.n_samples_per_prompt
        if self.maxk.k.largest(n) > n:
            self._warn(
                "beyond",
                f"--maxk.k {self.maxk.k} is beyond the {n} completions of a group, which have no unbiased estimate of "
                f"it: k = {n} is trained for in its place, the nearest that has one (--maxk.k_beyond_n nearest)",
            )
        super().fit(global_step)

    def get_max_steps(self) -> int:
        """The optimizer steps of the run, for the learning rate's schedule; upstream leaves out the smaller ones."""
        args = self.args
        return optimizer_steps_of_run(
            len(self.prompts_dataloader),
            args.rollout.batch_size,
            args.rollout.n_samples_per_prompt,
            args.train.batch_size,
            args.actor.num_nodes * args.actor.num_gpus_per_node,
            args.train.max_epochs,
            args.train.num_episodes,
        )

    def init_checkpoint_states(self) -> dict[str, Any]:
        """As upstream; k starts from where a resumed run was."""
        states = super().init_checkpoint_states()
        self.samples_generator.consumed = states["total_consumed_prompts"]
        self._set_progress(states["global_step"])
        self.console.send("resume", step=states["global_step"])
        return states

    def train_step(self, rollout_samples: Any, global_step: int) -> tuple[dict[str, Any], int]:
        """One step, with k as the schedule says for it; each metric has one name."""
        status, global_step = super().train_step(rollout_samples, global_step)
        self._set_progress(global_step)
        self._warn_of(status, global_step)
        return {RENAMED.get(n, n): value for n, value in status.items() if n not in SAID_ALREADY}, global_step

    def _set_progress(self, global_step: int) -> None:
        maker, sampler = self.experience_maker, self.samples_generator
        prompts = len(self.prompts_dataloader) * self.args.train.num_episodes
        maker.progress = progress(sampler.consumed, global_step, prompts, self.args.rollout.batch_size)
        sampler.k = maker.k

    def _warn_of(self, status: dict[str, Any], global_step: int) -> None:
        """Say once what makes the gradient another one than max@k's; the metrics say it at every step."""
        clipped = status.get("maxk/clipped_positive", 0.0) + status.get("maxk/clipped_negative", 0.0)
        fallen = status.get("maxk/ratio_fallback", 0.0)
        if clipped > MOST_CLIPPED:
            self._warn(
                "clip",
                f"step {global_step}: the clip silences {clipped:.1%} of the tokens (maxk/clipped_*): what is followed "
                "is no longer the gradient of max@k. Take a smaller learning rate, fewer --train.max_epochs, or "
                "--maxk.loss score",
            )
        if status.get("maxk/rows", 1.0) < 1 and self.maxk.rows == "auto":
            self._warn(
                "rows",
                "groups of this model are not computed as rows but padded, as OpenRLHF does it: right, and slower "
                "(maxk/rows; the learner's log says why)",
            )
        if fallen > 0:
            self._warn(
                "fallback",
                f"step {global_step}: the ratios of {fallen:.1%} of the completions say too little (--maxk.min_ess "
                f"{self.maxk.min_ess}); their groups are taken as on-policy (maxk/ratio_fallback)",
            )

        shares = {ailment: status.get(f"reward/{ailment}", 0.0) for ailment in Ailment}
        if sum(shares.values()) > MOST:
            worst = max(shares, key=shares.__getitem__)
            example = self.samples_generator.counts.ailing.get(worst)
            self._warn(
                "health",
                f"step {global_step}: {sum(shares.values()):.0%} of the completions get nothing before any test has a "
                f"say (reward/*); most of them are completions {TEXTS[worst]}"
                + (f", such as {excerpt(example)}" if example is not None else ""),
            )

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(text)
            self.console.send("warning", text=text)

    def _compute_rollout_stats(self, experiences: Any) -> dict[str, float]:
        """Upstream's statistics of the rollouts, fillers left out, with those of the groups."""
        stats = super()._compute_rollout_stats([without_fillers(experience) for experience in experiences])
        return {
            **stats,
            **self.experience_maker.metrics,
            **self.samples_generator.counts.metrics(),
        }

    def save_logs_and_checkpoints(
        self, global_step: int, logs_dict: dict[str, Any] | None = None, client_states: Any = None
    ) -> None:
        """As upstream, and to the console. A checkpoint of an episode's last step goes on with the next episode."""
        if client_states and self.samples_generator.is_exhausted:
            # The data loader's state is that of a new pass by then; upstream would make it in the same episode.
            client_states["episode"] += 1
        numbers = {name: value for name, value in (logs_dict or {}).items() if isinstance(value, int | float)}
        self.console.send("step", step=global_step, metrics=numbers)
        super().save_logs_and_checkpoints(global_step, logs_dict, client_states)
        if not math.isinf(self.args.ckpt.save_steps) and global_step % self.args.ckpt.save_steps == 0:
            self.console.send("checkpoint", step=global_step)

    def evaluate(self, global_step: int, **generate_kwargs: Any) -> dict[str, float]:
        """As upstream (on groups, by the unbiased estimators), and to the console."""
        logs = super().evaluate(global_step, **generate_kwargs)
        self.console.send("evaluation", step=global_step, metrics=logs)
        return logs


def _draw_evaluations_over_steps(wandb: Any) -> None:
    """OpenRLHF ties ``eval/*`` to ``eval/epoch``, which it never logs: W&B would draw nothing (OpenRLHF #1281)."""
    wandb.define_metric("eval/global_step")
    wandb.define_metric("eval/*", step_metric="eval/global_step", step_sync=True, overwrite=True)
