#!/usr/bin/env bash
# Make the environment: .venv in this repository, from locked requirements, for CPU or GPU.
#
#   bash examples/scripts/setup.sh            # GPU where nvidia-smi finds one, else CPU
#   PLATFORM=cpu bash examples/scripts/setup.sh
#
# Running it again does nothing unless the requirements have changed. 3.4 GB on CPU, about 10 GB on GPU.
#
# Python 3.11 or 3.12: PYTHON=... names one; else what is on PATH is taken; else uv fetches one. uv installs (it is itself
# installed for the moment where there is none), with pip's settings of indexes; where uv cannot be had, or fails, pip does.
# NO_UV=1: pip at once. Where the default index has no CPU build of torch: TORCH_INDEX=<url of the index that has it>.
# Where PYTHONDONTWRITEBYTECODE forbids Python to keep what it has compiled, or UV_COMPILE_BYTECODE=1 says so, all of it is
# compiled now: else every process of a run would compile it again, and start in twice the time.
# FLASH_ATTN=1 compiles flash-attn too, on GPUs (an hour or more); without it attention is PyTorch's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
UV_VERSION=0.13.9

fail() {
    echo "error: $*" >&2
    exit 1
}

if [[ -z "${PLATFORM:-}" ]]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then PLATFORM=gpu; else PLATFORM=cpu; fi
fi
[[ "$PLATFORM" == cpu || "$PLATFORM" == gpu ]] || fail "PLATFORM=$PLATFORM is neither cpu nor gpu"

made_from="$PLATFORM $(cat requirements/"$PLATFORM".txt pyproject.toml examples/scripts/setup.sh | sha256sum | cut -d' ' -f1)${FLASH_ATTN:+ flash-attn}"
found=$(cat .venv/.made_from 2>/dev/null || true)
[[ "$found" == "$made_from" || "$found" == "$made_from flash-attn" ]] && exit 0
[[ -z "$found" || "${found%% *}" == "$PLATFORM" ]] ||
    fail ".venv is for ${found%% *}, and this is to be one for $PLATFORM: remove .venv, or set PLATFORM=${found%% *}"

# A name on PATH is not enough: version managers put names there that do not run.
fits() { [[ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" =~ ^3\.1[12]$ ]]; }
if [[ -n "${PYTHON:-}" ]]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is neither Python 3.11 nor 3.12, which openrlhf 0.11.2 is built for, or does not run"
elif [[ -x .venv/bin/python ]] && fits .venv/bin/python; then
    PYTHON=.venv/bin/python
else
    PYTHON=
    for name in python3.11 python3.12 python3 python; do
        if fits "$name"; then
            PYTHON=$(command -v "$name")
            break
        fi
    done
fi

needed_mb=6000
[[ "$PLATFORM" == cpu ]] || needed_mb=12000
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[[ "$free_mb" -gt "$needed_mb" ]] || fail "only $free_mb MB free here; the environment needs $needed_mb"

[[ -z "${PYTHONDONTWRITEBYTECODE:-}" ]] || export UV_COMPILE_BYTECODE=${UV_COMPILE_BYTECODE:-1}
UV=
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
if [[ -z "${NO_UV:-}" ]]; then
    UV=$(command -v uv || true)
    for name in ${UV:+none} "$PYTHON" python3 python; do
        [[ -z "$UV" ]] || break
        if "$name" -m pip --disable-pip-version-check -qq install --target "$tools" "uv==$UV_VERSION" 2>/dev/null; then UV=$tools/bin/uv; fi
    done
fi
if [[ -z "$PYTHON" ]]; then
    instead="install Python 3.12 (Debian, Ubuntu: apt install python3.12 python3.12-venv; Fedora: dnf install python3.12), or set PYTHON to a 3.11 or 3.12"
    [[ -n "$UV" ]] || fail "no Python 3.11 or 3.12 on PATH, and no uv to fetch one: $instead"
    PYTHON=$("$UV" python find --no-project '>=3.11,<3.13' 2>/dev/null || true)
    if [[ -z "$PYTHON" ]]; then
        echo "no Python 3.11 or 3.12 on PATH: uv fetches one"
        "$UV" python install --quiet 3.12 2>/dev/null || fail "no Python 3.11 or 3.12 on PATH, and uv could not fetch one: $instead"
        PYTHON=$("$UV" python find --no-project '>=3.11,<3.13')
    fi
fi

if [[ "$PLATFORM" == cpu ]]; then
    "$PYTHON" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
        fail "libnuma.so.1 not found, which vLLM needs on CPU: install the package libnuma1 (Debian) or numactl-libs (Fedora)"
else
    "$PYTHON" openrlhf_maxk/machine.py ${FLASH_ATTN:+--flash-attn} || exit 1
fi

if [[ -n "$UV" ]]; then
    for name in "$PYTHON" python3; do # whichever has a pip knows what pip is told
        "$name" -m pip --version >/dev/null 2>&1 && eval "$("$name" examples/scripts/pip_settings.py)" && break
    done
fi

install() {
    if [[ -n "$UV" ]]; then
        "$UV" pip install --quiet --python .venv/bin/python "$@" && return
        echo "  uv could not install this; pip tries" >&2
    fi
    # Twice quiet: errors are shown, warnings about the machine's pip settings are not.
    .venv/bin/python -m pip --disable-pip-version-check -qq install "$@"
}

echo "environment: .venv ($PLATFORM, $("$PYTHON" -V))"
if [[ ! -x .venv/bin/python ]]; then
    { [[ -n "$UV" ]] && "$UV" venv --quiet --seed --python "$PYTHON" .venv; } || "$PYTHON" -m venv .venv ||
        fail "$PYTHON cannot make an environment: install uv, or the package python3-venv (Debian, Ubuntu)"
fi
echo "  1/3 torch"
install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
if [[ "$PLATFORM" == cpu && -d "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia" ]]; then
    echo "  (this index gave torch's CUDA build, which works too and takes 3 GB more: TORCH_INDEX=<index> names another)"
fi
echo "  2/3 everything else"
install --no-deps -r "requirements/$PLATFORM.txt" # complete: nothing is resolved
if [[ "$PLATFORM" == gpu && -n "${FLASH_ATTN:-}" ]]; then
    echo "  flash-attn (an hour or more)"
    PATH=$PWD/.venv/bin:$PATH install --no-deps --no-build-isolation flash-attn==2.8.3 # ninja is looked for on PATH only
fi
echo "  3/3 openrlhf_maxk"
install --no-deps --editable .
echo "$made_from" >.venv/.made_from
