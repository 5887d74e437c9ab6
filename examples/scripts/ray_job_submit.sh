#!/usr/bin/env bash
# Submit the training job of train_offpolicy_bon.sh to a running Ray cluster, and follow its log.
#
#   RAY_ADDRESS=http://head:8265 MODEL=... DATA=... OUT=... bash examples/scripts/ray_job_submit.sh [more options]
#
# More options go to the training, or are `--job.*` options of `python -m openrlhf_maxk.cli.submit`. The exit status is the
# job's. Ctrl-C stops following, not the job, and says how to do either; STOP_ON_EXIT=1 makes it stop the job.
#
# Variables: RAY_ADDRESS (default http://127.0.0.1:8265); those of train_offpolicy_bon.sh; PLATFORM (cpu or gpu) if the
# cluster's is not this machine's; CLUSTER_DIR, this repository's folder on the cluster's nodes, if it is not the same there
# (/home/maxk/openrlhf_maxk in the images of dockerfile/). MODEL, DATA and OUT are paths on the cluster, absolute or from
# CLUSTER_DIR on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

OBJECTIVE=${OBJECTIVE:-offpolicy_bon}
BENCHMARK=${BENCHMARK:-programs}
folder=outputs
[[ "$BENCHMARK" == programs ]] || folder=outputs/$BENCHMARK
OUT=${OUT:-$folder/$OBJECTIVE}
CLUSTER_DIR=${CLUSTER_DIR:-$PWD}
[[ -x .venv/bin/ray ]] || bash examples/scripts/setup.sh # any environment with Ray can submit
python=.venv/bin/python
PLATFORM=${PLATFORM:-$("$python" -c 'from openrlhf_maxk.platform import is_cpu; print("cpu" if is_cpu() else "gpu")')}

if [[ -z "${MODEL:-}" && -z "${DATA:-}" && "$PLATFORM" == cpu && "$CLUSTER_DIR" == "$PWD" ]]; then
    "$python" -m openrlhf_maxk.cli.mini --benchmark "$BENCHMARK" --out "$folder/mini"
    MODEL=$folder/mini/base_model
    DATA=$folder/mini/problems
fi
MODEL=${MODEL:-Qwen/Qwen2.5-Coder-7B-Instruct}
DATA=${DATA:?set DATA to a folder made by: python -m openrlhf_maxk.cli.prepare codecontests --out data/codecontests}

source examples/scripts/settings.sh
exec "$python" -m openrlhf_maxk.cli.submit --job.folder "$CLUSTER_DIR" --job.python "$CLUSTER_DIR/.venv/bin/python" \
    ${STOP_ON_EXIT:+--job.stop_on_exit} "${train_options[@]}" "$@"
