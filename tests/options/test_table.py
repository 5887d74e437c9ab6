"""Every option of OpenRLHF is passed through or refused, and every refusal says what it should when it should."""

from __future__ import annotations

import argparse

import pytest
import torch
from transformers import get_scheduler

from openrlhf_maxk.options import table
from openrlhf_maxk.options.refusals import machinery, optimization
from openrlhf_maxk.options.refusals.rule import Rule, defaults
from openrlhf_maxk.upstream.command_line import upstream_parser

Changes = dict[str, object]

KL = {"algo__kl__init_coef": 0.01}
KL_LOSS = {**KL, "algo__kl__use_loss": True, "algo__kl__estimator": "k3"}
PPO = {"maxk__loss": "ppo"}
SEQUENCE = {"algo__advantage__is_correction_level": "seq", **PPO}
TOKEN = {"algo__advantage__is_correction_level": "token", **PPO}
SCORE = {"maxk__loss": "score"}
ONE_STEP = {"train__max_epochs": 1}
CONTRAST = {"maxk__baseline": "leave_one_out", "maxk__k": 2}
MODEL = {"reward__remote_url": None, "reward__model_name_or_path": "m"}
PROGRAMS = {"reward__remote_url": None, "maxk__problems": "/no/problems"}
EVALUATION = {"eval__dataset": "owner/data", "eval__steps": 1}
SAVED = {"ckpt__save_steps": 1}
GPU = {"cpu": False}
LORA = {"ds__lora__rank": 4}
MUON = {"actor__optim": "muon", "actor__max_norm": 0}
STAGE_3 = {"ds__zero_stage": 3}
COLOCATED = {"train__colocate_all": True}

