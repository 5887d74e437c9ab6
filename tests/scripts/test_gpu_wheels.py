"""gpu_wheels.sh without a network: the versions of the lock, the size, the command that it prints."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"

PYTHON = """#!/usr/bin/env bash
echo "$*" >> {log}
for argument; do
    [[ "$last" == --wheel-dir ]] && touch "$argument/deepspeed.whl"
    [[ "$last" == --target ]] && mkdir -p "$argument/bin" && truncate -s {mib}M "$argument/package"
    last=$argument
done
exit 0
"""


def wheels(tmp_path: Path, mib: int, script: str | None = None) -> subprocess.CompletedProcess[str]:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(log=tmp_path / "log", mib=mib))
    python.chmod(0o755)
    file = BENCHMARKS / "gpu_wheels.sh"
    if script is not None:
        (tmp_path / "repository" / "benchmarks").mkdir(parents=True)
        (tmp_path / "repository" / "requirements").symlink_to(ROOT / "requirements")
        file = tmp_path / "repository" / "benchmarks" / "gpu_wheels.sh"
        file.write_text(script)
    return subprocess.run(
        ["bash", str(file), str(tmp_path / "folder")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_folder_has_what_the_lock_says_and_its_command_is_printed(tmp_path):
    done = wheels(tmp_path, 40)
    assert done.returncode == 0, done.stderr
    built, installed = (tmp_path / "log").read_text().splitlines()
    lock = set((ROOT / "requirements" / "gpu.txt").read_text().splitlines())
    pins = {word for word in f"{built} {installed}".split() if "==" in word}
    assert pins <= lock
    assert {pin.partition("==")[0] for pin in pins} >= {"openrlhf", "deepspeed", "wrapt", "peft"}
    assert "--python-version 3.12" in installed
    assert "--no-deps" in built
    assert "--no-deps" in installed
    assert not (tmp_path / "folder" / "bin").exists()
    first, _, command = done.stdout.splitlines()
    assert first == f"{tmp_path}/folder: 41 MiB, for Python 3.12"
    assert command == f"  PYTHONPATH={tmp_path}/folder:. python3 benchmarks/gpu.py --out gpu.json"


def test_a_folder_that_is_too_large_to_carry_is_refused(tmp_path):
    done = wheels(tmp_path, 61)
    assert done.returncode == 1
    assert "is not below 60 MiB" in done.stderr


def test_a_package_that_is_not_in_the_lock_ends_the_script(tmp_path):
    script = (BENCHMARKS / "gpu_wheels.sh").read_text().replace("WHEELS=(", "WHEELS=(\n    unheard-of")
    done = wheels(tmp_path, 1, script)
    assert done.returncode == 1
    assert done.stderr == "error: unheard-of is not in requirements/gpu.txt\n"
    assert not (tmp_path / "folder").exists()
