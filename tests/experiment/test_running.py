"""Jobs one after the other: what is done is kept, whatever happens in between. And what comes of them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from openrlhf_maxk.cli import experiment as command
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores, save_scores
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores
from openrlhf_maxk.experiment import running
from openrlhf_maxk.experiment.figure import plot
from openrlhf_maxk.experiment.plan import Job, PlanError, read_plan
from openrlhf_maxk.experiment.results import markdown, values
from openrlhf_maxk.experiment.running import JobFailed, carry_out
from openrlhf_maxk.problems.verdict import Verdict

from .test_curves import log
from .test_plan import write


@pytest.fixture
def commands(monkeypatch):
    """What is asked for; a command whose folder's name is in ``failing`` fails."""
    asked: list[tuple[str, str]] = []
    failing: set[str] = set()

    def run(name: str, arguments: list[str], folder: Path, lock: IO[str]) -> None:
        asked.append((name, folder.name))
        if folder.name in failing:
            raise JobFailed("no")

    monkeypatch.setattr(running, "_command", run)
    return asked, failing


def test_what_is_done_is_kept_and_what_failed_is_done_again(tmp_path, commands):
    asked, failing = commands
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None}, baseline="base"))
    failing.add("seed-1")
    said: list[str] = []
    with pytest.raises(JobFailed):
        carry_out(plan, tmp_path / "out", said.append)
    assert asked == [("evaluate", "base"), ("train", "seed-3"), ("evaluate", "seed-3"), ("train", "seed-1")]
    assert said[0] == "0 of 3 jobs are done; 3 to go, for how long is known when one of each kind is done"
    assert said[-1].startswith("2 of 3: a x seed 3, ")
    failing.clear()
    asked.clear()
    carry_out(plan, tmp_path / "out", said.append)
    assert asked == [("train", "seed-1"), ("evaluate", "seed-1")]
    asked.clear()
    carry_out(plan, tmp_path / "out", said.append)
    assert not asked
    assert said[-1] == "3 of 3 jobs are done"


def test_time_is_estimated_from_jobs_of_the_same_kind(tmp_path, commands):
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None}, baseline="base"))
    carry_out(plan, tmp_path / "out", lambda line: None)
    for job, seconds in zip(plan.jobs()[:2], (60.0, 3600.0), strict=True):
        done = tmp_path / "out" / job.folder / "done.json"
        done.write_text(json.dumps({**json.loads(done.read_text()), "seconds": seconds}))
    (tmp_path / "out" / plan.jobs()[2].folder / "done.json").unlink()
    said: list[str] = []
    carry_out(plan, tmp_path / "out", said.append)
    assert said[0] == "2 of 3 jobs are done; 1 to go, about 60 minutes"


def test_before_anything_is_done_time_is_estimated_from_the_experiment_beside_it(tmp_path, commands):
    for name, seconds in (("earlier", (7.0, 9.0)), ("last", (60.0, 1800.0))):
        for place, took in zip(("a/base", "a/x/seed-1"), seconds, strict=True):
            folder = tmp_path / name / place
            folder.mkdir(parents=True)
            (folder / "done.json").write_text(json.dumps({"identity": "another", "seconds": took}))
            os.utime(folder / "done.json", (len(name) * -10.0 + 1e9,) * 2)
        (tmp_path / name / "results.md").touch()
    broken = tmp_path / "newest, of something else" / "a" / "base"
    broken.mkdir(parents=True)
    (broken / "done.json").write_text("{}")
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None}, baseline="base"))
    said: list[str] = []
    carry_out(plan, tmp_path / "out", said.append)
    like = "if they take as long as those of last"
    assert said[0] == f"0 of 3 jobs are done; 3 to go, about 61 minutes {like}"
    assert said[1] == f"1 of 3: a base, 0 s; 2 to go, about 60 minutes {like}"
    assert said[2] == "2 of 3: a x seed 3, 0 s; 1 to go, about 0 s"


def test_a_run_of_other_options_is_not_taken_for_this_one(tmp_path, commands):
    asked, _ = commands
    carry_out(read_plan(write(tmp_path)), tmp_path / "out", lambda line: None)
    asked.clear()
    with pytest.raises(PlanError, match=r"GRPO/seed-3 was made with other options than the plan has now"):
        carry_out(
            read_plan(write(tmp_path, runs={"max@4": None, "GRPO": {"maxk.k": 2}})), tmp_path / "out", lambda line: None
        )
    assert not asked


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(running.sys, "executable", "/bin/sh")
    message = r"train of .* ended with status \d+; the end of .*train.log:\n  "
    with (tmp_path / "lock").open("w") as lock, pytest.raises(JobFailed, match=message):
        running._command("train", ["--x"], tmp_path, lock)


