"""vLLM's engine is a process of its own, on CPU as on GPUs, and gets the learner's weights there."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from . import pipeline
from .test_runs import gone, logged

pytestmark = pytest.mark.slow
AGREES = 5e-3  # nats a token: what rounding makes of it is below a thousandth
MOVED = 0.25  # nats a completion, of at most 12 tokens


@pytest.mark.parametrize(
    ("multiprocessing", "tree"),
    [
        (None, ["RolloutRayActor > EngineCore"]),  # as with one GPU an engine
        ("1", ["EngineCore > Worker", "RolloutRayActor > EngineCore"]),  # as with several; the user's setting wins
    ],
    ids=["default", "worker"],
)
def test_the_engine_in_its_own_process_gets_the_learners_weights(tmp_path, monkeypatch, multiprocessing, tree):
    pipeline.make_model(tmp_path / "model")
    pipeline.make_data(tmp_path / "data.jsonl", 16)
    pipeline.make_reward(tmp_path / "reward.py")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    if multiprocessing is not None:
        monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", multiprocessing)
    options = pipeline.arguments(
        tmp_path,
        actor__adam__lr=1e-2,
        maxk__behaviour="rollout",  # logs how far vLLM's log-probs are from the learner's
        maxk__min_ess=0,
        logger__tensorboard_dir=tmp_path / "tensorboard",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "openrlhf_maxk.cli.train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        lines = []
        engine: list[psutil.Process] = []
        found: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 1  "):
                engine = [child for child in psutil.Process(process.pid).children(recursive=True) if is_vllms(child)]
                found = sorted(f"{name(child.parent())} > {name(child)}" for child in engine)
    assert process.returncode == 0, "".join(lines)[-4000:]
    assert found == tree
    gone([child.pid for child in engine])
    scalars = logged(tmp_path / "tensorboard")
    mismatch = scalars["train/rollout/sampler_mismatch"]
    assert len(mismatch) == 2
    assert max(mismatch) < AGREES
    assert scalars["train/maxk/log_ratio_abs_measured"][0] > MOVED  # in the step before the second rollout


def is_vllms(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[0].startswith("VLLM::")
    except (psutil.NoSuchProcess, IndexError):
        return False


def name(process: psutil.Process | None) -> str:
    """What a process calls itself: "EngineCore" of "VLLM::EngineCore", "RolloutRayActor" of "ray::RolloutRayActor"."""
    assert process is not None
    return process.cmdline()[0].partition("::")[2].partition(".")[0]
