# What train_offpolicy_bon.sh and ray_job_submit.sh share. Sourced, not run: expects PLATFORM, MODEL, DATA, OBJECTIVE, OUT;
# sets SAMPLES, MAX_NEW_TOKENS and the array train_options.
if [[ "$PLATFORM" == cpu ]]; then
    SAMPLES=${SAMPLES:-128} MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-40}
    train_options=(
        --rollout.n_samples_per_prompt 8 --rollout.batch_size 32 --rollout.micro_batch_size 256
        --train.batch_size 128 --train.micro_batch_size 128 --train.max_epochs 3
        --data.max_len 96 --data.max_samples "${MAX_PROMPTS:-960}"
        --actor.adam.lr "${LEARNING_RATE:-5e-5}" --actor.lr_scheduler constant --actor.lr_warmup_ratio 0
        --ckpt.save_steps 10
    )
else
    # The paper, section 4.4, on NODES nodes of GPUS GPUs (those of this machine, or 8). Learner and reference get the largest
    # power of two that is at most half, since batches are powers of two; vLLM gets the others. One GPU is shared: what is
    # not at work sleeps in the machine's memory.
    if [[ -z "${GPUS:-}" ]]; then
        GPUS=$({ nvidia-smi -L 2>/dev/null || true; } | { grep -c ^GPU || true; })
        if [[ "$GPUS" == 0 ]]; then GPUS=8; fi
    fi
    SAMPLES=${SAMPLES:-256} MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-256} NODES=${NODES:-1}
    learners=1
    while ((learners * 4 <= GPUS)); do learners=$((learners * 2)); done
    if ((GPUS == 1)); then
        sharing=(
            --train.colocate_all --vllm.enable_sleep --ds.enable_sleep
            --vllm.num_engines "$NODES" --vllm.gpu_memory_utilization 0.5
        )
    else
        sharing=(
            --train.colocate_actor_ref
            --vllm.num_engines "$((NODES * (GPUS - learners)))" --vllm.gpu_memory_utilization 0.85
        )
    fi
    train_options=(
        --rollout.n_samples_per_prompt 8 --rollout.batch_size 128 --rollout.micro_batch_size 8
        --train.batch_size 512 --train.micro_batch_size 8 --train.max_epochs 3
        --data.max_len 1024 --data.apply_chat_template --actor.adam.lr "${LEARNING_RATE:-5e-6}"
        --actor.num_nodes "$NODES" --actor.num_gpus_per_node "$learners"
        --ref.num_nodes "$NODES" --ref.num_gpus_per_node "$learners" "${sharing[@]}"
        --ds.zero_stage 3 --actor.gradient_checkpointing_enable
        --ckpt.save_steps 20
    )
fi
train_options+=(
    --actor.model_name_or_path "$MODEL"
    --data.prompt_dataset "$DATA/train.jsonl" --data.input_key input --data.label_key label
    --maxk.problems "$DATA" --maxk.objective "$OBJECTIVE"
    --rollout.temperature 1.0 --rollout.top_p 1.0 --rollout.max_new_tokens "$MAX_NEW_TOKENS"
    --algo.kl.init_coef 0.01 --algo.kl.use_loss --algo.kl.estimator k3
    --ckpt.output_dir "$OUT/model" --ckpt.path "$OUT/checkpoints" --ckpt.load_enable --ckpt.max_num 2
    --logger.tensorboard_dir "$OUT/tensorboard"
)