def test_what_would_be_refused_is_said_before_anything_runs(tmp_path, monkeypatch, capsys, commands):
    asked, _ = commands
    path = write(tmp_path, options={"maxk.k": 4, "maxk.kk": 3})
    assert command.main([str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: runs.max@4: --maxk.kk is not an option: did you mean --maxk.k?")
    assert not asked


def scores(*groups: list[float]) -> Scores:
    return Scores.from_groups({f"p{i}": group for i, group in enumerate(groups)})


def test_values_are_means_over_seeds_with_their_deviation_and_differences_to_the_baseline(tmp_path):
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None, "y": None}, baseline="y"))
    base, x3, y3, x1, y1 = plan.jobs()
    found = values(
        plan,
        {
            base: scores([0, 0], [0, 1]),
            x3: scores([1, 1], [0, 1]),
            y3: scores([0, 0], [0, 1]),
            x1: scores([0, 1], [1, 1]),
            y1: scores([0, 1], [0, 1]),
        },
    )
    by = {(v.run, v.metric, v.k): v for v in found}
    x = by["x", "max", 1]
    assert (x.seeds, x.mean) == (2, pytest.approx(0.75))
    assert x.deviation == pytest.approx(0.0)
    y = by["y", "max", 1]
    assert y.mean == pytest.approx((0.25 + 0.5) / 2)
    assert y.deviation == pytest.approx(np.std([0.25, 0.5], ddof=1))
    assert np.isnan(y.difference)
    assert x.difference == pytest.approx(0.75 - 0.375)
    assert by["base", "max", 1].seeds == 1
    assert np.isnan(by["base", "max", 1].deviation)
    assert by["base", "max", 2].mean == pytest.approx(0.5)
    text = markdown(plan, found, ["max"], [1, 2])
    assert "| x | 2 | **0.750 ± 0.000** | **1.000 ± 0.000** |" in text
    assert "| base | 1 | 0.250 | 0.500 |" in text
    assert "differs from y" in text
    plot(found, "a", ["max", "pass"], tmp_path / "figures" / "a.png")
    assert (tmp_path / "figures" / "a.png").stat().st_size > 10_000


def test_differences_that_every_problem_shows_are_significant_after_the_correction(tmp_path):
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None, "y": None}, seeds=[1], baseline="y"))
    _, x, y = plan.jobs()
    good = scores(*[[0.9, 0.8 + i / 1000] for i in range(30)])
    bad = scores(*[[0.1, 0.2] for _ in range(30)])
    found = values(plan, {x: good, y: bad})
    (value,) = [v for v in found if (v.run, v.metric, v.k) == ("x", "max", 1)]
    assert value.p_value < 1e-6
    assert value.effect == 1.0
    assert value.low <= value.difference <= value.high
    equal = values(plan, {x: bad, y: bad})
    assert {v.p_value for v in equal if v.run == "x"} == {1.0}


def test_each_model_is_compared_on_its_own_problems(tmp_path):
    plan = read_plan(write(tmp_path, problems={"a": "x", "b": "y"}, baseline="base", runs={"GRPO": None}, seeds=[1]))
    of_a, of_b = {"p": [0.0, 1.0]}, {"q": [0.0, 0.0, 1.0, 1.0]}
    given = {}
    for model, of_model in (("a", of_a), ("b", of_b)):
        given[Job(model, "base", None)] = Scores.from_groups(of_model)
        given[Job(model, "GRPO", 1)] = Scores.from_groups({name: [1.0] * len(x) for name, x in of_model.items()})
    found = {(v.model, v.run, v.metric, v.k): v for v in values(plan, given)}
    assert found["a", "base", "max", 2].mean == 1.0
    assert found["b", "base", "max", 2].mean == pytest.approx(5 / 6)
    assert found["b", "GRPO", "max", 2].difference == pytest.approx(1 / 6)
    assert ("a", "base", "max", 4) not in found
    text = markdown(plan, list(found.values()), ["max"], [1, 2, 4])
    assert "| | seeds | max@1 | max@2 |\n" in text
    assert "| | seeds | max@1 | max@2 | max@4 |\n" in text


