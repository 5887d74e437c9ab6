"""TRL's side, run by the Python that has TRL: GRPO with the settings of a JSON file, seconds per rollout to another.

TRL_PYTHON trl_grpo.py settings.json measured.json
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from reward import reward_of
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """When each rollout's last optimizer step ended, and the mean length of its completions."""

    def __init__(self, steps_per_rollout: int) -> None:
        self.steps_per_rollout = steps_per_rollout
        self.ends: list[float] = []
        self.lengths: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps_per_rollout == 0:
            self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "completions/mean_length" in logs:
            self.lengths.append(logs["completions/mean_length"])


def reward(completions: list[str], **kwargs: Any) -> list[float]:
    """As TRL asks for it."""
    return [reward_of(completion) for completion in completions]


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(settings["threads"])
    minibatches = settings["completions"] // settings["train_batch"]
    clock = Clock(minibatches * settings["epochs"])
    trainer = GRPOTrainer(
        model=settings["model"],
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=settings["folder"],
            use_cpu=True,
            bf16=False,
            model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
            gradient_checkpointing=False,  # the default, which computes everything twice to save memory
            num_generations=settings["n"],
            per_device_train_batch_size=settings["train_batch"],
            gradient_accumulation_steps=1,
            steps_per_generation=minibatches,
            num_iterations=settings["epochs"],
            max_completion_length=settings["max_new_tokens"],
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=0.0,
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            max_steps=settings["steps"] * clock.steps_per_rollout,
            logging_steps=clock.steps_per_rollout,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **settings["extra"],
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in settings["prompts"]]),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        callbacks=[clock],
    )
    trainer.train()
    measured = {
        "seconds": [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)],
        "lengths": clock.lengths[1:],
        "versions": {name: version(name) for name in ("trl", "transformers", "torch")},
    }
    Path(sys.argv[2]).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
