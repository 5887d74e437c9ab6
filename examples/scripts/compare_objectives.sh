#!/usr/bin/env bash
# Train and evaluate every run of a plan, seed by seed, and compare them. The same command goes on where it was stopped.
#
#   bash examples/scripts/compare_objectives.sh                                    # examples/plans/objectives.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/strategies.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/shortcuts.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/words.yaml
#   bash examples/scripts/compare_objectives.sh examples/plans/pretrained.yaml
#
# The embedded benchmarks that a plan names are made first, and SmolLM2 with its problems.
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
if grep -q " outputs/smollm2/" "$plan"; then
    .venv/bin/python -m pip --disable-pip-version-check -qq install -c requirements/cpu.txt reasoning-gym==0.1.25 gguf==0.19.0
    .venv/bin/python examples/scripts/smollm2.py outputs/smollm2/model
    .venv/bin/python -m openrlhf_maxk.cli.prepare reasoning_gym --tasks word_sorting --shots 2 --train_size 400 --test_size 64 \
        --config '{"word_sorting": {"min_words": 3, "max_words": 4, "min_word_length": 3, "max_word_length": 6}}' \
        --tokenizer outputs/smollm2/model --out outputs/smollm2/problems
fi
.venv/bin/python -m openrlhf_maxk.cli.experiment "$plan" --out "${OUT:-outputs/experiments/$name}" "${@:2}"
