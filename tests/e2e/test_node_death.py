"""A whole node of the cluster dies during a training step: the step ends with the rewards it would have had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from . import pipeline

pytestmark = pytest.mark.slow

SLOWLY = """
import json, os, time
from pathlib import Path
import ray

Path({folder!r}, str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())

at_once = reward_func


def reward_func(queries, prompts, labels):
    Path({folder!r}, "at work on " + ray.get_runtime_context().get_node_id()).touch()
    time.sleep(2)
    with Path({scored!r}).open("a") as file:
        file.write(json.dumps({{"labels": labels, "queries": queries}}) + "\\n")
    return at_once(queries, prompts, labels)
"""


def test_the_rewards_of_a_step_survive_the_death_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    pipeline.make_model(tmp_path / "model")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    seen = tmp_path / "seen"
    seen.mkdir()
    slowly = SLOWLY.format(folder=str(seen), scored=str(tmp_path / "scored"))
    pipeline.make_reward(tmp_path / "reward.py", pipeline.REWARD + slowly)
    options = pipeline.arguments(tmp_path, maxk__reward_workers=2)
    script = Path(pipeline.__file__).with_name("run_recorded.py")
    monkeypatch.setenv("MAXK_TEST_RECORD", str(tmp_path / "record.pt"))  # of the cluster, and so of its actors
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 6, "num_gpus": 2, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=0, num_gpus=0)  # for reward workers only, which ask for no CPUs
        cluster.wait_for_nodes()
        job = subprocess.Popen(
            [sys.executable, str(script), *options],
            stdout=(tmp_path / "log").open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "RAY_ADDRESS": cluster.address},
        )
        while not (seen / f"at work on {node.node_id}").exists():
            assert job.poll() is None, (tmp_path / "log").read_text()[-5000:]
            time.sleep(0.05)
        there = [int(file.name) for file in seen.glob("[0-9]*") if file.read_text() == node.node_id]
        for process in [node.all_processes["raylet"][0].process.pid, *there]:
            os.kill(process, signal.SIGKILL)
        assert job.wait(timeout=600) == 0, (tmp_path / "log").read_text()[-5000:]
    finally:
        cluster.shutdown()

    rows = torch.load(tmp_path / "record.pt", weights_only=False)["rows"]
    assert len(rows) == 32, "completions were lost with the node"
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row["reward"])
    scored = {line["labels"][0]: line for line in map(json.loads, (tmp_path / "scored").read_text().splitlines())}
    at_once: dict[str, Any] = {}
    exec(pipeline.REWARD, at_once)
    expected = [at_once["reward_func"](line["queries"], None, None)["rewards"] for line in scored.values()]
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, expected))
    assert len(list(seen.glob("[0-9]*"))) == 3, "no worker was replaced"
