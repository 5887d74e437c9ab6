"""Reward workers on a real Ray: what raises, hangs or dies ends in an error or is scored again, never made up."""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from openrlhf_maxk.rewards.request import RewardRequest, RewardSpec
from openrlhf_maxk.rewards.serving import pool as pool_module
from openrlhf_maxk.rewards.serving.pool import MAX_ATTEMPTS, RewardError, RewardPool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def clock(monkeypatch):
    """The time of the pool, which the test moves."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def make_pool(folder: Path, source: str, workers: int = 1) -> RewardPool:
    file = folder / "reward.py"
    file.write_text(textwrap.dedent(source))
    return RewardPool(RewardSpec((str(file),)), workers, 1, timeout=120.0)


def request(label: str) -> RewardRequest:
    completions = (f"{label}", f"{label}{label}")
    return RewardRequest("p", label, tuple(f"p{completion}" for completion in completions), completions)


def result(pool: RewardPool, ref: object) -> list[float | None]:
    ready, _ = ray.wait([ref], timeout=120)
    assert ready
    return [reward.reward for reward in pool.result(ref)]


LENGTHS = """
    def reward_func(queries, prompts, labels):
        return {"rewards": [len(query) for query in queries]}
"""


def test_rewards_come_back_to_the_group_that_asked(tmp_path):
    pool = make_pool(tmp_path, LENGTHS, workers=2)
    labels = ["a" * i for i in range(1, 9)]
    refs = [pool.submit(request(label)) for label in labels]
    assert [result(pool, ref) for ref in reversed(refs)] == [
        [len(label) + 1, 2 * len(label) + 1] for label in reversed(labels)
    ]
    assert not pool._pending


def test_a_reward_function_that_raises_ends_the_run_with_its_traceback(tmp_path):
    pool = make_pool(
        tmp_path,
        """
        def reward_func(queries, prompts, labels):
            return {"rewards": [1 / (label != "bad") for label in labels]}
        """,
    )
    good, bad = pool.submit(request("good")), pool.submit(request("bad"))
    assert result(pool, good) == [1.0, 1.0]
    with pytest.raises(RewardError, match="the reward function raised on label 'bad'") as caught:
        result(pool, bad)
    assert "ZeroDivisionError" in str(caught.value)
    assert "reward.py" in str(caught.value)


def test_a_file_that_cannot_be_imported_ends_the_run_at_its_start(tmp_path):
    with pytest.raises(RewardError, match="a reward worker could not start") as caught:
        make_pool(tmp_path, "raise KeyError('mine')")
    assert "mine" in str(caught.value)


def test_a_reward_function_that_hangs_ends_the_run_after_the_timeout(tmp_path, clock):
    pool = make_pool(
        tmp_path,
        """
        import time

        def reward_func(queries, prompts, labels):
            while labels[0] == "slow":
                time.sleep(0.05)
            return {"rewards": [1.0] * len(queries)}
        """,
    )
    clock.seconds = 1000.0  # idle time before the first group does not count
    hanging, quick = pool.submit(request("slow")), pool.submit(request("quick"))
    clock.seconds = 1100.0
    pool.check_progress([hanging, quick], progressed=False)
    assert result(pool, quick) == [1.0, 1.0]
    pool.check_progress([hanging], progressed=True)
    clock.seconds = 1219.0
    pool.check_progress([hanging], progressed=False)
    clock.seconds = 1221.0
    with pytest.raises(RewardError, match=r"no reward came back for 120 s \(--maxk.reward_timeout\).*\['slow'\]"):
        pool.check_progress([hanging], progressed=False)


def test_a_worker_that_dies_is_replaced_and_its_groups_are_scored_again(tmp_path):
    marker = tmp_path / "died"
    pool = make_pool(
        tmp_path,
        f"""
        import os
        from pathlib import Path

        def reward_func(queries, prompts, labels):
            if labels[0] == "bb" and not Path({str(marker)!r}).exists():
                Path({str(marker)!r}).touch()
                os._exit(9)
            return {{"rewards": [len(query) for query in queries]}}
        """,
    )
    (worker,) = pool._workers
    labels = ["a", "bb", "ccc", "dddd"]
    refs = [pool.submit(request(label)) for label in labels]
    assert [result(pool, ref) for ref in refs] == [[2.0, 3.0], [3.0, 5.0], [4.0, 7.0], [5.0, 9.0]]
    assert marker.exists()
    assert len(pool._workers) == 1
    assert pool._workers[0] is not worker
    assert not pool._pending


def test_a_group_that_kills_every_worker_is_an_error_and_no_reward(tmp_path):
    deaths = tmp_path / "deaths"
    pool = make_pool(
        tmp_path,
        f"""
        import os

        def reward_func(queries, prompts, labels):
            with open({str(deaths)!r}, "a") as file:
                file.write("x")
            os._exit(9)
        """,
    )
    with pytest.raises(RewardError, match=f"workers died {MAX_ATTEMPTS} times .* label 'deadly'"):
        result(pool, pool.submit(request("deadly")))
    assert deaths.read_text() == "x" * MAX_ATTEMPTS


def test_a_group_that_hangs_on_the_second_worker_ends_the_run_too(tmp_path):
    marker = tmp_path / "died"
    pool = make_pool(
        tmp_path,
        f"""
        import os, time
        from pathlib import Path

        def reward_func(queries, prompts, labels):
            if not Path({str(marker)!r}).exists():
                Path({str(marker)!r}).touch()
                os._exit(9)
            time.sleep(10_000)
        """,
    )
    pool._timeout = 5.0  # after the start of the worker, which has its own
    with pytest.raises(RewardError, match=r"no reward came back for 5 s .* labels \['twice'\]"):
        result(pool, pool.submit(request("twice")))
    assert marker.exists()


def test_without_a_reward_function_there_is_no_worker():
    assert not RewardPool(RewardSpec(), 1, 1, 1.0).enabled
    assert not RewardPool(RewardSpec(("agent",)), 1, 1, 1.0).enabled
