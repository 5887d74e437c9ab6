from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from openrlhf_maxk.evaluation.pipeline import Plan, UnscoredError, evaluate
from openrlhf_maxk.evaluation.samples.generate import IncompleteError
from openrlhf_maxk.evaluation.samples.log import LogError
from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
from openrlhf_maxk.evaluation.samples.records import Sampling
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder, RunFolderError
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores
from openrlhf_maxk.evaluation.statistics.scores import Details
from openrlhf_maxk.rewards.scoring import extraction

from .fakes import FakeRunner, FakeSampler, extract, make_problems, result_of


def plan_of(folder: Path, sampler, samples: int = 20, **more) -> Plan:
    problems = load_problem_set(folder)
    return Plan("toy model", problems, problems.prompts(), sampler, more.pop("sampling", Sampling()), samples, **more)


def run_once(folder: Path, root: Path, samples: int = 20, runner=None, **more):
    return evaluate(
        plan_of(folder, more.pop("sampler", FakeSampler()), samples, **more), root, runner or FakeRunner(), extract
    )


def assert_same_scores(a, b):
    assert a.ids == b.ids
    for name in ("offsets", "rewards", "correct", "unscored"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for f in fields(Details):
        left, right = getattr(a.details, f.name), getattr(b.details, f.name)
        if f.name in ("behaviours", "answers"):  # numbered in the order of execution: the same partition
            assert len(set(zip(left, right, a_rows(a), strict=True))) == len(set(zip(left, a_rows(a), strict=True)))
            assert len(set(zip(left, a_rows(a), strict=True))) == len(set(zip(right, a_rows(a), strict=True)))
        else:
            np.testing.assert_array_equal(left, right)


def a_rows(scores):
    return np.repeat(np.arange(len(scores)), scores.samples)


@pytest.fixture
def store(tmp_path):
    make_problems(tmp_path / "problems")
    return tmp_path / "problems"


def test_scores_are_what_the_samples_say(store, tmp_path):
    """Everything in the scores, worked out again from the completions one by one."""
    result = run_once(store, tmp_path / "runs", samples=30)
    scores = result.scores
    problems = {p.id: p for p in make_problems(tmp_path / "again")}
    completions = {(r["problem"], r["index"]): r["completion"] for r in result.run.samples}
    assert len(completions) == 150
    for p, name in enumerate(scores.ids):
        assert scores.sources[p] == problems[name].source
        programs, behaviours = {}, {}
        for i in range(30):
            row = scores.offsets[p] + i
            program = extract(completions[name, i])
            passed = (
                [False] * 6
                if program is None
                else [t.verdict == "passed" for t in result_of(program, problems[name]).tests]
            )
            assert scores.rewards[row] == sum(passed) / 6
            assert scores.correct[row] == all(passed)
            assert scores.details.public[row] == sum(passed[:2]) / 2
            assert scores.details.hidden[row] == sum(passed[2:]) / 4
            assert scores.details.verdicts[row].sum() == (0 if program is None else 6)
            programs.setdefault(program, set()).add(scores.details.programs[row])
            outputs = (
                None
                if program is None
                else tuple((t.verdict, t.output) for t in result_of(program, problems[name]).tests)
            )
            behaviours.setdefault(outputs, set()).add(scores.details.behaviours[row])
        for kinds in (programs, behaviours):
            assert all(len(numbers) == 1 for numbers in kinds.values())
            assert len({min(numbers) for numbers in kinds.values()}) == len(kinds)
            assert kinds.get(None, {-1}) == {-1}


def test_saved_scores_and_summary_are_those_returned(store, tmp_path):
    result = run_once(store, tmp_path / "runs")
    assert_same_scores(load_scores(result.run.scores), result.scores)
    summary = json.loads((result.run.scores / "summary.json").read_text())
    assert summary["k"] == [1, 2, 4, 8, 16]
    np.testing.assert_allclose(
        summary["all"]["max@k"]["mean"], result.scores.estimates("max", summary["k"]).mean(0), atol=1e-6
    )
    assert set(summary["by_source"]) == {"toy", "game"}
    assert list(summary["by_difficulty"]) == ["0", "1", "2"]
    assert sum(summary["all"]["verdicts"].values()) == pytest.approx(1)
    assert summary["all"]["entropy"]["mean"] > 0
    assert (result.run.scores / "curves.png").stat().st_size > 5000


def test_a_second_run_does_nothing_again(store, tmp_path):
    first = run_once(store, tmp_path / "runs")
    sampler, runner = FakeSampler(), FakeRunner(tmp_path / "journal")
    second = run_once(store, tmp_path / "runs", sampler=sampler, runner=runner)
    assert sampler.asked == 0
    assert second.execution.executed == 0
    assert not (tmp_path / "journal").exists()
    assert_same_scores(first.scores, second.scores)


def test_asking_for_more_adds_only_what_is_missing(store, tmp_path):
    run_once(store, tmp_path / "runs", samples=16)
    sampler = FakeSampler()
    grown = run_once(store, tmp_path / "runs", samples=64, sampler=sampler)
    assert sampler.asked == 5 * 48
    assert_same_scores(grown.scores, run_once(store, tmp_path / "other", samples=64).scores)
    fewer = run_once(store, tmp_path / "runs", samples=16)
    assert_same_scores(fewer.scores, run_once(store, tmp_path / "third", samples=16).scores)


def test_equal_programs_of_a_problem_are_run_once(store, tmp_path):
    run_once(store, tmp_path / "runs", samples=64, runner=FakeRunner(tmp_path / "journal"))
    ran = Counter((tmp_path / "journal").read_text().splitlines())
    assert set(ran.values()) == {1}
    assert len(ran) == 5 * 11  # eleven kinds of program, each on five problems


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(temperature=0.7)},
        {"sampling": Sampling(top_p=0.9)},
        {"sampling": Sampling(max_new_tokens=17)},
        {"sampling": Sampling(seed=1)},
        {"sampler": FakeSampler(name="another model")},
    ],
)
def test_changed_settings_never_reuse_anything(store, tmp_path, change):
    first = run_once(store, tmp_path / "runs")
    sampler = change.pop("sampler", FakeSampler())
    second = run_once(store, tmp_path / "runs", sampler=sampler, **change)
    assert sampler.asked == 100
    assert second.run.path != first.run.path
    assert RunFolder.find(tmp_path / "runs").path == second.run.path  # the latest


