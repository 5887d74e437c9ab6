#!/usr/bin/env bash
# Make one folder with what benchmarks/gpu.py needs beside PyTorch and transformers, for a machine that has only these.
#
#   bash benchmarks/gpu_wheels.sh [FOLDER]         # default: outputs/gpu_wheels
#   PYTHON_VERSION=3.11 bash benchmarks/gpu_wheels.sh FOLDER
#
# The versions are those of requirements/gpu.txt, for the Python named (default: 3.12) on Linux, x86-64. Ray, vLLM and
# flash-attn are not in it: the kit needs nothing of them that runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FOLDER=${1:-outputs/gpu_wheels}
PYTHON=${PYTHON:-python3}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
MOST_MIB=60

SOURCES=(deepspeed) # no wheel is published; what is built without compiling is pure Python
WHEELS=(
    openrlhf peft accelerate torchdata                             # the learner
    einops hjson msgpack ninja psutil py-cpuinfo                   # DeepSpeed
    pydantic pydantic-core annotated-types typing-inspection       # DeepSpeed
    pillow pylatexenc requests certifi charset-normalizer idna urllib3 # OpenRLHF, torchdata
    wrapt                                                          # openrlhf_maxk
)

fail() {
    echo "error: $*" >&2
    exit 1
}

pinned() {
    local name
    for name in "$@"; do
        grep -E "^$name==" requirements/gpu.txt || fail "$name is not in requirements/gpu.txt"
    done
}

[[ ! -e "$FOLDER" ]] || fail "$FOLDER exists: remove it, or name another folder"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
pip() { "$PYTHON" -m pip --disable-pip-version-check -qq "$@"; }
platforms=()
for glibc in 28 27 26 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
for name in 2014 2010 1; do platforms+=(--platform "manylinux${name}_x86_64"); done

sources=$(pinned "${SOURCES[@]}") # in a line of its own: a name that is not found ends the script
wheels=$(pinned "${WHEELS[@]}")
DS_BUILD_OPS=0 pip wheel --no-deps --wheel-dir "$built" $sources
pip install --target "$FOLDER" --no-deps --no-compile --only-binary=:all: --python-version "$PYTHON_VERSION" \
    --implementation cp "${platforms[@]}" "$built"/*.whl $wheels
rm -rf "$FOLDER/bin" "$FOLDER/tests"

mib=$(du -sm --apparent-size "$FOLDER" | cut -f1)
echo "$FOLDER: $mib MiB, for Python $PYTHON_VERSION"
[[ "$mib" -lt "$MOST_MIB" ]] || fail "$FOLDER is not below $MOST_MIB MiB"
echo "where PyTorch and transformers are, in this repository:"
echo "  PYTHONPATH=$FOLDER:. python3 benchmarks/gpu.py --out gpu.json"
