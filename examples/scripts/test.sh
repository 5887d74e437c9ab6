#!/usr/bin/env bash
# Run the tests: `bash examples/scripts/test.sh` for all, `... -m "not slow"` for those that take no Ray, vLLM or DeepSpeed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/scripts/setup.sh
exec .venv/bin/python -m pytest "$@"
