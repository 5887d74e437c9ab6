"""The kit for a GPU, on CPU: all of it with a tiny model, without Ray and vLLM; what it says of parts that fail."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from packaging.version import Version

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
NOT_INSTALLED = "import sys\nfor name in ('ray', 'vllm', 'aiohttp', 'datasets'):\n    sys.modules[name] = None\n"


@pytest.fixture
def kit(monkeypatch):
    """The kit's package, where scripts in ``benchmarks/`` find it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu.gradient
    import gpu.objectives
    import gpu.parts
    import gpu.processes
    import gpu.ratios
    import gpu.report
    import gpu.stack
    import gpu.stand_ins

    return gpu


@pytest.mark.slow
def test_the_whole_kit_runs_with_pytorch_and_transformers_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NOT_INSTALLED)
    out = tmp_path / "new" / "gpu.json"
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--tiny"),
            *("--rounds", "1", "--seconds", "1700", "--out", str(out)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(out.read_text())
    assert written["machine"]["versions"]["torch"] == torch.__version__
    records = {part["part"]: part["records"] for part in written["parts"]}
    assert {name: len(found) for name, found in records.items()} == {
        "objectives": 3,
        "deterministic": 3,
        "gradient": 2,
        "log-ratios": 5,
        "rows": 4,
        "whole-groups": 3,
        "cut-groups": 3,
        "whole-groups-zero-3": 3,
    }
    for part in ("whole-groups", "cut-groups", "whole-groups-zero-3"):
        assert all(record["figures"]["tokens/s"] > 0 for record in records[part][:2])
    for part in written["parts"]:
        assert not part["error"]
        assert part["seconds"] > 0
        for record in part["records"]:
            assert done.stdout.count(f"| {record['case']} ") >= 1


# Parts that fail


def good(bench):
    from gpu.parts import Record

    yield Record(f"on {bench.device}", {"figure": 1234.5, "each": [1.0, math.inf]})


def raises(bench):
    yield from good(bench)
    raise RuntimeError("the first line\nthe last line")


def wrong(bench):
    from gpu.parts import Record

    yield Record("a case", {"figure": math.nan}, problem="it is not what it must be")


def dies(bench):
    os.write(2, b"Fatal: what was said last\n\n")
    os._exit(3)
    yield


def hangs(bench):
    time.sleep(3600)
    yield


def test_a_part_that_fails_says_so_and_the_others_go_on(kit, tmp_path):
    functions = (raises, dies, wrong, good)
    parts = [kit.parts.Part(function.__name__, function) for function in functions]
    bench = kit.parts.Bench("cpu", kit.parts.TINY, tmp_path, rounds=1)
    results = kit.processes.run(parts, bench, seconds=280)
    assert [(result.part, result.error, len(result.records), result.failed) for result in results] == [
        ("raises", "RuntimeError: the last line", 1, True),
        ("dies", "its process ended with status 3: Fatal: what was said last", 0, True),
        ("wrong", "", 1, True),
        ("good", "", 1, False),
    ]
    about = {"device": "cpu", "cards": ["a card, its driver"], "versions": {"torch": "2"}, "date": "today"}
    lines = kit.report.table(results, about).splitlines()
    said = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    assert [(part, figures) for part, _, figures in said] == [
        ("raises", "figure 1,234"),
        ("raises", "FAILED: RuntimeError: the last line"),
        ("dies", "FAILED: its process ended with status 3: Fatal: what was said last"),
        ("wrong", "figure nan; FAILED: it is not what it must be"),
        ("wrong", "through"),
        ("good", "figure 1,234"),
        ("good", "through"),
    ]
    assert lines[-1] == "['a card, its driver']; torch 2; today"
    kit.report.write(tmp_path / "out.json", results, about)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["parts"][3]["records"][0]["figures"] == {"figure": 1234.5, "each": [1.0, "inf"]}
    assert written["machine"] == about


def test_what_is_not_through_in_time_is_ended(kit, tmp_path):
    parts = [kit.parts.Part("hangs", hangs), kit.parts.Part("good", good)]
    bench = kit.parts.Bench("cpu", kit.parts.TINY, tmp_path, rounds=1)
    results = kit.processes.run(parts, bench, seconds=1)
    assert [result.error for result in results] == ["not through when the time of the whole run was over"] * 2


def test_the_exit_status_and_the_error_where_there_is_no_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--tiny", "--parts", "objectives", "--out", str(tmp_path / "gpu.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (failed,) = re.findall(r"objectives .*FAILED: (.*) \|", done.stdout)
    assert failed == "RuntimeError: no CUDA device: PyTorch sees none (--device cpu runs without)"


# What runs on a GPU alone, as far as it can be seen here


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("cpu", [True, False], ids=["cpu", "gpu"])
def test_the_training_accepts_the_options_of_the_engines(kit, tmp_path, monkeypatch, cpu, zero):
    from learners import arguments

    from openrlhf_maxk.cli import train
    from openrlhf_maxk.options import validation

    for module in (train, validation):
        monkeypatch.setattr(module, "is_cpu", lambda: cpu)
    (tmp_path / "config.json").write_text("{}")
    options = kit.stack.engine_options(kit.parts.REAL, zero)
    _, args = train.parse(arguments(str(tmp_path), str(tmp_path), *options))
    assert (args.ds.zero_stage, args.ds.param_dtype, args.actor.num_gpus_per_node) == (zero, "bf16", 1)
    assert args.vllm.sync_backend == ("gloo" if cpu else "nccl")


def test_vllm_has_a_version_where_it_is_not_installed(kit):
    """Upstream's policy asks for it where weights travel over NCCL."""
    with mock.patch.dict(sys.modules, {"vllm": None, "ray": None}):
        assert kit.stand_ins.install() == ["ray", "vllm"]
        import vllm

        assert Version(vllm.__version__) >= Version("0.16")
    assert kit.stand_ins.install() == []


# What is measured


def test_every_objective_correction_and_baseline_is_compared(kit):
    from openrlhf_maxk import objectives

    names = set(kit.objectives.functions())
    exported = {name for name in objectives.__all__ if name.endswith(("weights", "at_k", "gain", "one_out"))}
    assert {name.split()[0] for name in names} == exported | {"leave_one_out"} | set(objectives.objective_names())
    open_to = {name for name in names if name.startswith("offpolicy_bon ")}
    assert open_to == {
        f"offpolicy_bon {order} {baseline}" for order in objectives.Order for baseline in objectives.Baseline
    }


def test_a_difference_and_an_error_are_problems(kit, monkeypatch):
    def drifts(rewards, ratios, k):
        drifts.calls += 1
        return rewards + 1e-3 * (drifts.calls % 2)

    def refused(rewards, ratios, k):
        raise RuntimeError("first\ncumsum has no deterministic implementation")

    drifts.calls = 0
    same, nan = (lambda rewards, ratios, k: rewards), (lambda rewards, ratios, k: rewards * math.nan)
    monkeypatch.setattr(
        kit.objectives, "functions", lambda: {"same": same, "drifts": drifts, "refused": refused, "nan": nan}
    )
    first, *_ = kit.objectives.objectives_part(kit.parts.Bench("cpu", kit.parts.TINY, Path(), 1))
    assert first.problem.startswith("3 of 4 fail, the first is drifts: 0.00")
    assert first.figures["differences"]["same"] == 0
    assert first.figures["differences"]["refused"] == "RuntimeError: cumsum has no deterministic implementation"
    assert math.isnan(first.figures["differences"]["nan"])


def test_determinism_is_asked_for_and_put_back(kit, monkeypatch):
    seen = []
    monkeypatch.setattr(kit.objectives, "functions", lambda: {"f": lambda r, p, k: seen.append(mode()) or r})
    mode = torch.are_deterministic_algorithms_enabled
    list(kit.objectives.deterministic_part(kit.parts.Bench("cpu", kit.parts.TINY, Path(), 1)))
    assert set(seen) == {True}
    assert not mode()


def test_noise_is_of_tokens_and_of_whole_completions(kit):
    log_ratios = torch.tensor([[1.0, -3.0, 9.0], [2.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert kit.ratios.noise(log_ratios, mask) == pytest.approx(
        {
            "token mean": 0.0,
            "token sd": math.sqrt((1 + 9 + 4) / 2),
            "token max": 3.0,
            "completion mean": 0.0,
            "completion sd": math.sqrt(8),
            "completion max": 2.0,
        }
    )


def test_a_wrong_gradient_is_a_problem(kit, monkeypatch):
    bench = kit.parts.Bench("cpu", kit.parts.TINY, Path(), 1)
    assert [record.problem for record in kit.gradient.gradient_part(bench)] == ["", ""]
    true = kit.gradient.estimate
    monkeypatch.setattr(kit.gradient, "estimate", lambda *columns: 1.001 * true(*columns))
    assert ["differs" in record.problem for record in kit.gradient.gradient_part(bench)] == [True, True]


def test_the_guide_names_every_part(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = runpy.run_path(str(BENCHMARKS / "gpu.py"))
    guide = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", guide, re.MULTILINE) == [part.name for part in script["PARTS"]]