# For every conditional rule, in the order of the table and by its first option: options that it refuses, and others, as
# near as can be, that it does not.
CASES: list[tuple[str, Changes, *tuple[Changes, ...]]] = [
    ("algo.advantage.estimator", {"algo__advantage__estimator": "rloo"}, {"algo__advantage__estimator": "group_norm"}),
    ("maxk.baseline", {"maxk__baseline": "none"}, {"maxk__baseline": "none", **ONE_STEP}, CONTRAST),
    (
        "maxk.baseline",
        {"maxk__baseline": "none", "algo__dynamic_filtering_enable": True},
        {**CONTRAST, "algo__dynamic_filtering_enable": True},
        {"maxk__baseline": "none"},
    ),
    (
        "maxk.objective",
        {"maxk__objective": "nsr", "maxk__format_reward": 0.1},
        {"maxk__objective": "maxrl", "maxk__format_reward": 0.1},
        {"maxk__objective": "nsr"},
    ),
    (
        "algo.dynamic_filtering_enable",
        {"algo__dynamic_filtering_enable": True, **MODEL},
        MODEL,
        {"algo__dynamic_filtering_enable": True},
    ),
    (
        "algo.dynamic_filtering_range",
        {"algo__dynamic_filtering_range": [0.1, 0.9]},
        {"algo__dynamic_filtering_range": [0.1, 0.9], "algo__dynamic_filtering_enable": True},
    ),
    (
        "algo.dynamic_filtering_range",
        {"algo__dynamic_filtering_range": [1, 0]},
        {"algo__dynamic_filtering_range": [0, 1]},
        {"algo__dynamic_filtering_range": [0.1, 0.9]},
    ),
    ("actor.eps_clip", {"actor__eps_clip": 0.1, **SCORE}, {"actor__eps_clip": 0.1}),
    ("algo.advantage.is_correction_level", {**TOKEN, **SCORE}, TOKEN, SCORE),
    ("actor.dual_clip", {"actor__dual_clip": 3}, {"actor__dual_clip": 3, **KL}),
    ("actor.eps_clip", {"actor__eps_clip": 0.1, "actor__eps_clip_low_high": [0.1, 0.3]}, {"actor__eps_clip": 0.1}),
    (
        "actor.eps_clip",
        {"actor__eps_clip_low_high": [-0.1, 0.3], **CONTRAST},
        {"actor__eps_clip_low_high": [0, 0.3], **CONTRAST},
    ),
    ("actor.dual_clip", {"actor__dual_clip": 1}, {"actor__dual_clip": 1.1}),
    ("algo.advantage.is_correction_level", {**TOKEN, "maxk__behaviour": "rollout"}, TOKEN),
    (
        "algo.advantage.is_correction_mode",
        {"algo__advantage__is_correction_gating": "tv"},
        {"algo__advantage__is_correction_gating": "tv", **TOKEN},
    ),
    (
        "algo.advantage.is_correction_mode",
        {"algo__advantage__is_correction_mode": "clip", **SEQUENCE},
        {"algo__advantage__is_correction_mode": "clip", **TOKEN},
    ),
    (
        "algo.advantage.is_correction_gating",
        {"algo__advantage__is_correction_gating": "tv", **TOKEN},
        {
            "algo__advantage__is_correction_gating": "tv",
            "algo__advantage__is_correction_threshold": [0.1],
            **TOKEN,
        },
    ),
    (
        "algo.advantage.is_correction_threshold",
        {"algo__advantage__is_correction_threshold": [0, 1, 2], **TOKEN},
        {"algo__advantage__is_correction_threshold": [0, 1], **TOKEN},
    ),
    (
        "rollout.top_p",
        {"rollout__top_p": 0.9, "maxk__behaviour": "rollout"},
        {"rollout__top_p": 0.9},
        {"maxk__behaviour": "rollout"},
        {"rollout__top_p": 1.1, "maxk__behaviour": "rollout"},
    ),
    ("rollout.top_p", {"rollout__top_p": 0}, {"rollout__top_p": 1}, {"rollout__top_p": 0.9}),
    ("rollout.temperature", {"rollout__temperature": 0}, {"rollout__temperature": 0.1}),
    ("maxk.correction", {**CONTRAST, "maxk__objective": "rloo"}, CONTRAST),
    (
        "maxk.strategy",
        {"maxk__strategy": "vote", **MODEL},
        {"maxk__strategy": "min", **MODEL},
        {"maxk__strategy": "vote"},
    ),
    (
        "maxk.strategy",
        {"maxk__strategy": "selected", "maxk__selector": "length", **PROGRAMS},
        {"maxk__strategy": "selected", "maxk__selector": "length", "maxk__length_penalty": 0.1, **PROGRAMS},
        {"maxk__strategy": "selected", **PROGRAMS},
        {"maxk__strategy": "vote", **PROGRAMS},
        {"maxk__strategy": "selected", "maxk__selector": "judge"},
    ),
    ("maxk.selector", {"maxk__selector": "judge"}, {"maxk__selector": "judge", "maxk__strategy": "selected"}),
    (
        "maxk.correction",
        {"maxk__correction": "first", "maxk__strategy": "vote"},
        {"maxk__correction": "first", "maxk__strategy": "selected"},
        {"maxk__correction": "none", "maxk__strategy": "vote"},
    ),
    ("algo.kl.use_loss", {**KL_LOSS, "algo__kl__estimator": "k1"}, KL_LOSS),
    ("algo.kl.estimator", {**KL, "algo__kl__estimator": "k3"}, KL_LOSS),
    (
        "algo.kl.unbiased_gradient",
        {**KL, "algo__kl__unbiased_gradient": True},
        {**KL_LOSS, "algo__kl__unbiased_gradient": True},
    ),
    ("algo.kl.init_coef", {"algo__kl__init_coef": -0.01}, {"algo__kl__init_coef": 0}),
    ("algo.kl.target", {"algo__kl__target": 1}, {"algo__kl__target": 1, **KL}),
    ("algo.kl.target", {"algo__kl__target": 1, **KL, "ckpt__load_enable": True}, {"algo__kl__target": 1, **KL}),
    ("algo.kl.target", {"algo__kl__target": 0, **KL}, {"algo__kl__target": 1, **KL}),
    ("algo.kl.horizon", {"algo__kl__horizon": 5}, {"algo__kl__horizon": 5, "algo__kl__target": 1}),
    (
        "actor.muon.lr",
        {"actor__muon__momentum": 0.9},
        {"actor__muon__momentum": 0.9, "actor__optim": "muon", "actor__max_norm": 0},
    ),
    ("actor.optim", {"actor__optim": "muon"}, {"actor__optim": "muon", "actor__max_norm": 0}, {}),
    ("actor.optim", {"actor__optim": "muon", "ds__zero_stage": 0}, {"actor__optim": "muon"}, {"ds__zero_stage": 0}),
    ("actor.lr_scheduler", {"actor__lr_scheduler": "greedy"}, {"actor__lr_scheduler": "linear"}),
    (
        "actor.min_lr_ratio",
        {"actor__min_lr_ratio": 0.2},
        {"actor__min_lr_ratio": 0.2, "actor__lr_scheduler": "cosine_with_min_lr"},
    ),
    ("actor.lr_warmup_ratio", {"actor__lr_warmup_ratio": 0.1}, {"actor__lr_warmup_ratio": None}, {}),
    ("actor.lr_warmup_ratio", {"actor__lr_warmup_ratio": 10}, {"actor__lr_warmup_ratio": 1}),
    ("reward.normalize_enable", {"reward__normalize_enable": True}, {"reward__normalize_enable": True, **MODEL}),
    ("reward.clip_range", {"reward__clip_range": [1, 1]}, {"reward__clip_range": [0, 1]}),
    ("reward.overlong_buffer_len", {"reward__overlong_buffer_len": 0}, {"reward__overlong_buffer_len": 1}),
    (
        "reward.overlong_penalty_factor",
        {"reward__overlong_penalty_factor": 2},
        {"reward__overlong_penalty_factor": 2, "reward__overlong_buffer_len": 1},
    ),
    (
        "reward.stop_properly_penalty_coef",
        {"reward__stop_properly_penalty_coef": 2},
        {"reward__stop_properly_penalty_coef": -2},
    ),
    (
        "train.max_tokens_per_gpu",
        {"train__max_tokens_per_gpu": 4096},
        {"train__max_tokens_per_gpu": 4096, "train__dynamic_batch_enable": True},
    ),
    (
        "ds.packing_samples",
        {"ds__packing_samples": True, "maxk__rows": "off"},
        {"ds__packing_samples": True},
        {"maxk__rows": "off"},
    ),
    (
        "ds.packing_samples",
        {"train__dynamic_batch_enable": True, **MODEL, "without": "flash_attn"},
        {"train__dynamic_batch_enable": True, **MODEL},
        {"train__dynamic_batch_enable": True, "without": "flash_attn"},
    ),
    ("ds.lora.rank", {"ds__lora__rank": -1}, LORA, {"ds__lora__rank": 0}),
    ("ds.lora.alpha", {"ds__lora__target_modules": ["q_proj"]}, {"ds__lora__target_modules": ["q_proj"], **LORA}),
    ("ds.lora.alpha", {"ds__lora__alpha": 0, **LORA}, {"ds__lora__alpha": 1, **LORA}),
    ("ds.lora.dropout", {"ds__lora__dropout": 0.1, **LORA}, {"ds__lora__dropout": 0, **LORA}),
    ("actor.optim", {**MUON, **LORA}, MUON, LORA),
    ("ds.param_dtype", {"ds__param_dtype": "fp16"}, {"ds__param_dtype": "bf16"}),
    (
        "ds.use_liger_kernel",
        {"ds__use_liger_kernel": True, **GPU, "without": "liger_kernel"},
        {"ds__use_liger_kernel": True, **GPU},
    ),
    (
        "ds.attn_implementation",
        {"ds__attn_implementation": "kernels-community/flash", **GPU, "without": "kernels"},
        {"ds__attn_implementation": "eager", **GPU, "without": "kernels"},
        {"ds__attn_implementation": "kernels-community/flash", **GPU},
    ),
    ("vllm.num_engines", {"vllm__num_engines": 0}, {"vllm__num_engines": 1}),
    ("vllm.enable_sleep", {"vllm__enable_sleep": True, **GPU}, {"vllm__enable_sleep": True, **COLOCATED, **GPU}),
    ("vllm.sync_backend", {"vllm__sync_backend": "gloo", **GPU}, {"vllm__sync_backend": "gloo"}, GPU),
    ("vllm.sync_backend", {"vllm__sync_backend": "nccl"}, {"vllm__sync_backend": "nccl", **GPU}, {}),
    ("vllm.sync_with_ray", {"vllm__sync_with_ray": True}, {"vllm__sync_with_ray": True, **GPU}),
    (
        "vllm.sync_with_ray",
        {"vllm__sync_with_ray": True, **GPU, "without": "cupy"},
        {"vllm__sync_with_ray": True, **GPU},
    ),
    ("ds.zero_stage", {"ds__zero_stage": 4}, STAGE_3),
    ("ref.offload", {"ref__offload": True, **GPU}, {"ref__offload": True, **STAGE_3, **GPU}),
    ("ds.zpg", {"ds__zpg": 8, **GPU}, {"ds__zpg": 8, **STAGE_3, **GPU}),
    ("ds.grad_accum_dtype", {"ds__grad_accum_dtype": "float32"}, {"ds__grad_accum_dtype": "fp32"}),
    (
        "ds.grad_accum_dtype",
        {"ds__grad_accum_dtype": "fp32", "ds__zero_stage": 0},
        {"ds__grad_accum_dtype": "bf16", "ds__zero_stage": 0},
        {"ds__grad_accum_dtype": "fp32"},
    ),
    (
        "actor.gradient_checkpointing_reentrant",
        {"actor__gradient_checkpointing_reentrant": True},
        {"actor__gradient_checkpointing_reentrant": True, "actor__gradient_checkpointing_enable": True},
    ),
    ("ds.adam_offload", {"ds__enable_sleep": True}, {"ds__enable_sleep": True, **GPU}),
    ("ds.deepcompile", {"ds__deepcompile": True}, {"ds__deepcompile": True, **GPU}),
    (
        "ds.attn_implementation",
        {"ds__attn_implementation": "flash_attention_2"},
        {"ds__attn_implementation": "eager"},
        {"ds__attn_implementation": "flash_attention_2", **GPU},
    ),
    (
        "vllm.gpu_memory_utilization",
        {"vllm__gpu_memory_utilization": 0.2},
        {"vllm__gpu_memory_utilization": 0.1},
        {"vllm__gpu_memory_utilization": 0.2, **GPU},
    ),
    ("vllm.tensor_parallel_size", {"actor__num_nodes": 2}, {"actor__num_nodes": 2, **GPU}),
    ("data.prompt_probs", {"data__prompt_probs": "0.5,0.5"}, {"data__prompt_probs": "1"}),
    (
        "data.prompt_split",
        {"data__prompt_split": "test"},
        {"data__prompt_split": "test", "data__prompt_dataset": "a/b"},
    ),
    (
        "eval.split",
        {"eval__split": "test", **EVALUATION, "eval__dataset": "e.jsonl"},
        {"eval__split": "test", **EVALUATION},
    ),
    ("data.input_template", {"data__input_template": "{0}"}, {"data__input_template": "{{}} {}"}),
    ("data.input_template", {"data__input_template": "{}\\n"}, {"data__input_template": "{}\n"}),
    (
        "data.input_template",
        {"data__input_template": "Q: {}", "data__apply_chat_template": True},
        {"data__input_template": "Q: {}"},
    ),
    ("eval.dataset", {"eval__dataset": "owner/data"}, EVALUATION),
    ("eval.steps", {"eval__temperature": 0.5}, {"eval__temperature": 0.5, **EVALUATION}),
    ("eval.dataset", {**EVALUATION, **MODEL}, EVALUATION),
    (
        "eval.temperature",
        {"eval__temperature": 0, **EVALUATION},
        {"eval__temperature": 0, **EVALUATION, "eval__n_samples_per_prompt": 1},
        {"eval__temperature": 0.5, **EVALUATION},
    ),
    ("eval.temperature", {"eval__temperature": -1, **EVALUATION}, {"eval__temperature": 0, **EVALUATION}),
    (
        "ckpt.best_metric_key",
        {"ckpt__best_metric_key": "a"},
        {"ckpt__best_metric_key": "a", **EVALUATION},
        {"ckpt__best_metric_key": "none"},
        {},
    ),
    ("eval.steps", {"ckpt__save_steps": 0}, {"ckpt__save_steps": -1}, {"ckpt__save_steps": 2}),
    ("ckpt.save_hf", {"ckpt__save_hf": True}, {"ckpt__save_hf": True, **SAVED}),
    (
        "ckpt.disable_ds",
        {"ckpt__disable_ds": True, "ckpt__save_hf": True, **SAVED, "ckpt__load_enable": True},
        {"ckpt__disable_ds": True, "ckpt__save_hf": True, **SAVED},
    ),
    (
        "ckpt.disable_ds",
        {"ckpt__disable_ds": True, **SAVED},
        {"ckpt__disable_ds": True, "ckpt__save_hf": True, **SAVED},
    ),
    (
        "ds.use_universal_ckpt",
        {"ds__use_universal_ckpt": True},
        {"ds__use_universal_ckpt": True, "ckpt__load_enable": True},
    ),
    (
        "logger.wandb.org",
        {"logger__wandb__project": "mine"},
        {"logger__wandb__project": "mine", "logger__wandb__key": "x"},
    ),
]
CONDITIONAL = [rule for rule in table.RULES if not rule.is_final]
FINAL = [(rule, name) for rule in table.RULES if rule.is_final for name in rule.names]


