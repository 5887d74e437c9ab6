"""What a machine with GPUs must have, checked before anything is downloaded, compiled or started.

The standard library alone: setup.sh runs this file before there is an environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

CUDA = "13.0"  # that PyTorch is built with
DRIVER = (580, 65)  # the first driver for it, on Linux
ADAM_NOTE = "DeepSpeed cannot compile its AdamW without, and PyTorch's fused one takes its place"


def problems(image: bool = False) -> Iterator[str]:
    """What a run on this machine's GPUs would fail for, each with its fix.

    Args:
        image: an image is being built, on a machine that need not have GPUs.
    """
    yield from _driver(image)
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        yield (
            "no C++ compiler on PATH, with which Triton and DeepSpeed compile: install g++ (Debian, Ubuntu: "
            "build-essential; Fedora: gcc-c++)"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        yield (
            f"{header} not found, which Triton compiles with: install python{version}-dev (Debian, Ubuntu) or "
            f"python{version}-devel (Fedora)"
        )


def _driver(image: bool) -> Iterator[str]:
    said = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    version = re.search(r"(\d+)\.(\d+)", said or "")
    if said is None and image:
        return
    if version is None:
        yield (
            f"nvidia-smi does not name a driver: install NVIDIA's, {DRIVER[0]}.{DRIVER[1]} or newer (for CUDA {CUDA})"
        )
    elif tuple(map(int, version.groups())) < DRIVER:
        found = ".".join(version.groups())
        yield f"NVIDIA's driver {found} is too old for CUDA {CUDA}: install {DRIVER[0]}.{DRIVER[1]} or newer"


def gpu_bytes() -> int | None:
    """The memory of this machine's smallest GPU; None if nvidia-smi does not say."""
    said = _output("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits") or ""
    sizes = [int(size) for size in said.split() if size.isdigit()]
    return min(sizes) * 2**20 if sizes else None


@cache
def no_nvcc() -> str | None:
    """Why nothing for GPUs can be compiled here; None if it can. DeepSpeed takes PyTorch's own version of CUDA only."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = f"{home}/bin/nvcc" if home else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    release = re.search(r"release (\d+\.\d+)", _output(nvcc, "--version") or "")
    if release is None:
        return f"nvcc {CUDA} is not on PATH, nor where CUDA_HOME says"
    if release[1] != CUDA:
        return f"{nvcc} is {release[1]}, and nvcc {CUDA} is needed"
    return None


def no_compiling() -> str | None:
    """Why a run cannot compile for GPUs: no nvcc, or no ninja on PATH or in this Python's folder; None if it can."""
    tools = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))
    if no_nvcc() is None and not shutil.which("ninja", path=tools):
        return (
            "ninja is not on PATH, nor beside this Python (it is among the requirements: setup.sh, or pip, installs it)"
        )
    return no_nvcc()


@cache
def has_flash_attn() -> bool:
    """Whether flash-attn is installed."""
    return find_spec("flash_attn") is not None


def put_tools_on_path() -> None:
    """Let this process and its children find ninja, which PyTorch looks for on PATH only, in this Python's folder."""
    tools, path = os.path.dirname(sys.executable), os.environ.get("PATH", "")
    if tools not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, (tools, path)))


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def main() -> int:
    """Print what is missing, as setup.sh does before it installs; the exit status is 1 if that is fatal."""
    found = list(problems(image=not shutil.which("nvidia-smi")))
    missing = no_nvcc()
    if missing and "--flash-attn" in sys.argv:
        found.append(f"{missing}, to compile flash-attn: install it, or leave FLASH_ATTN out")
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if missing and not found:
        print(f"note: {missing}; {ADAM_NOTE}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
