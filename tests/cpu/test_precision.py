"""float32 on CPU: one default for learner, reference, vLLM and evaluation; what is saved has the base model's dtype."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from openrlhf_maxk import platform
from openrlhf_maxk.cli import evaluate, train
from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineOptions

from ..e2e import pipeline


@pytest.fixture
def folder(tmp_path):
    pipeline.make_model(tmp_path / "model")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    pipeline.make_reward(tmp_path / "reward.py")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "learner", "engine"),
    [
        (None, torch.float32, "float32"),
        ("fp32", torch.float32, "float32"),
        ("bf16", torch.bfloat16, "bfloat16"),
    ],
)
def test_the_option_reaches_learner_and_engine(folder, monkeypatch, given, learner, engine):
    from openrlhf.utils.deepspeed.deepspeed_utils import get_eval_ds_config, get_train_ds_config
    from openrlhf.utils.utils import convert_to_torch_dtype

    monkeypatch.setenv(platform.PARAM_DTYPE, "")
    cluster = {"GPU": 8.0, "CPU": 16.0}
    fake = SimpleNamespace(
        init=lambda **_: None, cluster_resources=lambda: cluster, available_resources=lambda: cluster
    )
    _, args = train.parse(pipeline.arguments(folder, ds__param_dtype=given))
    assert convert_to_torch_dtype(args.ds.param_dtype) == learner
    for config in (get_train_ds_config, get_eval_ds_config):
        made = config(offload=False, param_dtype=args.ds.param_dtype)
        assert made["bf16"]["enabled"] == (learner == torch.bfloat16)
        assert made["fp16"]["enabled"] == (learner == torch.float16)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", fake)
        train.start_ray(args, verbose=False)
    assert platform.environment()[platform.PARAM_DTYPE] == args.ds.param_dtype  # so it is in every process of the run
    assert platform.engine_dtype() == engine


def test_a_program_that_does_not_say_has_the_engines_of_openrlhf(monkeypatch):
    monkeypatch.delenv(platform.PARAM_DTYPE, raising=False)
    assert platform.engine_dtype() == "bfloat16"
    assert platform.PARAM_DTYPE not in platform.environment()


def test_evaluation_computes_in_the_same(monkeypatch):
    options = ["--problems", "p", "--out", "o", "--model", "m"]
    assert evaluate.parse(options).dtype == EngineOptions().dtype == "float32"
    monkeypatch.setattr(platform, "is_cpu", lambda: False)
    assert evaluate.parse(options).dtype == EngineOptions().dtype == "auto"


def test_other_dtypes_are_refused():
    from openrlhf.utils.utils import convert_to_torch_dtype

    with pytest.raises(ValueError, match="fp64"):
        convert_to_torch_dtype("fp64")


@pytest.mark.parametrize(
    ("base", "trained", "saved"),
    [
        ("bfloat16", "fp32", torch.bfloat16),
        ("float32", "fp32", torch.float32),
        (None, "fp32", torch.float32),
        ("float32", "bf16", torch.bfloat16),  # upstream's way with what was not trained in float32
    ],
)
def test_a_model_is_saved_as_the_base_model_was(folder, monkeypatch, base, trained, saved):
    from openrlhf.utils.deepspeed import DeepspeedStrategy, deepspeed
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((folder / "model" / "config.json").read_text())
    config.pop("dtype")
    (folder / "model" / "config.json").write_text(json.dumps(config | ({"dtype": base} if base else {})))
    _, args = train.parse(pipeline.arguments(folder, ds__param_dtype=trained))
    monkeypatch.setattr(deepspeed, "torch_dist_barrier_and_cuda_sync", lambda: None)
    monkeypatch.setattr(DeepspeedStrategy, "is_rank_0", lambda self: True)
    monkeypatch.setattr(DeepspeedStrategy, "_unwrap_model", lambda self, model: model)
    dtype = torch.float32 if trained == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    DeepspeedStrategy(args=args).save_model(model, tokenizer, str(folder / "out"))
    weights = load_file(folder / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {saved}
    assert json.loads((folder / "out" / "config.json").read_text())["dtype"] == str(saved).removeprefix("torch.")
    for name, tensor in weights.items():
        assert torch.equal(tensor, model.state_dict()[name].to(saved)), name
