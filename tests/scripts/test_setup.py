"""setup.sh without a network: which Python it takes, what it hands to uv and pip, what it refuses before all that."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "bash",
    "env",
    "cat",
    "cut",
    "sha256sum",
    "df",
    "awk",
    "mktemp",
    "rm",
    "mkdir",
    "ln",
    "chmod",
    "dirname",
    "grep",
)

# Python that answers what setup.sh asks: its version, whether it has pip; everything else works and is noted.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *version_info*) echo {version} ;;
    -V) echo Python {version}.0 ;;
    *sysconfig*) echo /nowhere ;;
    *"-m pip"*) echo "pip $*" >> {log}; exit {pip} ;;
    *"-m venv"*) exit 1 ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*${{UV_COMPILE_BYTECODE:+ compiling=$UV_COMPILE_BYTECODE}}" >> {log}
case "$1" in
    venv) mkdir -p .venv/bin; ln -s {python} .venv/bin/python ;;
    python) exit 1 ;;
    pip) exit {fails} ;;
esac
"""


class Machine:
    """A copy of what setup.sh needs of the repository, and a PATH with nothing on it but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.bin, self.log = folder / "repository", folder / "bin", folder / "log"
        for name in ("pyproject.toml", "requirements", "examples/scripts", "openrlhf_maxk/machine.py"):
            target = self.repository / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target)
        self.bin.mkdir()
        self.log.touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def has(self, name: str, source: str) -> Path:
        file = self.bin / name
        file.write_text(source)
        file.chmod(0o755)
        return file

    def has_python(self, name: str, version: str, pip: int = 1) -> Path:
        return self.has(name, PYTHON.format(version=version, log=self.log, pip=pip))

    def has_uv(self, fails: int = 0, inside: Path | None = None) -> None:
        self.has("uv", UV.format(log=self.log, fails=fails, python=inside))

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["bash", str(self.repository / "examples/scripts/setup.sh")],
            env={"PATH": str(self.bin), "HOME": str(self.bin), "PLATFORM": "cpu", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


SHIM = "#!/usr/bin/env bash\necho 'command not found' >&2\nexit 127\n"


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12"}, "3.11"),
        ({"python3.12": "3.12", "python3": "3.13"}, "3.12"),
        ({"python3.11": "shim", "python3.12": "3.12"}, "3.12"),
        ({"python3.11": "shim", "python3.12": "shim", "python3": "3.12"}, "3.12"),
    ],
    ids=["both", "only 3.12", "a shim that does not run", "under another name"],
)
def test_the_best_python_that_runs_is_taken(machine, pythons, taken):
    for name, version in pythons.items():
        machine.has(name, SHIM) if version == "shim" else machine.has_python(name, version)
    machine.has_uv(inside=machine.has_python("inside", taken))
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert f"Python {taken}" in done.stdout
    installs = [line for line in machine.called if line.startswith("uv pip install")]
    assert [line.split("--quiet --python .venv/bin/python ")[1] for line in installs] == [
        "torch==2.13.0",
        "--no-deps -r requirements/cpu.txt",
        "--no-deps --editable .",
    ]
    assert machine.setup().returncode == 0
    assert machine.called == []  # it is made already


def test_an_index_for_torch_is_for_torch_alone(machine):
    machine.has_uv(inside=machine.has_python("python3.12", "3.12"))
    assert machine.setup(TORCH_INDEX="file:///wheels").returncode == 0
    assert [line for line in machine.called if "file:///wheels" in line] == [
        "uv pip install --quiet --python .venv/bin/python --index-url file:///wheels torch==2.13.0"
    ]


@pytest.mark.parametrize(
    ("variables", "compiling"),
    [
        ({}, None),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, "1"),
        ({"UV_COMPILE_BYTECODE": "1"}, "1"),
        ({"PYTHONDONTWRITEBYTECODE": "1", "UV_COMPILE_BYTECODE": "0"}, "0"),
    ],
    ids=["later", "what cannot be kept later", "asked for", "not wanted"],
)
def test_when_everything_is_compiled_at_once(machine, variables, compiling):
    machine.has_uv(inside=machine.has_python("python3.12", "3.12"))
    assert machine.setup(**variables).returncode == 0
    installs = [line for line in machine.called if line.startswith("uv pip install")]
    assert len(installs) == 3
    assert {line.partition(" compiling=")[2] or None for line in installs} == {compiling}


def test_where_uv_fails_pip_installs(machine):
    machine.has_uv(fails=1, inside=machine.has_python("python3.12", "3.12", pip=0))
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "uv could not install this; pip tries" in done.stderr
    assert [line for line in machine.called if line.startswith("pip") and "-r requirements/cpu.txt" in line]


@pytest.mark.parametrize(
    ("pythons", "uv", "variables", "message"),
    [
        ({"python3": "3.13"}, False, {}, "no Python 3.11 or 3.12 on PATH, and no uv to fetch one: install Python 3.12"),
        ({}, True, {}, "uv could not fetch one: install Python 3.12 (Debian, Ubuntu: apt install python3.12"),
        ({"python3.11": "3.11"}, False, {}, "cannot make an environment: install uv, or the package python3-venv"),
        ({"python3.11": "3.11"}, True, {"PYTHON": "python3.13"}, "PYTHON=python3.13 is neither Python 3.11 nor 3.12"),
        ({"python3.11": "3.11"}, True, {"PLATFORM": "tpu"}, "PLATFORM=tpu is neither cpu nor gpu"),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_nothing_is_installed(machine, pythons, uv, variables, message):
    for name, version in pythons.items():
        machine.has_python(name, version)
    if uv:
        machine.has_uv()
    done = machine.setup(**variables)
    assert done.returncode == 1
    (error,) = done.stderr.strip().splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert not [line for line in machine.called if line.startswith("uv pip install")]


def test_a_machine_whose_gpus_cannot_be_used_is_refused_before_anything_is_loaded(machine):
    python = machine.has("python3.11", f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    machine.has("nvidia-smi", '#!/usr/bin/env bash\n[[ "$1" == -L ]] && echo "GPU 0: one" || echo 550.54.15\n')
    machine.has_uv(inside=python)
    done = machine.setup(PLATFORM="")
    assert done.returncode == 1
    assert "driver 550.54 is too old for CUDA 13.0: install 580.65 or newer" in done.stderr
    assert "no C++ compiler on PATH" in done.stderr
    assert not [line for line in machine.called if line.startswith("uv pip install")]


@pytest.mark.parametrize(
    ("platform", "free", "needed"), [("cpu", 5900, 6000), ("gpu", 11900, 12000)], ids=["cpu", "gpu"]
)
def test_too_little_disk_is_said_before_anything_is_installed(machine, platform, free, needed):
    machine.has_uv(inside=machine.has_python("python3.11", "3.11"))
    (machine.bin / "df").unlink()  # a link to the real one
    machine.has("df", f"#!/usr/bin/env bash\necho Header\necho disk 50000 40000 {free} 80% /\n")
    done = machine.setup(PLATFORM=platform)
    assert done.returncode == 1
    assert done.stderr == f"error: only {free} MB free here; the environment needs {needed}\n"
    assert machine.called == []


def pip_settings():
    spec = importlib.util.spec_from_file_location("pip_settings", ROOT / "examples" / "scripts" / "pip_settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_pip_is_told_uv_is_told(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.invalid/simple\ntimeout = 7\n"
        "[install]\nextra-index-url =\n    file:///one\n    file:///two\nfind-links = /a /b\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.invalid/simple")  # pip's environment wins over its files
    module = pip_settings()
    settings = module.uv_settings(module.pip_configuration(), {"UV_HTTP_TIMEOUT": "9"})
    assert "UV_HTTP_TIMEOUT" not in settings
    machines_own = {name: settings.get(name) for name in ("SSL_CERT_FILE", "UV_CONSTRAINT")}
    assert {name: value for name, value in settings.items() if name not in machines_own} == {
        "UV_DEFAULT_INDEX": "https://other.invalid/simple",
        "UV_INDEX": "file:///one file:///two",
        "UV_FIND_LINKS": "/a,/b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_locks_hold_what_is_asked_for(platform):
    lock = set((ROOT / "requirements" / f"{platform}.txt").read_text().lower().replace("_", "-").splitlines())
    asked = (ROOT / "requirements" / f"{platform}.in").read_text().lower().replace("_", "-").splitlines()
    assert {line.replace("[vllm]", "").replace("[default]", "") for line in asked if "==" in line} <= {
        line.replace("[vllm]", "").replace("[default]", "") for line in lock
    }
    assert not any(line.startswith("flash-attn") for line in lock)
