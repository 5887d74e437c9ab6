"""What becomes of every option of OpenRLHF: it is passed through, or refused.

    python -m openrlhf_maxk.options.table

A test makes the list of options from OpenRLHF's own parser, so that a new one has to be read about before it is passed
through. An option that is passed through may be refused on a condition; one that is not is refused at any value but its
default.
"""

from __future__ import annotations

from openrlhf_maxk.options.refusals import learning, machinery, optimization, running, strategy
from openrlhf_maxk.options.refusals.rule import Rule

RULES: tuple[Rule, ...] = (
    *learning.RULES,
    *strategy.RULES,
    *optimization.RULES,
    *machinery.RULES,
    *running.RULES,
)

# By what they are about.
PASSED = {
    "sizes": """
        actor.num_nodes actor.num_gpus_per_node ref.num_nodes ref.num_gpus_per_node
        reward.num_nodes reward.num_gpus_per_node train.colocate_actor_ref train.colocate_all""",
    "rollouts": """
        rollout.batch_size rollout.micro_batch_size rollout.n_samples_per_prompt rollout.vllm_generate_batch_size
        rollout.max_new_tokens rollout.temperature rollout.top_p data.max_len train.agent_func_path
        algo.dynamic_filtering_enable algo.dynamic_filtering_range""",
    "vLLM": """
        vllm.num_engines vllm.tensor_parallel_size vllm.gpu_memory_utilization vllm.enable_prefix_caching
        vllm.enforce_eager vllm.enable_sleep vllm.sync_backend vllm.sync_with_ray""",
    "rewards": """
        reward.remote_url reward.model_name_or_path reward.normalize_enable reward.offload reward.clip_range
        reward.overlong_buffer_len reward.overlong_penalty_factor reward.stop_properly_penalty_coef
        ds.value_head_prefix""",
    "advantages and loss": """
        algo.advantage.estimator algo.advantage.is_correction_level algo.advantage.is_correction_mode
        algo.advantage.is_correction_gating algo.advantage.is_correction_threshold
        actor.eps_clip actor.eps_clip_low_high actor.dual_clip actor.entropy_coef actor.aux_loss_coef""",
    "KL": """
        algo.kl.init_coef algo.kl.target algo.kl.horizon algo.kl.estimator algo.kl.use_loss
        algo.kl.unbiased_gradient ref.offload""",
    "optimizer": """
        train.batch_size train.micro_batch_size train.dynamic_batch_enable train.max_tokens_per_gpu
        rollout.max_tokens_per_gpu train.max_epochs train.num_episodes
        actor.optim actor.adam.lr actor.adam.betas actor.adam.eps actor.adam.weight_decay actor.muon.lr
        actor.muon.momentum actor.lr_scheduler actor.lr_warmup_ratio actor.min_lr_ratio actor.max_norm""",
    "model and DeepSpeed": """
        actor.model_name_or_path actor.gradient_checkpointing_enable actor.gradient_checkpointing_reentrant
        ds.zero_stage ds.param_dtype ds.zpg ds.adam_offload ds.enable_sleep ds.grad_accum_dtype ds.overlap_comm
        ds.deepcompile ds.attn_implementation ds.experts_implementation ds.use_liger_kernel
        ds.packing_samples train.seed train.full_determinism_enable""",
    "LoRA": "ds.lora.rank ds.lora.alpha ds.lora.target_modules ds.lora.dropout",
    "data": """
        data.prompt_dataset data.prompt_probs data.prompt_split data.input_key data.label_key data.input_template
        data.apply_chat_template data.max_samples data.dataloader_num_workers""",
    "evaluation, checkpoints, logs": """
        eval.dataset eval.split eval.steps eval.temperature eval.n_samples_per_prompt
        ckpt.output_dir ckpt.path ckpt.save_steps ckpt.load_enable ckpt.best_metric_key ckpt.max_num ckpt.max_mem
        ckpt.save_hf ckpt.disable_ds ds.use_universal_ckpt
        logger.logging_steps logger.tensorboard_dir logger.wandb.key logger.wandb.org logger.wandb.group
        logger.wandb.project logger.wandb.run_name""",
}


def passed() -> list[str]:
    """The options that are passed through."""
    return [name for names in PASSED.values() for name in names.split()]


def never() -> list[str]:
    """The options that are refused at any value but their default."""
    return [name for rule in RULES if rule.is_final for name in rule.names]


def passed_rows() -> list[list[str]]:
    """The table of what is passed through, for the guide."""
    return [[subject, _options(names.split())] for subject, names in PASSED.items()]


def refused_rows() -> list[list[str]]:
    """The table of what is refused, for the guide."""
    return [
        [" ".join(filter(None, (_options(rule.names), rule.values, rule.when))), rule.why, rule.instead]
        for rule in RULES
    ]


def _options(names: list[str]) -> str:
    return ", ".join(f"`--{name}`" for name in names)


def main() -> None:
    """Print both tables, as they stand in the guide."""
    for head, rows in ((["about", "options"], passed_rows()), (["option", "why", "instead"], refused_rows())):
        print("\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)), end="\n\n")


if __name__ == "__main__":
    main()
