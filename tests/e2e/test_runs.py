"""The real job, as users start it: ranks and engines, going on after a kill, Ctrl-C, install(), ray job submit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from . import pipeline

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    pipeline.make_model(tmp_path / "model")
    pipeline.make_data(tmp_path / "data.jsonl", 16)
    pipeline.make_reward(tmp_path / "reward.py")
    return tmp_path


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """A few problems of the mini benchmark, with their prompts."""
    from openrlhf_maxk.problems.mini.generator import ProblemSettings
    from openrlhf_maxk.problems.mini.prepare import _prepare_problems

    folder = tmp_path_factory.mktemp("problems")
    _prepare_problems(folder / "problems", ProblemSettings(0, 16, 2, 2))
    return folder / "problems"


def test_two_ranks_two_engines_real_programs_and_a_schedule_for_k(folder, problems):
    options = {
        "actor__num_gpus_per_node": 2,
        "vllm__num_engines": 2,
        "ds__zero_stage": 3,
        "reward__remote_url": None,
        "maxk__problems": problems,
        "maxk__k": "4:2",
        "data__prompt_dataset": problems / "train.jsonl",
        "algo__kl__init_coef": 0.01,
        "algo__kl__use_loss": True,
        "algo__kl__estimator": "k3",
        "logger__tensorboard_dir": folder / "tensorboard",
        "rollout__batch_size": 8,
        "eval__dataset": problems / "test.jsonl",
        "eval__steps": 2,
        "ckpt__best_metric_key": "eval_mini_max@4",
        "data__max_len": 96,
    }
    done = pipeline.train(folder, **options)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "step 1" in done.stdout
    assert "step 2" in done.stdout
    assert "evaluation" in done.stdout
    assert (folder / "out" / "model.safetensors").is_file()
    scalars = logged(folder / "tensorboard")
    for name in ("max@1", "max@4", "pass@2", "no_signal", "distinct", "policy_entropy", "lost_completions", "k"):
        assert f"train/rollout/{name}" in scalars, sorted(scalars)
    for name in ("ratio_mean", "ratio_max", "ratio_ess", "ratio_clamped"):
        assert f"train/maxk/{name}" in scalars, sorted(scalars)
    assert scalars["train/rollout/k"] == [4, 2]
    assert scalars["train/rollout/lost_completions"] == [0, 0]
    assert len(scalars["eval/eval_mini_max@4"]) == 1
    assert (folder / "checkpoints" / "_actor" / "best_global_step2").is_dir()  # picked by --ckpt.best_metric_key

    again = pipeline.train(folder, **options)
    assert again.returncode == 0
    assert "trained already" in again.stdout
    other = pipeline.train(folder, **options, actor__adam__lr=5e-4)
    assert other.returncode != 0
    assert "--actor.adam.lr was" in other.stdout


def test_a_killed_run_goes_on_from_its_checkpoint_and_leaves_no_process(folder):
    options = {"ckpt__save_steps": 1, "ckpt__load_enable": True, "train__num_episodes": 3, "data__max_samples": 16}
    command = [sys.executable, "-m", "openrlhf_maxk.cli.train", *pipeline.arguments(folder, **options)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "step 2: checkpoint saved" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        engines = [child.pid for child in children if "VLLM" in " ".join(child.cmdline())]
        assert engines
        process.kill()
    gone(engines)  # Ray's own processes see to themselves
    done = pipeline.train(folder, **options)
    assert done.returncode == 0, done.stdout[-4000:]
    resumed = re.search(r"resumed after step (\d+)", done.stdout)
    assert resumed, done.stdout[-4000:]
    assert int(resumed[1]) >= 2
    assert "step 1  " not in done.stdout
    assert "step 6  " in done.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_stops_everything(folder, sent):
    """SIGINT goes to the whole group, as from a terminal; SIGTERM to the process, as from a scheduler."""
    options = pipeline.arguments(folder, train__num_episodes=50)
    with subprocess.Popen(
        [sys.executable, "-m", "openrlhf_maxk.cli.train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "step 1  " in line:
                break
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
        text = process.stdout.read()
        assert process.wait(timeout=300) == 1
    assert "interrupted" in text
    assert "Traceback" not in text
    gone(family)
    assert not (folder / "out" / "maxk_run.json").exists()


def test_install_in_a_plain_openrlhf_script(folder):
    script = folder / "mine.py"
    script.write_text(
        "import runpy\nimport openrlhf_maxk\n\n"
        "openrlhf_maxk.install(k=2, objective='bon_mean')\n"
        "import ray\nray.init(num_gpus=3, num_cpus=6, include_dashboard=False)\n"
        "runpy.run_module('openrlhf.cli.train_ppo_ray', run_name='__main__')\n"
    )
    options = pipeline.arguments(
        folder,
        algo__advantage__estimator="group_norm",
        vllm__num_engines=1,
        actor__num_gpus_per_node=1,
        ref__num_gpus_per_node=1,
        ds__attn_implementation="sdpa",
        vllm__gpu_memory_utilization=0.1,
        vllm__enforce_eager=True,
        logger__tensorboard_dir=folder / "tensorboard",
    )
    done = pipeline.run([str(script), *options])
    assert done.returncode == 0, done.stdout[-4000:]
    scalars = logged(folder / "tensorboard")
    assert scalars["train/rollout/k"] == [2, 2]
    assert "train/rollout/max@4" in scalars
    assert "train/maxk/ratio_ess" in scalars


@pytest.fixture(scope="module")
def head():
    """The address of a local Ray head of our own."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--block", "--disable-usage-stats", "--num-gpus", "3", "--num-cpus", "6"]
    ports = ["--port", port, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
    temporary = Path("/tmp") / f"maxk{port}"  # sockets need a short path
    process = subprocess.Popen(
        [*start, *map(str, ports), "--temp-dir", str(temporary)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(dashboard)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.terminate()
        process.wait(timeout=60)
        gone(family)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.parametrize("by", ["openrlhf_maxk.cli.submit", "ray job submit"])
def test_a_job_on_a_running_cluster(folder, head, by):
    """Our own submission comes first: it waits until a head that has just started takes jobs."""
    options = pipeline.arguments(folder, ref__num_gpus_per_node=1)
    if by == "ray job submit":
        ray = str(Path(sys.executable).with_name("ray"))
        job = [ray, "job", "submit", "--address", head, "--", sys.executable, "-m", "openrlhf_maxk.cli.train", *options]
    else:
        job = [sys.executable, "-m", "openrlhf_maxk.cli.submit", "--job.address", head, *options]
    done = subprocess.run(job, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "step 2" in done.stdout
    assert (folder / "out" / "model.safetensors").is_file()


def logged(folder: Path) -> dict[str, list[float]]:
    """The scalars of a TensorBoard folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(next(folder.iterdir())))
    accumulator.Reload()
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def gone(pids: list[int], seconds: float = 120) -> None:
    """Wait until none is left; Ray's own wait for their head for 60 s (its gcs_rpc_server_reconnect_timeout_s)."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in left]
        time.sleep(0.5)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(dashboard: int, seconds: float = 180) -> None:
    """Wait until the head takes jobs."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{dashboard}/api/jobs/", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(1)