@pytest.mark.parametrize("change", [{"tests": 7}, {"public": 1}, {"setup_code": "import math"}, {"count": 4}])
def test_changed_problems_never_reuse_anything(tmp_path, change):
    make_problems(tmp_path / "a")
    make_problems(tmp_path / "b", **change)
    first = run_once(tmp_path / "a", tmp_path / "runs")
    assert run_once(tmp_path / "b", tmp_path / "runs").run.path != first.run.path


def test_labels_of_problems_may_change(tmp_path):
    problems = make_problems(tmp_path / "a")
    first = run_once(tmp_path / "a", tmp_path / "runs")
    from openrlhf_maxk.problems.store import write_problems

    write_problems(tmp_path / "b", [replace(problem, difficulty="hard") for problem in problems])
    sampler = FakeSampler()
    second = run_once(tmp_path / "b", tmp_path / "runs", sampler=sampler)
    assert sampler.asked == 0
    assert second.run.path == first.run.path
    assert set(second.scores.difficulties) == {"hard"}


def test_infrastructure_errors_are_tried_again_and_never_scored(store, tmp_path):
    broken = FakeRunner(broken=frozenset({"print(3)"}))
    with pytest.raises(UnscoredError, match=r"of 100 samples could not be executed.*the lane died"):
        run_once(store, tmp_path / "runs", runner=broken)
    lenient = run_once(store, tmp_path / "runs", runner=broken, max_unscored=0.5)
    lost = int(lenient.scores.unscored.sum())
    assert lost > 0
    assert lenient.execution.failed > 0
    assert len(lenient.scores.rewards) == 100 - lost
    healed = run_once(store, tmp_path / "runs", runner=FakeRunner(tmp_path / "journal"))
    assert healed.scores.unscored.sum() == 0
    assert {line.split()[1] for line in (tmp_path / "journal").read_text().splitlines()} == {"print(3)"}
    assert_same_scores(healed.scores, run_once(store, tmp_path / "undisturbed").scores)


def test_samples_are_read_again_under_new_rules_of_extraction(store, tmp_path, monkeypatch):
    before = run_once(store, tmp_path / "runs")
    monkeypatch.setattr(extraction, "RULES", extraction.RULES + 1)
    assert run_once(store, tmp_path / "runs").run.path != before.run.path


