#!/usr/bin/env bash
# Renew the locks cpu.txt and gpu.txt: `bash requirements/lock.sh` after a change of a .in file, `... --upgrade` for the newest
# versions that these allow. Needs uv on PATH. Fails if Python 3.11 and 3.12 would get different versions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export UV_INDEX="" UV_FIND_LINKS="" # the default index alone: a further one may have wheels for one Python only
trap 'rm -f .cpu-* .gpu-*' EXIT
eval "$(python3 ../examples/scripts/pip_settings.py)"

lock() { # platform, options for it, what came behind the command
    local platform=$1 options=$2 found=$1.txt version
    shift 2
    for version in 3.11 3.12; do
        cp "$found" ".$platform-$version.txt" # versions that are locked stay unless they must go
        uv pip compile "$platform.in" --override excluded.txt $options "$@" --python-version "$version" --no-annotate \
            --python-platform x86_64-manylinux_2_28 --no-emit-package setuptools --no-emit-package wheel \
            --custom-compile-command "bash requirements/lock.sh" --quiet --output-file ".$platform-$version.txt"
        found=.$platform-$version.txt
        set -- # upgrades are 3.11's; 3.12 takes the same
    done
    diff ".$platform-3.11.txt" ".$platform-3.12.txt"
    mv ".$platform-3.11.txt" "$platform.txt"
}

lock cpu "--override excluded-cpu.txt" "$@"
lock gpu "" "$@"