def test_every_option_of_the_parser_is_in_the_table_once():
    options = [action.dest for action in upstream_parser()._actions if not isinstance(action, argparse._HelpAction)]
    classified = table.passed() + table.never()
    assert sorted(classified) == sorted(set(options))


def test_refusals_are_about_options_that_there_are():
    assert {name for rule in table.RULES for name in rule.names} <= defaults().keys()


def test_every_conditional_rule_has_its_case():
    assert [case[0] for case in CASES] == [rule.names[0] for rule in CONDITIONAL]


@pytest.fixture
def lines_of(refused, monkeypatch):
    """The lines for a rule; ``without`` is a package that is not installed, all others are."""

    def lines(rule: Rule, without: str | None = None, **changes: object) -> list[str]:
        monkeypatch.setattr(machinery, "find_spec", lambda package: None if package == without else package)
        return [line for line in refused(**changes) if line.endswith(f"{rule.when}: {rule.why}; {rule.instead}")]

    return lines


@pytest.mark.parametrize(
    ("rule", "case"),
    list(zip(CONDITIONAL, CASES, strict=False)),
    ids=[f"{i} {case[0]}" for i, case in enumerate(CASES)],
)
def test_a_rule_refuses_what_it_should_and_nothing_else(lines_of, rule, case):
    _, bad, *good = case
    (line,) = lines_of(rule, **bad)
    name = line.split()[0].rstrip(":").removeprefix("--")
    assert name in rule.names
    assert name.replace(".", "__") in bad, "the line names an option that was given"
    assert [line for changes in good for line in lines_of(rule, **changes)] == []


