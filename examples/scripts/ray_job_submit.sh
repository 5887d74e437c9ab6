#!/usr/bin/env bash
# Submit the training job of train_offpolicy_bon.sh to a running Ray cluster, and follow its log.
#
#   RAY_ADDRESS=http://head:8265 MODEL=... DATA=... bash examples/scripts/ray_job_submit.sh [more options]
#
# The repository, its .venv, MODEL, DATA and OUT are expected at the same paths on every node (a shared file system, or the
# images of dockerfile/). Exits with 0 if the job succeeds. Ctrl-C stops following, not the job: `ray job stop` does.
# Variables: as in train_offpolicy_bon.sh; RAY_ADDRESS (default http://127.0.0.1:8265); PLATFORM=cpu for logical GPUs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export RAY_ADDRESS=${RAY_ADDRESS:-http://127.0.0.1:8265}
OBJECTIVE=${OBJECTIVE:-offpolicy_bon}
OUT=${OUT:-$PWD/outputs/$OBJECTIVE}
bash examples/scripts/setup.sh
python=$PWD/.venv/bin/python
PLATFORM=${PLATFORM:-$("$python" -c 'from openrlhf_maxk.platform import is_cpu; print("cpu" if is_cpu() else "gpu")')}
if [[ "$PLATFORM" == cpu && -z "${MODEL:-}${DATA:-}" ]]; then
    RAY_ADDRESS='' "$python" -m openrlhf_maxk.cli.mini --out outputs/mini
    MODEL=$PWD/outputs/mini/base_model
    DATA=$PWD/outputs/mini/problems
fi
MODEL=${MODEL:-Qwen/Qwen2.5-Coder-7B-Instruct}
DATA=${DATA:?set DATA to a folder made by: python -m openrlhf_maxk.cli.prepare codecontests --out data/codecontests}
source examples/scripts/settings.sh

exec .venv/bin/ray job submit --address "$RAY_ADDRESS" -- \
    "$python" -m openrlhf_maxk.cli.train "${train_options[@]}" "$@"
