"""The real thing: vLLM engines under Ray, killed and resumed. A tiny model with random weights speaks at random."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.scores_file import load_scores
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems

from ...e2e.pipeline import make_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROBLEMS, SAMPLES = 24, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    make_model(folder / "model", initializer_range=0.02)  # near the uniform distribution over its tokens
    prompts = ["given integers, regular next small, output the spread", "read integers, make them evens"]
    write_problems(
        folder / "problems",
        [Problem(f"p{i}", f"{prompts[i % 2]}\nin {i}\nout {i}\n", (Test("1", "1"),)) for i in range(PROBLEMS)],
    )
    return folder


def command(folder: Path, out: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "openrlhf_maxk.cli.evaluate", "--model", str(folder / "model")),
        *("--problems", str(folder / "problems"), "--samples", str(SAMPLES), "--max-new-tokens", "48"),
        *("--out", str(folder / out), "--cores", "1", "--entropy-samples", "8", "--max-num-seqs", "64", *more),
    ]


def completions(run: RunFolder) -> dict[tuple[str, int], str]:
    return {(r["problem"], r["index"]): r["completion"] for r in run.samples}


MARK = f"EVALUATION_TEST={os.getpid()}"  # in the environment of every process that the tests start


def environment() -> dict[str, str]:
    name, value = MARK.split("=")
    return os.environ | {name: value}


def descendants() -> list[str]:
    """The command lines of processes of commands, engines and Ray."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and MARK.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode())
        except OSError:
            pass  # it has ended, or is not ours
    return [line for line in found if line]


@pytest.fixture(scope="module")
def undisturbed(folder):
    done = subprocess.run(command(folder, "whole"), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stderr
    return RunFolder.find(folder / "whole")


def test_every_problem_gets_different_samples_of_its_own(folder, undisturbed):
    texts = completions(undisturbed)
    assert len(texts) == PROBLEMS * SAMPLES
    for p in range(PROBLEMS):
        assert len({texts[f"p{p}", i] for i in range(SAMPLES)}) > SAMPLES // 2
    records = list(undisturbed.samples)
    assert all((r["logprob"] is not None) == (r["index"] < 8) for r in records)
    assert all(0 < r["tokens"] <= 48 for r in records)
    entropy = load_scores(undisturbed.scores).details.entropy
    assert np.nanmean(entropy) == pytest.approx(np.log(len(build_tokenizer())), rel=0.1)
    assert "model" in json.loads((undisturbed.path / "run.json").read_text())["settings"]["sampler"]


def test_killed_while_generating_and_resumed(folder, undisturbed):
    """The samples of an undisturbed run, each written once; and no process stays behind."""
    wanted = PROBLEMS * SAMPLES
    kills = 0
    for share in (0.1, 0.5):
        process = subprocess.Popen(
            command(folder, "killed"), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while process.poll() is None:
            runs = [path for path in (folder / "killed").glob("model-*") if (path / "run.json").exists()]
            if runs and len(completions(RunFolder(runs[0]))) > share * wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait()
        # What of Ray had not reached its head yet waits for it as long as this: its gcs_rpc_server_reconnect_timeout_s.
        deadline = time.monotonic() + 60 + 60
        while descendants() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert descendants() == []
    assert kills
    done = subprocess.run(command(folder, "killed"), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = RunFolder.find(folder / "killed")
    assert len(list(run.samples)) == wanted
    mine, theirs = completions(run), completions(undisturbed)
    # Seeds are the same; batches of another make-up may still round differently now and then.
    same = sum(mine[key] == theirs[key] for key in theirs)
    assert same >= 0.99 * wanted, f"{same} of {wanted} samples are those of the undisturbed run"


def test_asking_for_more_samples_and_then_nothing_new(folder, undisturbed):
    first = completions(undisturbed)
    more = command(folder, "whole", "--samples", str(SAMPLES + 8))
    done = subprocess.run(more, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = completions(undisturbed)
    assert len(grown) == PROBLEMS * (SAMPLES + 8)
    assert all(grown[key] == text for key, text in first.items())
    again = subprocess.run(more, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0
    assert "generate" not in again.stderr  # no engine was started


def test_prompts_too_long_for_the_model_are_refused(folder):
    done = subprocess.run(command(folder, "long", "--max-new-tokens", "250"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "leave no room for 250 new tokens in the model's context of 256" in done.stderr
    assert not (folder / "long").exists()
