"""A learner actor that records what it trains on and the gradients it makes. Runs inside real Ray actors."""

from __future__ import annotations

import os
from typing import Any

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad
from openrlhf.trainer.ray.ppo_actor import PolicyModelActor

RECORD = "MAXK_TEST_RECORD"  # environment: the file that rank 0 writes


class RecordingPolicy(PolicyModelActor.__ray_metadata__.modified_class):
    """Saves the gradients before each optimizer step."""

    def fit(self, kl_ctl: float = 0) -> Any:
        groups = self.trainer.replay_buffer.groups()
        rows = [
            {
                "group": int(row.info["maxk_group"]),
                "sequence": row.sequences.clone(),
                "mask": row.action_mask.clone(),
                "reward": float(row.rewards),
                "advantage": float(row.info["maxk_advantage"]),
            }
            for group in groups
            for row in group
        ]
        record: dict[str, Any] = {"rows": [], "steps": [], "left_out": self.trainer.replay_buffer.log_probs_unknown}
        everyone: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, rows)
        record["rows"] = [row for rank in everyone for row in rank]
        engine = self.actor.model
        upstream_backward, upstream_step = self.strategy.backward, self.strategy.optimizer_step
        trained_on: list[int] = []

        def recorded_backward(*args: Any, **kwargs: Any) -> None:
            trained_on.extend(self.trainer.actor_loss_fn.batch.groups.tolist())
            upstream_backward(*args, **kwargs)

        def recorded_step(*args: Any, **kwargs: Any) -> None:
            if engine.is_gradient_accumulation_boundary():
                gathered: list[Any] = [None] * torch.distributed.get_world_size()
                torch.distributed.all_gather_object(gathered, sorted(set(trained_on)))
                trained_on.clear()
                named = list(engine.module.named_parameters())
                record["steps"].append(
                    {
                        "groups": sorted(g for rank in gathered for g in rank),
                        "parameters": {name: safe_get_full_fp32_param(p).clone() for name, p in named}
                        if engine.zero_optimization_stage() == 3
                        else {name: p.detach().clone() for name, p in named},
                        "gradients": {name: safe_get_full_grad(p).clone() for name, p in named},
                    }
                )
            upstream_step(*args, **kwargs)

        self.strategy.backward, self.strategy.optimizer_step = recorded_backward, recorded_step
        try:
            status = super().fit(kl_ctl)
        finally:
            self.strategy.backward, self.strategy.optimizer_step = upstream_backward, upstream_step
        if torch.distributed.get_rank() == 0 and not os.path.exists(os.environ[RECORD]):
            record["status"] = status
            torch.save(record, os.environ[RECORD])
        return status
