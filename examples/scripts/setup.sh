#!/usr/bin/env bash
# Make the environment: .venv in this repository, from pinned requirements, for CPU or GPU.
#
#   bash examples/scripts/setup.sh            # GPU where nvidia-smi finds one, else CPU
#   PLATFORM=cpu bash examples/scripts/setup.sh
#
# Running it again does nothing unless the requirements have changed. About 3 minutes and 3.4 GB on CPU.
# Needs Python 3.11 (PYTHON=... to name one) and, where pip's default index has no CPU build of torch,
# the index that has it: TORCH_INDEX=<url> bash examples/scripts/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "error: $*" >&2
    exit 1
}

if [[ -z "${PLATFORM:-}" ]]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then PLATFORM=gpu; else PLATFORM=cpu; fi
fi
[[ "$PLATFORM" == cpu || "$PLATFORM" == gpu ]] || fail "PLATFORM=$PLATFORM is neither cpu nor gpu"
PYTHON=${PYTHON:-python3.11}
command -v "$PYTHON" >/dev/null || fail "$PYTHON not found: install Python 3.11, or set PYTHON to one"
[[ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" == 3.11 ]] ||
    fail "$PYTHON is not Python 3.11, which openrlhf 0.11.2 is built for: set PYTHON to one"

made_from="$PLATFORM $(cat requirements/"$PLATFORM"*.txt pyproject.toml examples/scripts/setup.sh | sha256sum | cut -d' ' -f1)"
found=$(cat .venv/.made_from 2>/dev/null || true)
if [[ "$found" == "$made_from" ]]; then
    exit 0
fi
[[ -z "$found" || "${found%% *}" == "$PLATFORM" ]] ||
    fail ".venv is for ${found%% *}, and this is to be one for $PLATFORM: remove .venv, or set PLATFORM=${found%% *}"
if [[ "$PLATFORM" == cpu ]]; then
    "$PYTHON" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
        fail "libnuma.so.1 not found, which vLLM needs on CPU: install the package libnuma1 (Debian) or numactl-libs (Fedora)"
fi

free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[[ "$free_mb" -gt 6000 ]] || fail "only $free_mb MB free here; the environment needs 6000"

# Twice quiet: errors are shown, warnings about the machine's pip settings are not.
pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }

echo "environment: .venv ($PLATFORM)"
[[ -x .venv/bin/python ]] || "$PYTHON" -m venv .venv
echo "  1/3 torch"
pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
echo "  2/3 everything else (some minutes)"
if [[ "$PLATFORM" == cpu ]]; then
    pip install --no-deps -r requirements/cpu.txt -r requirements/cpu-nodeps.txt
else
    # flash-attn compiles against the torch that is installed.
    pip install packaging ninja psutil setuptools==77.0.3 wheel
    pip install --no-build-isolation flash-attn==2.8.3
    pip install -r requirements/gpu.txt
fi
echo "  3/3 openrlhf_maxk"
pip install --no-deps --editable .
echo "$made_from" >.venv/.made_from
