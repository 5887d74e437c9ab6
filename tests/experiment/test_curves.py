"""How runs went: read from TensorBoard's files, kept as a small table, shown over seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from openrlhf_maxk.experiment import curves
from openrlhf_maxk.experiment.plan import Job, read_plan

from .test_plan import write

ALL = [name for shown in curves.SHOWN for name in shown.names]


def log(folder: Path, run: str, values: Mapping[str, Mapping[int, float]]) -> None:
    """Scalars by name and step, as OpenRLHF's logger writes them."""
    with SummaryWriter(str(folder / curves.EVENTS / run)) as writer:
        for name, of_step in values.items():
            for step, value in of_step.items():
                writer.add_scalar(f"train/{name}", value, step)


def done(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done.json").write_text("{}")


def test_of_a_run_that_went_on_the_later_record_of_a_step_counts(tmp_path, monkeypatch):
    now = iter((1000, 2000))
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time.time", lambda: at)
    for at, steps in zip(now, ({1: 0.5, 2: 0.25, 3: 9.0}, {3: 0.125, 4: 1 / 3}), strict=True):
        log(tmp_path, f"run {at}", {"rollout/reward_mean": steps, "unknown": steps})
    found = curves.of_job(tmp_path)
    assert list(found) == [curves.STEP, "rollout/reward_mean"]
    np.testing.assert_allclose(found["rollout/reward_mean"], [0.5, 0.25, 0.125, 1 / 3])
    assert found[curves.STEP].tolist() == [1, 2, 3, 4]


def test_a_step_without_a_value_is_kept_as_one(tmp_path):
    log(tmp_path, "run", {"rollout/reward_mean": {1: 0.5, 3: 0.1}, "rollout/distinct": {1: 1.0, 2: 0.5, 3: 0.25}})
    found = curves.of_job(tmp_path)
    text = curves.as_csv(found)
    assert text == "step,rollout/reward_mean,rollout/distinct\n1.0,0.5,1.0\n2.0,,0.5\n3.0,0.1,0.25\n"
    (tmp_path / curves.FILE).write_text(text)
    again = curves.of_job(tmp_path)
    assert list(again) == list(found)
    for name, curve in found.items():
        np.testing.assert_allclose(again[name], curve, rtol=1e-6)


def test_the_table_by_hand(tmp_path):
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None, "y": None}, seeds=[1, 2], baseline="base"))
    out = tmp_path / "out"
    for seed in (1, 2):
        steps = range(1, 8)
        values = {name: {step: step * seed / 10 for step in steps} for name in ALL}
        values["maxk/clipped_negative"] = dict.fromkeys(steps, 1.0)
        log(out / "a" / "x" / f"seed-{seed}", "run", values)
        done(out / "a" / "x" / f"seed-{seed}")
    done(out / "a" / "y" / "seed-1")  # has no event files
    done(out / "a" / "base")
    found = curves.load(plan, out)
    assert list(found) == [Job("a", "x", 1), Job("a", "x", 2)]
    *_, row, _ = curves.markdown(plan, found).split("\n")
    five, least, median = (np.array([value, 2 * value]) for value in (0.5, 0.1, 0.4))
    expected = [five, five, five, least, median + 1, median]
    cells = " | ".join(f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" for values in expected)
    assert row == f"| x | 2 | {cells} |"
    curves.plot(found, "a", tmp_path / "figures" / "a.png")
    assert (tmp_path / "figures" / "a.png").stat().st_size > 10_000


def test_where_nothing_was_logged_nothing_is_shown_and_tensorboard_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    plan = read_plan(write(tmp_path))
    assert curves.of_job(tmp_path) == {}
    assert curves.markdown(plan, {}) == ""
    curves.plot({}, "a", tmp_path / "figures" / "a.png")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("missing", ALL)
def test_a_run_without_one_of_the_scalars_has_the_others(tmp_path, missing):
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None}, seeds=[1], baseline="base"))
    folder = tmp_path / "out" / "a" / "x" / "seed-1"
    log(folder, "run", {name: {1: 0.5, 2: 0.5} for name in ALL if name != missing})
    done(folder)
    found = curves.load(plan, tmp_path / "out")
    *_, row, _ = curves.markdown(plan, found).split("\n")
    assert row.count("| - ") == 1
    curves.plot(found, "a", tmp_path / "a.png")