@pytest.mark.parametrize(("rule", "name"), FINAL, ids=[name for _, name in FINAL])
def test_an_option_that_is_never_passed_through_is_refused(lines_of, rule, name):
    (action, *_) = (action for action in upstream_parser()._actions if action.dest == name)
    given: object
    if isinstance(action, argparse._StoreTrueAction):
        given = not action.default or None
    elif action.choices:
        given = next(choice for choice in action.choices if choice != action.default)
    elif action.nargs:
        given = [1, 2] if action.type is float else ["x"]
    else:
        given = "x" if action.type is str else (action.default or 0) + 2
    if given is None:  # on by default: only its negation can be given
        given, name = True, name.replace("nesterov", "no_nesterov")
    (line,) = lines_of(rule, **{name.replace(".", "__"): given})
    assert line.startswith(f"--{name.replace('no_nesterov', 'nesterov')}")


@pytest.mark.parametrize("changes", [{}, GPU], ids=["cpu", "gpu"])
def test_the_defaults_are_refused_by_no_rule(refused, changes):
    assert refused(**changes) == []


def test_every_refused_option_has_its_line(refused):
    lines = refused(critic__adam__lr=1e-5, critic__max_norm=2, train__enable_ema=True)
    assert [line.split(":")[0] for line in lines] == [
        "--critic.adam.lr 1e-05",
        "--critic.max_norm 2.0",
        "--train.enable_ema",
    ]


