"""The controller: OpenRLHF's PPO trainer with the metrics of groups, and with news for whoever started the run."""

from __future__ import annotations

import math
from typing import Any

from openrlhf.utils.logging_utils import init_logger

from openrlhf_maxk.console import Console
from openrlhf_maxk.evaluation.during_training import check_best_metric
from openrlhf_maxk.options.maxk import options_of
from openrlhf_maxk.upstream.seams import Upstream

logger = init_logger(__name__)


class GroupController(Upstream):
    """In front of OpenRLHF's ``PPOTrainer`` (the single controller of a run)."""

    def __init__(self, pretrain: str, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(pretrain, strategy, *args, **kwargs)
        arguments = self.args
        self.maxk = options_of(arguments)
        steps = math.ceil(len(self.prompts_dataloader) / arguments.rollout.batch_size)  # the last may be smaller
        self.total_steps = max(1, steps * arguments.train.num_episodes)
        self.console = Console.of(arguments)
        check_best_metric(arguments.ckpt.best_metric_key, self.eval_dataloader, arguments.eval.n_samples_per_prompt)

    def fit(self, global_step: int = 0) -> None:
        """Run the training; whoever follows the console hears of its start and of every step."""
        self.console.send("start", total=self.total_steps)
        super().fit(global_step)

    def init_checkpoint_states(self) -> dict[str, Any]:
        """As upstream; k starts from where a resumed run was."""
        states = super().init_checkpoint_states()
        self._set_progress(states["global_step"])
        self.console.send("resume", step=states["global_step"])
        return states

    def train_step(self, rollout_samples: Any, global_step: int) -> tuple[dict[str, Any], int]:
        """One step, with k as the schedule says for it."""
        status, global_step = super().train_step(rollout_samples, global_step)
        self._set_progress(global_step)
        return status, global_step

    def _set_progress(self, global_step: int) -> None:
        maker = self.experience_maker
        maker.progress = global_step / max(self.total_steps - 1, 1)
        self.samples_generator.k = maker.k

    def _compute_rollout_stats(self, experiences: Any) -> dict[str, float]:
        """Upstream's statistics of the rollouts, with those of the groups."""
        stats = super()._compute_rollout_stats(experiences)
        return {
            **stats,
            **self.experience_maker.metrics,
            **self.samples_generator.counts.metrics(),
        }

    def save_logs_and_checkpoints(
        self, global_step: int, logs_dict: dict[str, Any] | None = None, client_states: Any = None
    ) -> None:
        """As upstream, and to the console."""
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
