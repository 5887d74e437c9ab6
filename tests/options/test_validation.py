"""What is refused before a run starts: the message names the option and the fix."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openrlhf.utils.config import hierarchize

from openrlhf_maxk.cli.train import CPU_DEFAULTS, DEFAULTS
from openrlhf_maxk.experience.sharding import shard
from openrlhf_maxk.learner.buffer import count_steps
from openrlhf_maxk.options import validation
from openrlhf_maxk.options.maxk import KSchedule, add_arguments
from openrlhf_maxk.options.validation import BadOptions, validate
from openrlhf_maxk.upstream.command_line import upstream_parser

from ..e2e import pipeline


@pytest.fixture(scope="module")
def parser():
    parser = upstream_parser()
    parser.set_defaults(**DEFAULTS, **CPU_DEFAULTS)
    add_arguments(parser)
    return parser


@pytest.fixture
def check(parser, tmp_path, monkeypatch):
    """Validate the options of a small run with changes (names with ``__`` for the dot; None: left out)."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    pipeline.make_reward(tmp_path / "reward.py")
    monkeypatch.setattr(validation, "is_cpu", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))

    def run(**changes: object):
        return validate(hierarchize(parser.parse_args(pipeline.arguments(tmp_path, **changes))))

    return run


def refused(check, **changes: object) -> list[str]:
    with pytest.raises(BadOptions) as caught:
        check(**changes)
    return str(caught.value).splitlines()


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
        ["--train.batch_size 12", "groups of 4 on each of 2 learner ranks", "multiple of 8"],
    ),
    "micro-batches": (
        {"train__micro_batch_size": 5},
        ["--train.batch_size 32 is not a multiple of 1 learner ranks × --train.micro_batch_size 5"],
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
        ["--rollout.batch_size 12 × 4", "multiple of --train.batch_size 32"],
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
    "generate batch": (
        {"rollout__vllm_generate_batch_size": 16},
        ["--rollout.vllm_generate_batch_size 16: leave it out"],
    ),
    "gae": ({"algo__advantage__estimator": "gae"}, ["--algo.advantage.estimator gae", "leave the option out"]),
    "critic": ({"critic__model_name_or_path": "m"}, ["--critic.model_name_or_path", "no critic"]),
    "async": ({"train__async_enable": True}, ["--train.async_enable", "leave them out"]),
    "partial": ({"train__partial_rollout_enable": True}, ["--train.partial_rollout_enable", "leave them out"]),
    "dynamic batch": ({"train__dynamic_batch_enable": True}, ["--train.dynamic_batch_enable", "leave it out"]),
    "packing": ({"ds__packing_samples": True}, ["--ds.packing_samples", "leave them out"]),
    "ring": ({"ds__ring_attn_size": 2}, ["--ds.ring_attn_size", "leave them out"]),
    "tensor parallel": ({"ds__tensor_parallel_size": 2}, ["--ds.tensor_parallel_size", "--ds.zero_stage 3"]),
    "lora": ({"ds__lora__rank": 4}, ["--ds.lora.rank", "leave it out"]),
    "images": ({"data__max_images_per_prompt": 1}, ["--data.max_images_per_prompt"]),
    "gamma": ({"algo__advantage__gamma": 0.9}, ["--algo.advantage.gamma 0.9", "use 1"]),
    "no engines": ({"vllm__num_engines": 0}, ["--vllm.num_engines must be at least 1"]),
    "two corrections": (
        {"maxk__behaviour": "rollout", "algo__advantage__is_correction_level": "token"},
        ["--maxk.behaviour rollout", "--algo.advantage.is_correction_level", "choose one"],
    ),
    "gspo": ({"actor__policy_loss_type": "gspo"}, ["--actor.policy_loss_type gspo", "only ppo"]),
    "sleep": ({"vllm__enable_sleep": True}, ["sleep modes", "on CPU"]),
    "adam offload": ({"ds__adam_offload": True}, ["--ds.adam_offload", "on CPU"]),
    "vllm tensor parallel": ({"vllm__tensor_parallel_size": 2}, ["--vllm.tensor_parallel_size", "on CPU"]),
    "nodes": (
        {"actor__num_nodes": 2},
        ["--actor.num_nodes above 1", "on CPU"],
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
    "objective": ({"maxk__objective": "best"}, ["no objective named 'best'; known:"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused(check, name):
    changes, parts = REFUSED[name]
    lines = refused(check, **changes)
    assert any(all(part in line for part in parts) for line in lines), lines


def test_an_agent_gives_rewards(check, tmp_path):
    (tmp_path / "agent.py").write_text("")
    check(reward__remote_url=None, train__agent_func_path=tmp_path / "agent.py")


COUNTS = st.integers(-1, 40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_a_score_loss_needs_no_ppo_policy_loss(check):
    check(actor__policy_loss_type="gspo", maxk__loss="score")


def test_everything_wrong_is_said_at_once(check):
    lines = refused(check, maxk__k=9, actor__model_name_or_path=None, data__prompt_dataset="/no/data.jsonl")
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
def test_bad_data_is_named_by_its_line(check, tmp_path, text, message):
    (tmp_path / "data.jsonl").write_text(text)
    assert [line for line in refused(check) if message in line and "data.jsonl" in line]


def test_every_file_of_a_list_of_data_is_read(check, tmp_path):
    (tmp_path / "more.jsonl").write_text("x\n")
    lines = refused(check, data__prompt_dataset=f"{tmp_path / 'data.jsonl'}, {tmp_path / 'more.jsonl'}")
    assert len(lines) == 1
    assert "more.jsonl, line 1: not JSON" in lines[0]


def test_a_hub_name_is_left_to_the_hub(check):
    check(actor__model_name_or_path="owner/model", data__prompt_dataset="owner/data")


@pytest.mark.parametrize("option", ["ckpt.output_dir", "ckpt.path"])
def test_a_folder_that_cannot_be_written_is_refused(check, tmp_path, monkeypatch, option):
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    # Rights do not bind the superuser, who may be running this.
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(sealed))
    (line,) = refused(check, **{option.replace(".", "__"): sealed / "a" / "b"})
    assert f"--{option} {sealed}/a/b cannot be written: {sealed} is not a writable folder" == line


def test_a_file_in_place_of_a_folder_is_refused(check, tmp_path):
    (tmp_path / "out").write_text("")
    (line,) = refused(check)
    assert "--ckpt.output_dir" in line
    assert "is not a writable folder" in line


def test_a_full_disk_is_refused(check, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=300 * 2**20))
    lines = refused(check)
    assert ["300 MiB are free there; at least 1024 are needed" in line for line in lines] == [True, True]
    assert [line.split()[0] for line in lines] == ["--ckpt.output_dir", "--ckpt.path"]
