"""LoRA: what is sent and saved is what peft itself would merge, under the base model's names; live weights stay."""

from __future__ import annotations

import json
from types import SimpleNamespace

import deepspeed
import pytest
import torch
from openrlhf.models import actor
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrlhf_maxk.cli.train import parse
from openrlhf_maxk.learner.lora import MergedBroadcast, MergedModel, gathered, merged_parameters

from ..e2e import pipeline

Q_V, HEAD = ["q_proj", "v_proj"], ["o_proj", "lm_head"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with biases and tied embeddings, in bfloat16."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline.make_model(folder / "model")
    pipeline.make_data(folder / "data.jsonl", 8)
    pipeline.make_reward(folder / "reward.py")
    return folder


def trained(folder, dtype=torch.float32, tied=True, **config) -> PeftModel:
    """A policy whose adapter is no longer 0."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    if not tied:
        made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())
        made.config.tie_word_embeddings = False
    config = {"r": 3, "lora_alpha": 7, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **config}
    model = get_peft_model(made, LoraConfig(**config), autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tied", "config"),
    [
        (True, {}),
        (True, {"use_rslora": True}),
        (True, {"target_modules": Q_V, "lora_alpha": 1}),
        (False, {"target_modules": HEAD}),
    ],
    ids=["all linear", "rslora", "some", "the head"],
)
def test_what_is_merged_is_what_peft_merges_under_the_names_of_the_base_model(folder, dtype, tied, config):
    model = trained(folder, dtype, tied, **config)
    live = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    found = {name: (parameter.data.clone(), parameter) for name, parameter in merged_parameters(model)}
    for name, parameter in model.named_parameters():
        assert live[name][0] == parameter.data_ptr(), name  # ZeRO's flat buffers hold it there
        assert torch.equal(live[name][1], parameter), name
    before = dict(AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).named_parameters())
    expected = dict(model.merge_and_unload().named_parameters())
    assert list(found) == list(expected)
    for name, (merged, parameter) in found.items():
        assert torch.equal(merged, expected[name]), name
        assert (merged.dtype, merged.shape) == (parameter.dtype, parameter.shape) == (dtype, expected[name].shape)
        assert merged.is_contiguous(), name
    changed = {name for name in before if not torch.equal(found[name][0], before[name])}
    named = config.get("target_modules", [*Q_V, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    assert changed == {name for name in before if name.split(".")[-2] in named and name.endswith("weight")}


class Upstream:
    """Reads a policy's parameters as OpenRLHF's broadcast does."""

    def broadcast_to_vllm(self) -> None:
        self.gathers_with = deepspeed.zero.GatheredParameters
        model = self.actor.model.module
        to_send = [(name, p) for name, p in model.named_parameters() if p.requires_grad or not self.actor.is_vlm]
        for name, parameter in to_send:
            with deepspeed.zero.GatheredParameters([parameter], enabled=False):
                self.sent[name] = (parameter.dtype, parameter.shape, parameter.data)


def sender(module: nn.Module, is_vlm: bool = False):
    extended = type("Trainer", (MergedBroadcast, Upstream), {})()
    extended.actor = SimpleNamespace(model=SimpleNamespace(module=module), is_vlm=is_vlm)
    extended.sent = {}
    return extended


def test_the_broadcast_sends_merged_weights_and_afterwards_everything_is_as_it_was(folder):
    model = trained(folder)
    own, gather = [name for name, _ in model.named_parameters()], deepspeed.zero.GatheredParameters
    trainer = sender(model)
    trainer.broadcast_to_vllm()
    assert [name for name, _ in model.named_parameters()] == own
    assert trainer.gathers_with is gathered
    assert deepspeed.zero.GatheredParameters is gather
    merged = dict(model.merge_and_unload().named_parameters())
    assert trainer.sent.keys() == merged.keys()
    for name, (dtype, shape, tensor) in trainer.sent.items():
        assert (dtype, shape) == (merged[name].dtype, merged[name].shape)
        assert torch.equal(tensor, merged[name]), name


def test_what_never_changes_is_not_sent_where_upstream_leaves_it_out(folder):
    trainer = sender(trained(folder, target_modules=Q_V), is_vlm=True)
    trainer.broadcast_to_vllm()
    assert {name.split(".")[-2] for name in trainer.sent} == set(Q_V)


def test_a_policy_without_an_adapter_is_sent_by_upstream_alone(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    trainer = sender(model)
    trainer.broadcast_to_vllm()
    assert trainer.gathers_with is deepspeed.zero.GatheredParameters
    assert trainer.sent.keys() == dict(model.named_parameters()).keys()


def test_what_is_gathered_for_a_merged_weight_are_its_parts(folder, monkeypatch):
    model, asked = trained(folder), []
    original = deepspeed.zero.GatheredParameters
    monkeypatch.setattr(
        "openrlhf_maxk.learner.lora.GatheredParameters",
        lambda parts, enabled: asked.append([id(part) for part in parts]) or original(parts, enabled=enabled),
    )
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    merged = dict(merged_parameters(model))["model.layers.0.self_attn.q_proj.weight"]
    with gathered([merged]):
        pass
    assert asked == [
        [id(p) for p in (layer.base_layer.weight, layer.lora_A.default.weight, layer.lora_B.default.weight)]
    ]


@pytest.fixture
def strategy(folder, monkeypatch):
    """DeepSpeed's strategy on one rank that has not started."""
    from openrlhf.utils.deepspeed import DeepspeedStrategy
    from openrlhf.utils.deepspeed import deepspeed as module

    monkeypatch.setattr(module, "torch_dist_barrier_and_cuda_sync", lambda: None)

    def make(dtype: str, stage: int):
        changes = {"ds__param_dtype": dtype, "ds__lora__rank": 3, "ds__zero_stage": stage}
        _, args = parse(pipeline.arguments(folder, **changes))
        return DeepspeedStrategy(args=args, zero_stage=stage)

    return make


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_model_is_saved_merged_and_its_adapter_beside_it(folder, tmp_path, strategy, stage, dtype, torch_dtype):
    model, out = trained(folder, torch_dtype), tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    strategy(dtype, stage).save_model(model, tokenizer, str(out))

    saved = AutoModelForCausalLM.from_pretrained(out)
    assert not hasattr(saved, "peft_config")
    assert saved.dtype == torch.bfloat16  # as the base model
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert len(AutoTokenizer.from_pretrained(out)) == len(tokenizer)
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch_dtype)
    adapted = PeftModel.from_pretrained(base, out / "adapter", autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name]), name
    merged = dict(model.merge_and_unload().named_parameters())
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, merged[name].to(torch.bfloat16)), name
    ids = torch.arange(8)[None]
    torch.testing.assert_close(
        adapted(ids).logits.float(), saved.to(torch_dtype)(ids).logits.float(), atol=0.2, rtol=0.05
    )


def test_other_ranks_keep_nothing_and_save_nothing(folder, tmp_path, strategy, monkeypatch):
    model = trained(folder)
    assert MergedModel(model, is_rank_0=False).state_dict() == {}
    other = strategy("fp32", 2)
    monkeypatch.setattr(type(other), "is_rank_0", lambda self: False)
    other.save_model(model, AutoTokenizer.from_pretrained(folder / "model"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("targets", ["all-linear", ["all-linear"]])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_openrlhfs_actor_has_its_adapter_in_the_models_dtype_on_all_linear_layers(folder, dtype, targets):
    policy = actor.Actor(
        str(folder / "model"),
        attn_implementation="sdpa",
        param_dtype=dtype,
        lora_rank=3,
        target_modules=targets,
        ds_config={"zero_optimization": {"stage": 2}},
    ).model
    trainable = {name: p.dtype for name, p in policy.named_parameters() if p.requires_grad}
    assert set(trainable.values()) == {{"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]}
    assert len(trainable) == 2 * 2 * 7  # A and B, two layers, seven projections