def test_samples_that_could_not_be_generated_are_asked_for_again(store, tmp_path):
    with pytest.raises(IncompleteError, match="10 of 100 samples could not be generated"):
        run_once(store, tmp_path / "runs", sampler=FakeSampler(refuse=2))
    sampler = FakeSampler()
    healed = run_once(store, tmp_path / "runs", sampler=sampler)
    assert sampler.asked == 10
    assert_same_scores(healed.scores, run_once(store, tmp_path / "undisturbed").scores)


def test_two_processes_at_once_are_refused(store, tmp_path):
    plan = plan_of(store, FakeSampler())
    run = RunFolder.create(tmp_path / "runs", plan.name, plan.key(), plan.prompts, {})
    with run.writing(), pytest.raises(LogError, match=f"being written by process {os.getpid()}"):
        evaluate(plan, tmp_path / "runs", FakeRunner(), extract)


def test_more_k_than_samples_is_refused_before_anything_starts(store):
    with pytest.raises(ValueError, match="k = 64 needs at least 64 samples of each problem, not 20"):
        plan_of(store, FakeSampler(), ks=np.asarray([1, 64]))
    with pytest.raises(ValueError, match="at least 1"):
        plan_of(store, FakeSampler(), samples=0)


def test_a_folder_that_is_no_run_says_so(store, tmp_path):
    with pytest.raises(RunFolderError, match="is no evaluation"):
        RunFolder.find(tmp_path)
    run = run_once(store, tmp_path / "runs").run
    settings = json.loads((run.path / "run.json").read_text())
    settings["settings"]["sampling"]["temperature"] = 0.5
    (run.path / "run.json").write_text(json.dumps(settings))
    with pytest.raises(RunFolderError, match="changed by hand"):
        run.settings()


KILLED = """
    import sys
    from pathlib import Path
    from openrlhf_maxk.evaluation.pipeline import evaluate
    from tests.evaluation.fakes import FakeRunner, FakeSampler, extract
    from tests.evaluation.test_pipeline import plan_of
    base = Path(sys.argv[1])
    plan = plan_of(base / "problems", FakeSampler(base / "asked", delay=0.02), 40)
    evaluate(plan, base / "runs", FakeRunner(base / "ran", delay=0.05), extract)
"""


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_killed_in_every_stage_several_times(tmp_path):
    """The same numbers as an undisturbed run, and nothing done twice but what was in flight."""
    make_problems(tmp_path / "problems", count=12)
    rng = random.Random(5)
    stages = ["asked"] * 4 + ["ran"] * 3  # each is killed once its journal has grown by a random number of lines
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    for stage in stages:
        before, steps = len(lines_of(tmp_path / stage)), rng.randrange(1, 41) + 40 * (stage == "asked")
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while len(lines_of(tmp_path / stage)) < before + steps:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)

    run = RunFolder.find(tmp_path / "runs")
    undisturbed = evaluate(
        plan_of(tmp_path / "problems", FakeSampler(), 40), tmp_path / "undisturbed", FakeRunner(), extract
    )
    assert_same_scores(load_scores(run.scores), undisturbed.scores)
    written = Counter((r["problem"], r["index"]) for r in run.samples)
    assert set(written.values()) == {1}
    results = Counter((r["problem"], r["program"]) for r in run.results)
    assert set(results.values()) == {1}
    asked = Counter(lines_of(tmp_path / "asked"))
    assert len(asked) == 12 * 40
    assert sum(asked.values()) - len(asked) <= 40 * 4  # the request that each kill cut short
    ran = Counter(lines_of(tmp_path / "ran"))
    assert sum(ran.values()) - len(ran) <= 30 * 3  # in flight, or finished within the last half second


def test_killed_while_scoring(store, tmp_path, monkeypatch):
    """The scores of before stay until the new ones are whole."""
    first = run_once(store, tmp_path / "runs")
    monkeypatch.setattr("openrlhf_maxk.evaluation.pipeline.plot_curves", lambda *a, **k: os._exit(9))
    child = os.fork()
    if child == 0:
        run_once(store, tmp_path / "runs", samples=40)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    assert_same_scores(load_scores(first.run.scores), first.scores)
    again = run_once(store, tmp_path / "runs", samples=40)
    assert_same_scores(again.scores, run_once(store, tmp_path / "other", samples=40).scores)
    assert not list(first.run.path.glob(".scores*"))
