"""A whole node of a real Ray cluster dies under a batch: its groups are scored elsewhere, to the same rewards."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from openrlhf_maxk.rewards.request import RewardRequest, RewardSpec
from openrlhf_maxk.rewards.serving.pool import RewardPool

pytestmark = pytest.mark.slow

SLOW_LENGTHS = """
    import os, time
    from pathlib import Path
    import ray

    def reward_func(queries, prompts, labels):
        Path({folder!r}, str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())
        time.sleep(2.0)
        return {{"rewards": [float(len(query)) for query in queries]}}
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes, each with a raylet of its own."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False)
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_a_node_that_dies_changes_no_reward(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    seen = tmp_path / "seen"
    seen.mkdir()
    file = tmp_path / "reward.py"
    file.write_text(textwrap.dedent(SLOW_LENGTHS).format(folder=str(seen)))
    pool = RewardPool(RewardSpec((str(file),)), 2, 1, timeout=300.0)
    labels = ["a" * size for size in range(1, 9)]
    refs = [pool.submit(RewardRequest("p", label, (f"p{label}",), (label,))) for label in labels]
    while not (killed := [path for path in seen.iterdir() if path.read_text() == node.node_id]):
        time.sleep(0.05)  # until a worker of that node is at it
    workers = {actor._actor_id for actor in pool._workers}
    for process in [node.all_processes["raylet"][0].process.pid, *(int(path.name) for path in killed)]:
        os.kill(process, signal.SIGKILL)

    rewards = [[reward.reward for reward in pool.result(ref)] for ref in refs]
    assert rewards == [[len(label) + 1.0] for label in labels]
    assert len({actor._actor_id for actor in pool._workers} - workers) >= 1, "no worker was replaced"
