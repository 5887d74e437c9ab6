#!/usr/bin/env bash
# Train and evaluate every run of a plan, seed by seed, and compare them. The same command goes on where it was stopped.
#
#   bash examples/scripts/compare_objectives.sh                                    # examples/plans/objectives.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/strategies.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/shortcuts.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/words.yaml
#
# The embedded benchmarks that a plan names are made first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
plan=${1:-examples/plans/objectives.yaml}
name=$(basename "$plan" .yaml)
bash examples/scripts/setup.sh
embedded() { # folder, options of cli.mini
    if grep -q " $1/" "$plan"; then .venv/bin/python -m openrlhf_maxk.cli.mini --out "$@"; fi
}
embedded outputs/mini
embedded outputs/mini-1 --seed 1
embedded outputs/shortcuts/mini --benchmark shortcuts
embedded outputs/words/mini --benchmark words
.venv/bin/python -m openrlhf_maxk.cli.experiment "$plan" --out "${OUT:-outputs/experiments/$name}" "${@:2}"
