"""An experiment on the real stack, killed in the middle of a training run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from openrlhf_maxk.problems.mini.base_model import ModelSettings
from openrlhf_maxk.problems.mini.prepare import prepare
from openrlhf_maxk.problems.mini.splits import ProblemSettings

pytestmark = pytest.mark.slow

OPTIONS = {
    "maxk.objective": "offpolicy_bon",
    "maxk.k": 2,
    "rollout.n_samples_per_prompt": 4,
    "rollout.batch_size": 8,
    "rollout.micro_batch_size": 32,
    "rollout.max_new_tokens": 40,
    "train.batch_size": 32,
    "train.micro_batch_size": 32,
    "data.max_len": 96,
    "algo.kl.init_coef": 0,
    "ckpt.save_steps": 1,
}


def test_a_killed_experiment_goes_on_and_two_runs_are_compared(tmp_path):
    prepare(tmp_path / "mini", ProblemSettings(0, 32, 4, 8), ModelSettings(steps=20), 2)
    plan = {
        "models": {"mini": str(tmp_path / "mini" / "base_model")},
        "problems": str(tmp_path / "mini" / "problems"),
        "seeds": [5],
        "options": OPTIONS,
        "evaluation": {"samples": 4, "max-new-tokens": 40},
        "runs": {"max@2": None, "mean": {"maxk.k": 1}},
        "baseline": "mean",
        "metrics": ["max"],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "openrlhf_maxk.cli.experiment", str(tmp_path / "plan.yaml"), "--out", str(out)]
    log = out / "mini" / "max@2" / "seed-5" / "train.log"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 600
        while not (log.exists() and "step 2  reward_mean" in log.read_text()):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(first.pid, signal.SIGKILL)

    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.startswith("1 of 3 jobs are done; 2 to go")
    steps = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("step ") and "reward" in line]
    assert sorted(set(steps)) == ["1", "2", "3", "4"]
    assert len(steps) == 4, "what the killed experiment had begun went on, and was not begun again"
    with (out / "results.csv").open() as file:
        rows = {(row["run"], row["metric"], row["k"]): row for row in csv.DictReader(file)}
    assert {run for run, _, _ in rows} == {"base", "max@2", "mean"}
    assert rows["max@2", "max", "4"]["difference"] != ""
    assert rows["mean", "max", "4"]["difference"] == "", "it is the baseline"
    tables = (out / "results.md").read_text()
    assert "| max@2 | 1 |" in tables
    assert "pass@" not in tables, "the plan wants one metric"
    assert {"max", "pass", "min"} <= {metric for _, metric, _ in rows}
    assert (out / "figures" / "mini.png").is_file()
