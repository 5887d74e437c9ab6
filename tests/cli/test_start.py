"""Between the command line and Ray: paths that hold in every actor, enough GPUs, threads that nobody asked for."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest

from openrlhf_maxk.cli import train

from ..e2e import pipeline


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    pipeline.make_reward(tmp_path / "reward.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(folder, **changes):
    relative = {
        "actor__model_name_or_path": "model",
        "data__prompt_dataset": "data.jsonl,data.jsonl",
        "reward__remote_url": "reward.py",
        "ckpt__output_dir": "out",
        "ckpt__path": "out/checkpoints",
        "logger__tensorboard_dir": "out/tensorboard",
    }
    flat, args = train.parse(pipeline.arguments(folder, **{**relative, **changes}))
    return vars(flat), args


def test_paths_are_absolute_for_actors_that_work_elsewhere(folder):
    values, args = parse(folder)
    assert values["actor.model_name_or_path"] == f"{folder}/model"
    assert values["data.prompt_dataset"] == f"{folder}/data.jsonl,{folder}/data.jsonl"
    assert values["reward.remote_url"] == f"{folder}/reward.py"
    assert [values[name] for name in train.MADE_PATHS] == [
        f"{folder}/{made}" for made in ("out", "out/checkpoints", "out/tensorboard")
    ]
    assert args.data.prompt_dataset == values["data.prompt_dataset"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--maxk.objectve", "grpo"], "--maxk.objectve is not an option: did you mean --maxk.objective?"),
        (
            ["--rollout.nsamples_per_prompt=8"],
            "--rollout.nsamples_per_prompt is not an option: did you mean --rollout.n_samples_per_prompt?",
        ),
        (["--xyz"], "--xyz is not an option: --help lists all of them"),
        (["grpo"], "grpo belongs to no option"),
        (["--maxk.loss", "gspo"], "--maxk.loss: invalid choice: 'gspo' (choose from"),
        (["--train.seed", "one"], "--train.seed: invalid int value: 'one'"),
        (["--maxk.k"], "--maxk.k: expected one argument"),
        (["--ckpt.max", "3"], "ambiguous option: --ckpt.max could match --ckpt.max_num, --ckpt.max_mem"),
    ],
)
def test_a_mistyped_option_is_said_in_one_line(folder, capsys, words, said):
    with pytest.raises(SystemExit) as exit:
        train.parse([*pipeline.arguments(folder), *words])
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_a_mistyped_option_hides_nothing_else(folder, capsys):
    with pytest.raises(SystemExit):
        train.parse([*pipeline.arguments(folder, train__batch_size=0), "--maxk.objectve", "grpo"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["--maxk.objectve", "--train.batch_size"]


def test_names_that_are_no_paths_stay_as_they_are(folder):
    urls = "http://a:1/score,http://b:2/score"
    values, _ = parse(folder, actor__model_name_or_path="Qwen/Qwen2.5-0.5B", reward__remote_url=urls)
    assert values["actor.model_name_or_path"] == "Qwen/Qwen2.5-0.5B"
    assert values["reward.remote_url"] == urls
    assert values["eval.dataset"] is None


NEEDED = {
    "plain": ({}, {"learner": 2, "vLLM": 6, "reference": 2}),
    "no KL": ({"algo__kl__init_coef": 0}, {"learner": 2, "vLLM": 6}),
    "reference with the learner": ({"train__colocate_actor_ref": True}, {"learner": 2, "vLLM": 6}),
    "all together": ({"train__colocate_all": True}, {"learner": 2}),
    "reward model": (
        {"reward__remote_url": None, "reward__model_name_or_path": "model", "reward__num_gpus_per_node": 4},
        {"learner": 2, "vLLM": 6, "reference": 2, "reward model": 4},
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_gpus_needed(folder, monkeypatch, name):
    changes, needed = NEEDED[name]
    monkeypatch.setattr(train, "validate", lambda args: train.MaxKOptions())
    common = {
        "algo__kl__init_coef": 0.01,
        "actor__num_gpus_per_node": 2,
        "ref__num_gpus_per_node": 2,
        "vllm__num_engines": 3,
        "vllm__tensor_parallel_size": 2,
    }
    assert train.gpus_needed(parse(folder, **{**common, **changes})[1]) == needed


@pytest.mark.parametrize(
    ("total", "free", "ends", "message"),
    [
        ({"GPU": 2.0, "CPU": 8.0}, 2.0, True, "needs 3 GPUs (1 for learner, 1 for vLLM, 1 for reference)"),
        ({"CPU": 8.0}, 0.0, True, "Ray has 0 and 8"),
        ({"GPU": 3.0, "CPU": 3.0}, 3.0, True, "4 CPUs, and Ray has 3 and 3"),
        ({"GPU": 3.0, "CPU": 4.0}, 1.0, False, "waiting for GPUs: this run needs 3, 1 of 3 are free"),
        ({"GPU": 3.0, "CPU": 4.0}, 3.0, False, ""),
    ],
)
def test_a_cluster_that_is_too_small_ends_the_run(folder, monkeypatch, capsys, total, free, ends, message):
    stopped = []
    cluster = SimpleNamespace(
        init=lambda **_: None,
        cluster_resources=lambda: total,
        available_resources=lambda: {"GPU": free},
        shutdown=lambda: stopped.append(True),
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    args = parse(folder, algo__kl__init_coef=0.01, actor__num_gpus_per_node=1, ref__num_gpus_per_node=1)[1]
    if ends:
        with pytest.raises(SystemExit) as exit:
            train.start_ray(args, verbose=False)
        assert message in str(exit.value.code)
        assert stopped
    else:
        train.start_ray(args, verbose=False)
        assert capsys.readouterr().err.strip() == message


@pytest.mark.parametrize(
    ("address", "given"),
    [
        (None, {"address": "local", "include_dashboard": False, "num_gpus": 3}),
        ("", {"address": "local", "include_dashboard": False, "num_gpus": 3}),
        ("head:6379", {}),
    ],
    ids=["not named", "empty", "named"],
)
def test_a_run_has_a_cluster_of_its_own_unless_one_is_named(folder, monkeypatch, address, given):
    """Logical resources are its own cluster's: Ray refuses them for one that it joins."""
    asked = {}
    enough = {"GPU": 3.0, "CPU": 9.0}
    cluster = SimpleNamespace(
        init=lambda **arguments: asked.update(arguments),
        cluster_resources=lambda: enough,
        available_resources=lambda: enough,
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(train, "is_cpu", lambda: True)
    args = parse(folder, algo__kl__init_coef=0.01, actor__num_gpus_per_node=1, ref__num_gpus_per_node=1)[1]
    train.start_ray(args, verbose=False)
    names = ("address", "include_dashboard", "num_gpus")
    assert {name: asked[name] for name in names if name in asked} == given


@pytest.mark.parametrize(
    ("job", "threads"),
    [
        (None, "1"),  # not in a job: the user's own
        ({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}, "1"),  # asked for with the job
        ({"runtime_env": {"env_vars": {}}}, None),
        ({"runtime_env": {}}, None),
    ],
)
def test_threads_that_ray_set_for_a_jobs_driver_are_forgotten(monkeypatch, job, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if job is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    train.forget_thread_count()
    assert os.environ.get("OMP_NUM_THREADS") == threads