def test_there_are_no_values_before_anything_is_done(tmp_path, capsys):
    assert values(read_plan(write(tmp_path)), {}) == []
    assert command.main([str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out"), "--results"]) == 0
    assert "is done yet" in capsys.readouterr().out


def test_what_a_killed_experiment_has_left_at_work_is_waited_for(tmp_path):
    """Its command holds the lock, so that no second one writes where it does."""
    plan = read_plan(write(tmp_path, models={"a": "a"}, runs={"x": None}, seeds=[1], baseline="base"))
    base, _ = plan.jobs()
    folder = tmp_path / "out" / base.folder
    folder.mkdir(parents=True)
    at_work = tmp_path / "at work"
    script = f"import pathlib, time; print(1, flush=True); time.sleep(1.5); pathlib.Path({str(at_work)!r}).unlink()"
    at_work.touch()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = subprocess.Popen([sys.executable, "-c", script], pass_fds=[lock.fileno()], stdout=subprocess.PIPE)
    assert left.stdout is not None
    left.stdout.readline()
    said: list[str] = []
    together: list[bool] = []

    def command(name: str, arguments: list[str], folder: Path, lock: IO[str]) -> None:
        together.append(at_work.exists())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_command", command)
        carry_out(plan, tmp_path / "out", said.append)
    assert said[1].startswith("a base: another experiment, or what one that was killed has left, is at work on it")
    assert together == [False, False, False]
    left.wait()


def test_what_results_are_made_from_can_be_packed(tmp_path, commands, capsys):
    file = write(tmp_path, models={"a": "a"}, runs={"x": None}, seeds=[1, 2], baseline="base")
    plan, out, packed = read_plan(file), tmp_path / "out", tmp_path / "packed"
    carry_out(plan, out, lambda line: None)
    for number, job in enumerate(plan.jobs()):
        run = RunFolder.create(
            out / job.folder / "evaluation", job.name, {"n": number}, {"p0": "text"}, {"model": "/home/me/model"}
        )
        run.scores.mkdir()
        save_scores(run.scores, scores([0, number / 2], [0.5, 1]))
        run.mark_latest()
        (out / job.folder / "model").mkdir()
        if job.run == "x":
            log(out / job.folder, "run", {"rollout/distinct": {1: 1.0, 2: number / 3}})
    (out / "a" / "x" / "seed-2" / running.DONE).unlink()
    assert command.main([str(file), "--out", str(out), "--pack", str(packed)]) == 0
    assert capsys.readouterr().out.startswith("2 jobs: ")
    kept = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    names = (
        "done.json",
        "evaluation/run.json",
        "evaluation/scores/problems.parquet",
        "evaluation/scores/samples.parquet",
    )
    of_jobs = {f"{folder}/{name}" for folder in ("a/base", "a/x/seed-1") for name in names}
    assert kept == of_jobs | {"a/x/seed-1/curves.csv"}
    assert "/home" not in (packed / "a" / "base" / "evaluation" / "run.json").read_text()
    for folder in (out, packed):
        assert command.main([str(file), "--out", str(folder), "--results"]) == 0
    for name in ("results.md", "results.csv"):
        assert (packed / name).read_text() == (out / name).read_text()
    assert "| x | 1 | **0.500**" in (packed / "results.md").read_text()
    assert "| x | 1 | - | - | 0.667 | - |" in (packed / "results.md").read_text()


@pytest.mark.parametrize(("metrics", "details"), [(["max", "pass"], False), (["max", "maj"], True), ([], True)])
def test_a_pack_keeps_what_the_metrics_of_the_plan_are_made_of(tmp_path, commands, metrics, details):
    file = write(tmp_path, models={"a": "a"}, runs={"x": None}, seeds=[1], baseline="base", metrics=metrics)
    plan, out, packed = read_plan(file), tmp_path / "out", tmp_path / "packed"
    carry_out(plan, out, lambda line: None)
    known = Details(
        **{name: np.arange(4) for name in ("indices", "programs", "behaviours", "answers", "tokens")},
        **{name: np.arange(4) / 4 for name in ("public", "hidden", "entropy")},
        verdicts=np.ones((4, len(Verdict)), dtype=np.int64),
    )
    for job in plan.jobs():
        run = RunFolder.create(out / job.folder / "evaluation", job.name, {"n": job.run}, {"p0": "text"}, {})
        run.scores.mkdir()
        save_scores(run.scores, replace(scores([0, 0.5], [0.5, 1]), details=known))
        run.mark_latest()
    assert command.main([str(file), "--out", str(out), "--pack", str(packed)]) == 0
    for job in plan.jobs():
        kept = load_scores(RunFolder.find(str(packed / job.folder / "evaluation")).scores)
        assert kept.rewards.tolist() == [0, 0.5, 0.5, 1]
        assert (kept.details is not None) == details
    for folder in (out, packed):
        assert command.main([str(file), "--out", str(folder), "--results"]) == 0
    assert (packed / "results.md").read_text() == (out / "results.md").read_text()
