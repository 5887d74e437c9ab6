"""What is refused before a run starts: the message names the option and the fix."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrlhf_maxk.experience.sharding import shard
from openrlhf_maxk.learner.buffer import count_steps
from openrlhf_maxk.options.maxk import KSchedule
from openrlhf_maxk.options.validation import BadOptions
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems


def test_a_good_run_passes_and_says_its_options(check):
    assert check(maxk__k="4:1").k == KSchedule(4, 1)


REFUSED = {
    "group of one": (
        {"rollout__n_samples_per_prompt": 1},
        ["--rollout.n_samples_per_prompt 1", "at least 2"],
    ),
    "k above n": (
        {"maxk__k": 5},
        ["--maxk.k 5 is larger than the group", "raise --rollout.n_samples_per_prompt 4 to at least 5"],
    ),
    "k above n at the end": ({"maxk__k": "1:9"}, ["--maxk.k 1:9", "at least 9"]),
    "k below q": (
        {"maxk__k": "4:2", "maxk__strategy": "mean_of_best:3"},
        ["--maxk.strategy mean_of_best:3 looks at 3 samples", "--maxk.k 4:2 has only 2: raise it to at least 3"],
    ),
    "nearest k with nobody to take a place": (
        {"maxk__k": 9, "maxk__k_beyond_n": "nearest", "maxk__baseline": "leave_one_out"},
        ["--maxk.baseline leave_one_out needs k below the group size 4"],
    ),
    "nearest k below q": (
        {"maxk__k": 9, "maxk__k_beyond_n": "nearest", "maxk__strategy": "mean_of_best:5"},
        ["--maxk.strategy mean_of_best:5 looks at 5 samples", "has only 4"],
    ),
    "no stand-in": (
        {"maxk__k": 4, "maxk__baseline": "leave_one_out"},
        ["--maxk.baseline leave_one_out needs k below the group size 4"],
    ),
    "groups cut by ranks": (
        {
            "train__batch_size": 12,
            "train__micro_batch_size": 3,
            "actor__num_gpus_per_node": 2,
            "rollout__batch_size": 3,
        },
        [
            "--train.batch_size 12 does not hold whole groups of 4 on each of 2 learner ranks",
            "make it 24, and --rollout.batch_size a multiple of 6",
        ],
    ),
    "micro-batches": (
        {"train__micro_batch_size": 5},
        ["--train.batch_size 32 is not a multiple of 1 learner ranks × --train.micro_batch_size 5: make it 20, and"],
    ),
    "no micro-batch": ({"train__micro_batch_size": 0}, ["--train.micro_batch_size 0 must be at least 1"]),
    "no forward micro-batch": ({"rollout__micro_batch_size": 0}, ["--rollout.micro_batch_size 0 must be at least 1"]),
    "no batch": ({"train__batch_size": 0}, ["--train.batch_size 0 must be at least 1"]),
    "no prompts": ({"rollout__batch_size": 0}, ["--rollout.batch_size 0 must be at least 1"]),
    "no learner": ({"actor__num_gpus_per_node": 0}, ["--actor.num_gpus_per_node 0 must be at least 1"]),
    "a rank without a forward micro-batch": (
        {"actor__num_gpus_per_node": 2, "rollout__micro_batch_size": 32},
        ["--rollout.micro_batch_size 32 leaves some of the 2 learner ranks without one", "at most 16"],
    ),
    "a smaller last step": (
        {"rollout__batch_size": 12},
        ["--train.batch_size 32 does not divide --rollout.batch_size 12 × 4 samples", "make it 16"],
    ),
    "a rank without a group": (
        {"actor__num_gpus_per_node": 4, "rollout__batch_size": 2, "train__batch_size": 8},
        ["--rollout.batch_size 2 gives some of the 4 learner ranks no group"],
    ),
    "reference ranks": (
        {"algo__kl__init_coef": 0.01, "ref__num_gpus_per_node": 2},
        ["--ref.num_gpus_per_node 2 does not divide the 1 learner ranks", "make it 1"],
    ),
    "reward model ranks": (
        {"reward__remote_url": None, "reward__model_name_or_path": "m", "reward__num_gpus_per_node": 0},
        ["--reward.num_gpus_per_node 0 does not divide the 1 learner ranks", "make it 1"],
    ),
    "learner and reference together": (
        {
            "algo__kl__init_coef": 0.01,
            "train__colocate_actor_ref": True,
            "ref__num_nodes": 2,
            "ref__num_gpus_per_node": 3,
        },
        ["--train.colocate_actor_ref", "--ref.num_nodes × --ref.num_gpus_per_node are 2 × 3", "the learner's 1 × 1"],
    ),
    "all together": (
        {"algo__kl__init_coef": 0.01, "train__colocate_all": True, "ref__num_nodes": 2},
        ["--train.colocate_all puts learner and reference", "are 2 × 1"],
    ),
    "learner and vLLM together": (
        {"train__colocate_all": True, "vllm__num_engines": 1, "vllm__tensor_parallel_size": 2},
        ["--train.colocate_all", "--vllm.num_engines 1 × --vllm.tensor_parallel_size 2 is not 1"],
    ),
    "no room for the prompt": (
        {"data__max_len": 12, "rollout__max_new_tokens": 12},
        ["--data.max_len 12 is prompt and completion", "--rollout.max_new_tokens 12 leaves no room"],
    ),
    "no room at all": ({"data__max_len": 1, "rollout__max_new_tokens": None}, ["--data.max_len 1", "no room"]),
    "no new tokens": ({"rollout__max_new_tokens": 0}, ["--rollout.max_new_tokens 0 must be at least 1"]),
    "a buffer longer than completions": (
        {"reward__overlong_buffer_len": 13},
        ["--reward.overlong_buffer_len 13 is longer than a completion can be (12 tokens)"],
    ),
    "no epochs": ({"train__max_epochs": 0}, ["--train.max_epochs 0 must be at least 1"]),
    "no episodes": ({"train__num_episodes": 0}, ["--train.num_episodes 0 must be at least 1"]),
    "no samples": ({"data__max_samples": 0}, ["--data.max_samples 0 must be at least 1"]),
    "no checkpoint to keep": ({"ckpt__max_num": 0}, ["--ckpt.max_num 0 must be at least 1"]),
    "no logs": ({"logger__logging_steps": 0}, ["--logger.logging_steps 0 must be at least 1"]),
    "generate batch": (
        {"rollout__vllm_generate_batch_size": 16},
        ["--rollout.vllm_generate_batch_size 16: leave it out"],
    ),
    "no model": ({"actor__model_name_or_path": None}, ["--actor.model_name_or_path is missing"]),
    "no such model": ({"actor__model_name_or_path": "/no/such/model"}, ["/no/such/model", "not a model folder"]),
    "no such relative model": ({"actor__model_name_or_path": "no/such/model"}, ["no/such/model does not exist"]),
    "no data": ({"data__prompt_dataset": None}, ["--data.prompt_dataset is missing"]),
    "no such data": ({"data__prompt_dataset": "/no/data.jsonl"}, ["/no/data.jsonl does not exist"]),
    "no such folder of data": ({"data__prompt_dataset": "/no/data"}, ["/no/data does not exist"]),
    "no such table": ({"data__prompt_dataset": "no_such.parquet"}, ["no_such.parquet does not exist"]),
    "no such evaluation data": ({"eval__dataset": "/no/eval.jsonl"}, ["/no/eval.jsonl does not exist"]),
    "no rewards": ({"reward__remote_url": None}, ["nothing gives rewards", "--maxk.problems", "--reward.remote_url"]),
    "no reward file": ({"reward__remote_url": "/no/reward.py"}, ["--reward.remote_url /no/reward.py does not exist"]),
    "two rewards": (
        {"maxk__problems": "."},
        ["--maxk.problems and --reward.remote_url all give rewards: choose one"],
    ),
    "no agent file": ({"train__agent_func_path": "/no/agent.py"}, ["--train.agent_func_path /no/agent.py does not"]),
    "no problems": ({"maxk__problems": "/no/problems"}, ["--maxk.problems /no/problems is not a folder"]),
    "input key": ({"data__input_key": "question"}, ["line 1: no field 'question' (--data.input_key)", "'input'"]),
    "label key": ({"data__label_key": "answer"}, ["line 1: no field 'answer' (--data.label_key)", "'label'"]),
    "maxk option": ({"maxk__delta_clip": 0}, ["--maxk.delta_clip 0.0 must be above 0"]),
    "reward file without its function": (
        {"reward__remote_url": "broken/other.py"},
        ["--reward.remote_url broken/other.py defines no reward_func"],
    ),
    "reward file that is not Python": (
        {"reward__remote_url": "broken/syntax.py"},
        ["--reward.remote_url broken/syntax.py, line 2: not Python"],
    ),
    "agent file without its class": (
        {"train__agent_func_path": "broken/other.py", "reward__remote_url": None},
        ["--train.agent_func_path broken/other.py defines no AgentExecutor"],
    ),
    "a folder without problems": (
        {"maxk__problems": "broken", "reward__remote_url": None},
        ["--maxk.problems broken holds no problems: it has no store.json", "openrlhf_maxk.cli.prepare"],
    ),
    "objective": ({"maxk__objective": "best"}, ["no objective named 'best'; known:"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused(refused, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "other.py").write_text("def reward(queries, prompts, labels): ...\n")
    (tmp_path / "broken" / "syntax.py").write_text("x = 1\ndef reward_func(queries, prompts, labels) ...\n")
    changes, parts = REFUSED[name]
    lines = refused(**changes)
    assert any(all(part in line for part in parts) for line in lines), lines


@pytest.mark.parametrize(
    "changes",
    [
        {"train__colocate_actor_ref": True, "ref__num_gpus_per_node": 3},
        {"train__colocate_all": True, "ref__num_gpus_per_node": 3},
        {"train__colocate_all": True, "algo__kl__init_coef": 0.01},
        {"data__max_len": 13, "rollout__max_new_tokens": 12},
        {"data__max_len": 2, "rollout__max_new_tokens": None},
        {"maxk__k": "64:2", "maxk__k_beyond_n": "nearest"},
        {"reward__overlong_buffer_len": 12},
        {"reward__overlong_buffer_len": 64, "rollout__max_new_tokens": None},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_numbers_that_just_fit_pass(check, changes):
    check(**changes)


def test_problems_of_the_data_need_public_tests_to_select_by(check, refused, tmp_path):
    """Whatever else is in the store; the data has labels 0 to 7."""
    tests = (Test("", ""), Test("", ""))
    options = {"maxk__problems": tmp_path / "store", "reward__remote_url": None, "maxk__strategy": "selected"}
    problems = [Problem(str(i), "", tests, public_tests=int(i < 8)) for i in range(9)]
    write_problems(tmp_path / "store", problems)
    check(**options)
    write_problems(tmp_path / "other", [replace(problem, public_tests=int(problem.id < "6")) for problem in problems])
    options["maxk__problems"] = tmp_path / "other"
    (line,) = refused(**options)
    assert "--maxk.strategy selected goes by public tests, and 2 of 8 problems have none, such as '6'" in line
    (tmp_path / "held_out.jsonl").write_text('{"input": "", "label": "8"}\n')
    lines = refused(**options | {"maxk__problems": tmp_path / "store", "eval__dataset": tmp_path / "held_out.jsonl"})
    assert any("1 of 9 problems have none, such as '8'" in line for line in lines), lines
    check(**options, maxk__length_penalty=0.1, maxk__selector="length")
    check(**{**options, "maxk__strategy": "vote"})


def test_an_agent_gives_rewards(check, tmp_path):
    (tmp_path / "agent.py").write_text("class AgentExecutor: ...\n")
    check(reward__remote_url=None, train__agent_func_path=tmp_path / "agent.py")


@pytest.mark.parametrize(
    "source",
    [
        "reward_func = lambda queries, prompts, labels: queries\n",
        "from mine import score as reward_func\n",
        "from mine import *\n",
        "if True:\n    async def reward_func(queries, prompts, labels): ...\n",
        "\ufeff# -*- coding: utf-8 -*-\ndef reward_func(queries, prompts, labels): ...\n",
    ],
)
def test_a_reward_function_may_be_made_in_any_way(check, tmp_path, source):
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    check(reward__remote_url=tmp_path / "mine.py")


def test_a_file_that_only_uses_the_name_defines_no_reward_function(refused, tmp_path):
    (tmp_path / "mine.py").write_text("print(reward_func)\n")
    assert refused(reward__remote_url=tmp_path / "mine.py") == [
        f"--reward.remote_url {tmp_path / 'mine.py'} defines no reward_func"
    ]


def test_bad_options_of_this_package_hide_nothing(refused):
    lines = refused(maxk__delta_clip=0, maxk__k="x", maxk__max_lost=2, train__batch_size=0, critic__max_norm=2)
    assert [line.split()[0] for line in lines] == [
        *("--maxk.k", "--maxk.delta_clip", "--maxk.max_lost", "--train.batch_size", "--critic.max_norm")
    ]


@pytest.mark.parametrize(("label", "known"), [('"mine/1"', True), ('"mine/2"', False), ("1", False), ("[1]", False)])
@pytest.mark.parametrize("option", ["data__prompt_dataset", "eval__dataset"])
def test_labels_that_are_no_problems_are_found_before_the_start(refused, tmp_path, option, label, known):
    write_problems(tmp_path / "problems", [Problem("mine/1", "", (Test("1", "2"),))])
    rows = ['{"input": "a", "label": "mine/1"}\n', f'{{"input": "b", "label": {label}}}\n']
    for name, lines in (("good.jsonl", rows[:1]), ("data.jsonl", rows)):
        (tmp_path / name).write_text("".join(lines))
    files = {"data__prompt_dataset": str(tmp_path / "good.jsonl"), option: str(tmp_path / "data.jsonl")}
    lines = refused(maxk__problems=str(tmp_path / "problems"), reward__remote_url=None, **files)
    assert (
        [line for line in lines if "data.jsonl, line 2: 'label'" in line and "is not the id" in line] == []
    ) == known


def test_a_damaged_store_is_found_before_the_start(refused, tmp_path):
    write_problems(tmp_path / "problems", [Problem("mine/1", "", (Test("1", "2"),))])
    (tmp_path / "problems" / "store.json").write_text("{")
    lines = refused(maxk__problems=str(tmp_path / "problems"), reward__remote_url=None)
    assert any(line.startswith(f"--maxk.problems {tmp_path / 'problems'}") for line in lines), lines


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(1, 300), *[st.integers(1, 40)] * 2, *[st.integers(2, 5)] * 2)
def test_the_advice_on_a_batch_is_one_line_and_enough(refused, batch, micro, prompts, n, ranks):
    given_ = {"train__micro_batch_size": micro, "rollout__n_samples_per_prompt": n, "actor__num_gpus_per_node": ranks}

    def wrong(size: int, prompts: int) -> list[str]:
        lines = refused(**given_, train__batch_size=size, rollout__batch_size=prompts, rollout__micro_batch_size=1)
        return [line for line in lines if line.startswith("--train.batch_size")]

    lines = wrong(batch, prompts)
    if not lines:
        return
    assert len(lines) == 1
    found = re.search(r": make it (\d+)(?:, and --rollout.batch_size a multiple of (\d+))?$", lines[0])
    assert found, lines
    assert not wrong(int(found[1]), int(found[2] or prompts))


COUNTS = st.integers(-1, 40)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(*[COUNTS] * 3, *[st.integers(-1, 5)] * 3)
def test_every_choice_of_counts_is_refused_or_deals_whole_groups(check, batch, micro, prompts, n, ranks, rows):
    try:
        check(
            train__batch_size=batch,
            train__micro_batch_size=micro,
            rollout__batch_size=prompts,
            rollout__n_samples_per_prompt=n,
            actor__num_gpus_per_node=ranks,
            rollout__micro_batch_size=rows,
        )
    except BadOptions:
        return
    shards = [len(groups) for groups in shard([SimpleNamespace(tokens=1)] * prompts, ranks)]
    assert batch // ranks % n == 0
    assert batch // ranks % micro == 0
    assert {count_steps(groups, batch // ranks, n) for groups in shards} == {prompts * n // batch}


def test_everything_wrong_is_said_at_once(refused):
    lines = refused(maxk__k=9, actor__model_name_or_path=None, data__prompt_dataset="/no/data.jsonl")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"input": "a", "label": "1"}\n\n{"input": "b", \n', "line 3: not JSON"),
        ('{"input": "a", "label": "1"}\n["input", "label"]\n', "line 2: not a JSON object"),
        ('{"input": "a", "label": "1"}\n{"input": "b"}\n', "line 2: no field 'label' (--data.label_key)"),
        (json.dumps([{"input": "a", "label": "1"}]) + "\n", "line 1: not a JSON object"),
    ],
)
def test_bad_data_is_named_by_its_line(refused, tmp_path, text, message):
    (tmp_path / "data.jsonl").write_text(text)
    assert [line for line in refused() if message in line and "data.jsonl" in line]


def test_every_file_of_a_list_of_data_is_read(refused, tmp_path):
    (tmp_path / "more.jsonl").write_text("x\n")
    lines = refused(data__prompt_dataset=f"{tmp_path / 'data.jsonl'}, {tmp_path / 'more.jsonl'}")
    assert len(lines) == 1
    assert "more.jsonl, line 1: not JSON" in lines[0]


def test_a_hub_name_is_left_to_the_hub(check):
    check(actor__model_name_or_path="owner/model", data__prompt_dataset="owner/data")


@pytest.mark.parametrize("option", ["ckpt.output_dir", "ckpt.path"])
def test_a_folder_that_cannot_be_written_is_refused(refused, tmp_path, monkeypatch, option):
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    # Rights do not bind the superuser, who may be running this.
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(sealed))
    (line,) = refused(**{option.replace(".", "__"): sealed / "a" / "b"})
    assert f"--{option} {sealed}/a/b cannot be written: {sealed} is not a writable folder" == line


def test_a_file_in_place_of_a_folder_is_refused(refused, tmp_path):
    (tmp_path / "out").write_text("")
    (line,) = refused()
    assert "--ckpt.output_dir" in line
    assert "is not a writable folder" in line


def test_a_full_disk_is_refused(refused, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300 * 2**20))
    lines = refused()
    assert ["300 MiB are free there; at least 1024 are needed" in line for line in lines] == [True, True]
    assert [line.split()[0] for line in lines] == ["--ckpt.output_dir", "--ckpt.path"]


def test_mathematics_has_a_sandbox_to_choose_and_terms_to_add(refused):
    lines = refused(
        maxk__reward="math",
        reward__remote_url=None,
        data__label_key=None,  # so that no answer is read here
        maxk__runner="bubblewrap",
        maxk__format_reward=0.1,
        maxk__length_penalty=0.1,
    )
    assert lines == ["--data.label_key is missing: with --maxk.reward math, it names the field of the gold answer"]


def test_mathematics_is_not_for_services_that_run_programs(refused):
    (line,) = refused(maxk__reward="math", reward__remote_url=None, maxk__runner="http://127.0.0.1:8080")
    assert line.startswith("--maxk.runner http://127.0.0.1:8080 runs programs of problems; --maxk.reward math needs")
