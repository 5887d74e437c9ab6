"""What GPUs need, with stand-ins for nvidia-smi, nvcc and compilers: each missing piece is named with its fix."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from openrlhf_maxk import machine
from openrlhf_maxk.cli import train
from openrlhf_maxk.upstream import seams

PYTHON = sys.executable
SEAM = next(seam for seam in seams.SEAMS if seam.missing == seams.NVCC)  # PyTorch's AdamW for DeepSpeed's
SMI, NVCC = "#!/bin/sh\necho {}\n", "#!/bin/sh\necho 'Cuda compilation tools, release {0}, V{0}.88'\n"
FAILS = "#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n"
GOOD = {
    "nvidia-smi": SMI.format("580.82.07"),
    "nvcc": NVCC.format("13.0"),
    "g++": "#!/bin/sh\n",
    "ninja": "#!/bin/sh\n",
}


@pytest.fixture
def having(tmp_path, monkeypatch):
    """Puts on PATH what it is given, and nothing else."""
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.sys, "executable", str(tmp_path / "nowhere" / "python"))  # a folder without ninja

    def put(**changes: str | None) -> None:
        for name, source in ({**GOOD, **{name.replace("_", "-"): source for name, source in changes.items()}}).items():
            if source is not None:
                (tmp_path / name).write_text(source)
                (tmp_path / name).chmod(0o755)
        machine.no_nvcc.cache_clear()
        machine.has_flash_attn.cache_clear()

    yield put
    machine.no_nvcc.cache_clear()
    machine.has_flash_attn.cache_clear()


def test_a_machine_that_has_everything(having):
    having()
    assert list(machine.problems()) == []
    assert machine.no_nvcc() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nvidia_smi": None}, "nvidia-smi does not name a driver: install NVIDIA's, 580.65 or newer (for CUDA 13.0)"),
        ({"nvidia_smi": FAILS}, "nvidia-smi does not name a driver"),
        ({"nvidia_smi": SMI.format("550.54.15")}, "driver 550.54 is too old for CUDA 13.0: install 580.65 or newer"),
        ({"nvidia_smi": SMI.format("580.60.01")}, "driver 580.60 is too old"),
        ({"g++": None}, "no C++ compiler on PATH, with which Triton and DeepSpeed compile: install g++"),
    ],
)
def test_what_is_missing_is_named_with_its_fix(having, changes, message):
    having(**changes)
    (problem,) = machine.problems()
    assert message in problem


def test_with_nothing_on_path_all_that_is_missing_is_named_at_once(having, monkeypatch):
    monkeypatch.setenv("PATH", "")
    driver, compiler = machine.problems()
    assert driver.startswith("nvidia-smi does not name a driver")
    assert compiler.startswith("no C++ compiler on PATH")
    assert machine.gpu_bytes() is None


def test_a_compiler_may_have_another_name(having, monkeypatch, tmp_path):
    having(**{"g++": None})
    monkeypatch.setenv("CXX", "mine")
    assert ["no C++ compiler" in problem for problem in machine.problems()] == [True]
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    assert list(machine.problems()) == []


def test_headers_of_python(having, monkeypatch, tmp_path):
    having()
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda name: str(tmp_path / "include"))
    (problem,) = machine.problems()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"include/Python.h not found, which Triton compiles with: install python{version}-dev" in problem


def test_an_image_may_be_built_where_there_are_no_gpus(having):
    having(nvidia_smi=None)
    assert list(machine.problems(image=True)) == []


@pytest.mark.parametrize("release", ["12.8", "13.1", "13.2"])
def test_another_nvcc_is_as_good_as_none(having, release):
    having(nvcc=NVCC.format(release))
    assert f"is {release}, and nvcc 13.0 is needed" in str(machine.no_nvcc())


def test_nvcc_is_looked_for_where_pytorch_looks(having, monkeypatch, tmp_path):
    having(nvcc=None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert "is not on PATH, nor where CUDA_HOME says" in str(machine.no_nvcc())
    nvcc.write_text(NVCC.format("13.0"))
    nvcc.chmod(0o755)
    machine.no_nvcc.cache_clear()
    assert machine.no_nvcc() is None


def test_without_ninja_nothing_is_compiled(having, monkeypatch, tmp_path):
    """PyTorch would find that out in an actor, when the run has started."""
    having()
    assert machine.no_compiling() is None
    assert SEAM not in seams.active(cpu=False)
    (tmp_path / "ninja").unlink()
    assert str(machine.no_compiling()).startswith("ninja is not on PATH, nor beside this Python")
    assert SEAM in seams.active(cpu=False)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "ninja").symlink_to(tmp_path / "g++")
    assert machine.no_compiling() is None  # every process of a run has that folder on PATH
    having(nvcc=NVCC.format("12.8"))
    assert "and nvcc 13.0 is needed" in str(machine.no_compiling())


def run(having, capsys, attention="sdpa", **changes):
    having(**changes)
    train.check_gpus(SimpleNamespace(**{train.ATTENTION: attention}))
    return capsys.readouterr().err


def test_a_run_says_what_it_makes_do_without(having, capsys):
    said = run(having, capsys, nvcc=NVCC.format("12.8"))
    assert "PyTorch's fused one takes its place" in said
    assert "flash-attn is not installed: attention is PyTorch's (--ds.attn_implementation sdpa)" in said


def test_a_run_says_that_ninja_is_missing(having, capsys):
    assert "note: ninja is not on PATH" in run(having, capsys, ninja=None)


def test_a_run_that_cannot_work_does_not_start(having, capsys, monkeypatch):
    with pytest.raises(SystemExit, match=r"driver 550\.54 is too old"):
        run(having, capsys, nvidia_smi=SMI.format("550.54.15"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # the nodes of a cluster have their own GPUs
    assert run(having, capsys) == ""
    with pytest.raises(SystemExit, match=r"--ds\.attn_implementation flash_attention_2 needs flash-attn"):
        run(having, capsys, "flash_attention_2")


@pytest.mark.parametrize(("found", "attention"), [(True, "flash_attention_2"), (False, "sdpa")])
def test_attention_is_pytorchs_without_flash_attn(monkeypatch, found, attention):
    from openrlhf_maxk.options.maxk import MaxKOptions

    monkeypatch.setattr(train, "is_cpu", lambda: False)
    monkeypatch.setattr(train, "has_flash_attn", lambda: found)
    monkeypatch.setattr(train, "validate", lambda args: MaxKOptions())
    assert train.parse([])[1].ds.attn_implementation == attention


@pytest.mark.parametrize(("cpu", "added"), [(True, {"torch_adam": True}), (False, {"torch_adam": True, "fused": True})])
def test_without_nvcc_the_optimizer_is_pytorchs(monkeypatch, cpu, added):
    from openrlhf_maxk.cpu import deepspeed

    monkeypatch.setattr(deepspeed, "is_cpu", lambda: cpu)
    for optimizer, expected in (
        ({"type": "AdamW", "params": {"lr": 1.0}}, {"lr": 1.0, **added}),
        ({"type": "Muon", "params": {"lr": 1.0}}, {"lr": 1.0}),
    ):
        get = deepspeed.with_torch_adam(lambda config=optimizer: {"optimizer": config})
        assert get()["optimizer"]["params"] == expected


def test_ninja_is_found_in_every_process(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        machine.put_tools_on_path()
        assert os.environ["PATH"] == f"{os.path.dirname(sys.executable)}{os.pathsep}{tmp_path}"


def test_setup_runs_the_file_alone(having):
    having(nvidia_smi=SMI.format("550.54.15"), nvcc=NVCC.format("12.8"))
    done = subprocess.run([PYTHON, "-I", machine.__file__, "--flash-attn"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    driver, nvcc = done.stderr.strip().splitlines()
    assert driver.startswith("error: NVIDIA's driver 550.54 is too old")
    assert nvcc.endswith("to compile flash-attn: install it, or leave FLASH_ATTN out")


def test_the_smallest_gpu_counts(having):
    having(nvidia_smi="#!/bin/sh\necho 81559\necho 40960\n")
    assert machine.gpu_bytes() == 40960 * 2**20
    having(nvidia_smi=FAILS)
    assert machine.gpu_bytes() is None


def test_a_run_is_warned_of_what_will_not_fit(having, monkeypatch, tmp_path, capsys):
    """A model's shape is enough: nothing of its weights is read."""
    from transformers import Qwen2Config

    from .options.test_memory import options

    Qwen2Config(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, vocab_size=152064).save_pretrained(
        tmp_path
    )
    having(nvidia_smi="#!/bin/sh\necho 24564\n")
    monkeypatch.setattr(train, "is_cpu", lambda: False)
    args = options(actor__model_name_or_path=str(tmp_path), ckpt__path=str(tmp_path), ckpt__save_steps=-1)
    train.warn_of_sizes(args)
    assert "warning: a learner rank needs about" in capsys.readouterr().err
    args.actor.model_name_or_path = str(tmp_path / "nowhere")
    train.warn_of_sizes(args)
    assert capsys.readouterr().err == ""