@pytest.mark.parametrize("changes", [SEQUENCE, TOKEN], ids=["sequences", "tokens"])
def test_upstreams_correction_too_needs_the_whole_policy(refused, changes):
    (line,) = refused(rollout__top_p=0.9, **changes)
    assert line.startswith("--rollout.top_p 0.9 with")


@pytest.mark.parametrize(
    "changes",
    [SCORE, CONTRAST, KL, {"maxk__objective": "rloo"}],
    ids=["score", "leave one out", "KL in the rewards", "other objective"],
)
def test_bounds_for_negative_advantages_are_refused_only_where_there_are_none(refused, changes):
    (line,) = refused(actor__dual_clip=3, **KL_LOSS)
    assert "there are none" in line
    assert not [line for line in refused(actor__dual_clip=3, **changes) if "there are none" in line]


def test_vllms_share_of_memory_counts_where_the_variable_is_emptied(refused, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "")
    assert refused(vllm__gpu_memory_utilization=0.2) == []


@pytest.mark.parametrize("baseline", ["none", "marginal"])
@pytest.mark.parametrize("steps", [ONE_STEP, {**ONE_STEP, "train__batch_size": 16}, {"train__max_epochs": 2}])
@pytest.mark.parametrize("loss", ["ppo", "score"])
def test_several_clipped_steps_need_a_baseline(refused, baseline, steps, loss):
    lines = refused(maxk__baseline=baseline, maxk__loss=loss, **steps)
    assert bool(lines) == (baseline == "none" and loss == "ppo" and steps != ONE_STEP)


@pytest.mark.parametrize("name", optimization.SCHEDULERS)
def test_a_schedule_that_is_passed_through_can_be_made(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    smallest = {"min_lr_rate": 0.1} if name in optimization.MIN_LR_SCHEDULERS else {}
    scheduler = get_scheduler(name, optimizer, 1, 10, scheduler_specific_kwargs=smallest)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr()[0] > 0


@pytest.mark.parametrize("strategy", ["max", "min"])
def test_other_strategies_than_max_also_push_down(refused, strategy):
    lines = refused(actor__dual_clip=3.0, maxk__strategy=strategy, **PPO)
    assert bool(lines) == (strategy == "max")


def test_only_some_objectives_have_a_strategy(refused):
    (line,) = refused(maxk__strategy="min", maxk__objective="pkpo")
    assert line.startswith("--maxk.strategy min with another --maxk.objective")
    assert refused(maxk__strategy="min") == []
