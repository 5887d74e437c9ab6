#!/usr/bin/env bash
# Train a language model for max@k, off-policy, and measure what it did: one command, from nothing to a table.
#
#   bash examples/scripts/train_offpolicy_bon.sh
#
# Without a GPU it trains a tiny model on the embedded benchmark, on the real stack: Ray, vLLM, DeepSpeed. With GPUs it
# trains Qwen2.5-Coder-7B-Instruct with the paper's settings; MODEL, DATA and OBJECTIVE change what is trained:
#
#   MODEL=Qwen/Qwen2.5-Coder-7B-Instruct DATA=data/codecontests OBJECTIVE=offpolicy_bon bash examples/scripts/train_offpolicy_bon.sh
#
# DATA is a folder made by `python -m openrlhf_maxk.cli.prepare`. More options for training go behind the command, such
# as `--maxk.k 8:1 --train.num_episodes 2`. What is done already is skipped; a run that was interrupted goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

OBJECTIVE=${OBJECTIVE:-offpolicy_bon}
OUT=${OUT:-outputs/$OBJECTIVE}
bash examples/scripts/setup.sh
python=.venv/bin/python
if [[ -z "${PLATFORM:-}" ]]; then
    PLATFORM=$("$python" -c 'from openrlhf_maxk.platform import is_cpu; print("cpu" if is_cpu() else "gpu")')
fi

if [[ -z "${MODEL:-}" && -z "${DATA:-}" && "$PLATFORM" == cpu ]]; then
    "$python" -m openrlhf_maxk.cli.mini --out outputs/mini
    MODEL=outputs/mini/base_model
    DATA=outputs/mini/problems
fi
MODEL=${MODEL:-Qwen/Qwen2.5-Coder-7B-Instruct}
DATA=${DATA:?set DATA to a folder made by: python -m openrlhf_maxk.cli.prepare codecontests --out data/codecontests}

if [[ "$PLATFORM" == cpu ]]; then
    SAMPLES=${SAMPLES:-128} MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-40}
    settings=(
        --rollout.n_samples_per_prompt 8 --rollout.batch_size 32 --rollout.micro_batch_size 256
        --train.batch_size 128 --train.micro_batch_size 128 --train.max_epochs 3
        --data.max_len 96 --data.max_samples "${MAX_PROMPTS:-960}" --actor.adam.lr "${LEARNING_RATE:-1e-4}"
        --actor.lr_scheduler constant --actor.lr_warmup_ratio 0
        --ckpt.save_steps 10
    )
else
    # The paper, section 4.4, on one node of eight GPUs.
    SAMPLES=${SAMPLES:-256} MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-256}
    GPUS=${GPUS:-8}
    settings=(
        --rollout.n_samples_per_prompt 8 --rollout.batch_size 128 --rollout.micro_batch_size 8
        --train.batch_size 512 --train.micro_batch_size 8 --train.max_epochs 3
        --data.max_len 1024 --data.apply_chat_template --actor.adam.lr "${LEARNING_RATE:-5e-6}"
        --actor.num_gpus_per_node "$((GPUS / 2))" --ref.num_gpus_per_node "$((GPUS / 2))" --train.colocate_actor_ref
        --vllm.num_engines "$((GPUS / 2))" --vllm.gpu_memory_utilization 0.85 --vllm.enable_prefix_caching
        --ds.zero_stage 3 --actor.gradient_checkpointing_enable
        --ckpt.save_steps 20
    )
fi

"$python" -m openrlhf_maxk.cli.train \
    --actor.model_name_or_path "$MODEL" \
    --data.prompt_dataset "$DATA/train.jsonl" --data.input_key input --data.label_key label \
    --maxk.problems "$DATA" --maxk.objective "$OBJECTIVE" \
    --rollout.temperature 1.0 --rollout.top_p 1.0 --rollout.max_new_tokens "$MAX_NEW_TOKENS" \
    --actor.eps_clip 0.2 --algo.kl.init_coef 0.01 --algo.kl.use_loss --algo.kl.estimator k3 \
    --ckpt.output_dir "$OUT/model" --ckpt.path "$OUT/checkpoints" --ckpt.load_enable --ckpt.max_num 2 \
    --logger.tensorboard_dir "$OUT/tensorboard" \
    "${settings[@]}" "$@"

evaluate() {
    "$python" -m openrlhf_maxk.cli.evaluate --model "$1" --problems "$DATA" --split test --samples "$SAMPLES" \
        --max-new-tokens "$MAX_NEW_TOKENS" --name "$2" --out "$3" ${EVALUATE_OPTIONS:-}
}
evaluate "$MODEL" base "${OUT%/*}/evaluation_base"
evaluate "$OUT/model" "$OBJECTIVE" "$OUT/evaluation"
"$python" -m openrlhf_maxk.cli.compare "${OUT%/*}/evaluation_base" "$OUT/evaluation" --out "$OUT/report"
