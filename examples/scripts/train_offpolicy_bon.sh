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
# BENCHMARK=words trains on the other embedded benchmark, word problems with answers (docs/mini.md), below outputs/words.
#
# DATA is a folder made by `python -m openrlhf_maxk.cli.prepare`. More options for training go behind the command, such
# as `--maxk.k 8:1 --train.num_episodes 2`. What is done already is skipped; a run that was interrupted goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

OBJECTIVE=${OBJECTIVE:-offpolicy_bon}
BENCHMARK=${BENCHMARK:-programs}
folder=outputs
[[ "$BENCHMARK" == programs ]] || folder=outputs/$BENCHMARK
OUT=${OUT:-$folder/$OBJECTIVE}
bash examples/scripts/setup.sh
python=.venv/bin/python
if [[ -z "${PLATFORM:-}" ]]; then
    PLATFORM=$("$python" -c 'from openrlhf_maxk.platform import is_cpu; print("cpu" if is_cpu() else "gpu")')
fi

if [[ -z "${MODEL:-}" && -z "${DATA:-}" && "$PLATFORM" == cpu ]]; then
    "$python" -m openrlhf_maxk.cli.mini --benchmark "$BENCHMARK" --out "$folder/mini"
    MODEL=$folder/mini/base_model
    DATA=$folder/mini/problems
    EVALUATE_OPTIONS=${EVALUATE_OPTIONS:---limit 96}
fi
MODEL=${MODEL:-Qwen/Qwen2.5-Coder-7B-Instruct}
DATA=${DATA:?set DATA to a folder made by: python -m openrlhf_maxk.cli.prepare codecontests --out data/codecontests}

source examples/scripts/settings.sh
"$python" -m openrlhf_maxk.cli.train "${train_options[@]}" "$@"

if [[ "$PLATFORM" == gpu ]]; then EVALUATE_OPTIONS=${EVALUATE_OPTIONS:---engines $GPUS}; fi
evaluate() {
    "$python" -m openrlhf_maxk.cli.evaluate --model "$1" --problems "$DATA" --split test --samples "$SAMPLES" \
        --max-new-tokens "$MAX_NEW_TOKENS" --name "$2" --out "$3" ${EVALUATE_OPTIONS:-}
}
evaluate "$MODEL" base "${OUT%/*}/evaluation_base"
evaluate "$OUT/model" "$OBJECTIVE" "$OUT/evaluation"
"$python" -m openrlhf_maxk.cli.compare "${OUT%/*}/evaluation_base" "$OUT/evaluation" --out "$OUT/report"
echo "model: $OUT/model"
echo "training curves: $python -m tensorboard.main --logdir $OUT/tensorboard"
