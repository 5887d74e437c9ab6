#!/usr/bin/env bash
# Run the tests.
#
#   bash examples/scripts/test.sh            # ten minutes on two cores: whether the installation works, all fast tests, a run
#   bash examples/scripts/test.sh --all      # everything
#   bash examples/scripts/test.sh tests/objectives -m "not slow"     # what pytest is told
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/scripts/setup.sh
tests=(.venv/bin/python -m pytest)

# A broken installation shows in the first minute: every library is imported, and one small model is trained in one process.
if [[ $# == 0 || "$1" == --all ]]; then
    "${tests[@]}" -x tests/test_installation.py
fi
if [[ $# == 0 ]]; then
    "${tests[@]}" -m "not slow"
    "${tests[@]}" "tests/e2e/test_runs.py::test_two_ranks_two_engines_real_programs_and_a_schedule_for_k"
    echo
    echo "left out: the other slow tests ($("${tests[@]}" --collect-only -m slow -q 2>/dev/null | awk -F': ' '/^tests/ {n += $2} END {print n - 1}') of them: gradients of whole runs, kills and restarts, jobs on a cluster, hostile programs in every sandbox); --all runs everything"
elif [[ "$1" == --all ]]; then
    exec "${tests[@]}" "${@:2}"
else
    exec "${tests[@]}" "$@"
fi
