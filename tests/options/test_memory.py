"""Memory and disk of a run: parameters of known models, proportions, and what is said where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from openrlhf_maxk.options import memory
from openrlhf_maxk.options.memory import GIB, Shape

QWEN = {
    "0.5B": Shape(896, 4864, 24, 14, 2, 64, 151936, True),
    "1.5B": Shape(1536, 8960, 28, 12, 2, 128, 151936, True),
    "3B": Shape(2048, 11008, 36, 16, 2, 128, 151936, True),
    "7B": Shape(3584, 18944, 28, 28, 4, 128, 152064, False),
    "14B": Shape(5120, 13824, 48, 40, 8, 128, 152064, False),
    "32B": Shape(5120, 27648, 64, 40, 8, 128, 152064, False),
}
SEVEN = QWEN["7B"]


def options(**changes: object) -> SimpleNamespace:
    """The script's settings on eight GPUs, nested."""
    flat = {
        "actor.num_nodes": 1,
        "actor.num_gpus_per_node": 4,
        "actor.gradient_checkpointing_enable": True,
        "ds.zero_stage": 3,
        "ds.param_dtype": "bf16",
        "ds.adam_offload": False,
        "ds.lora.rank": 0,
        "train.micro_batch_size": 8,
        "train.colocate_all": False,
        "train.colocate_actor_ref": True,
        "data.max_len": 1024,
        "train.dynamic_batch_enable": False,
        "train.max_tokens_per_gpu": 16192,
        "rollout.n_samples_per_prompt": 8,
        "rollout.max_new_tokens": 256,
        "algo.kl.init_coef": 0.01,
        "vllm.tensor_parallel_size": 1,
        "vllm.gpu_memory_utilization": 0.85,
        "ckpt.save_steps": 20,
        "ckpt.max_num": 2,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    args = SimpleNamespace(algo=SimpleNamespace(kl=SimpleNamespace()))
    for name, value in flat.items():
        *rooms, last = name.split(".")
        at = args
        for room in rooms:
            if not hasattr(at, room):
                setattr(at, room, SimpleNamespace())
            at = getattr(at, room)
        setattr(at, last, value)
    return args


@pytest.mark.parametrize(
    ("model", "parameters"),
    [  # Qwen2.5's, as counted in their weights
        ("0.5B", 494_032_768),
        ("1.5B", 1_543_714_304),
        ("7B", 7_615_616_512),
        ("32B", 32_763_876_352),
    ],
)
def test_parameters_of_known_models(model, parameters):
    assert QWEN[model].parameters == pytest.approx(parameters, rel=1e-3)


def test_the_shape_is_read_from_a_configuration_and_counts_what_is_there():
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    shape = Shape.of(config)
    model = Qwen2ForCausalLM(config)
    assert shape is not None
    assert shape.parameters == sum(p.numel() for name, p in model.named_parameters() if not name.endswith("bias"))
    adapter = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert shape.trained(3) == sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert shape.trained(0) == shape.parameters
    assert Shape.of(SimpleNamespace(num_experts=8)) is None
    assert Shape.of(SimpleNamespace(d_model=8)) is None


def test_seven_billion_parameters_in_bfloat16():
    """14 bytes a parameter in a checkpoint; on one GPU without ZeRO 16, and two more for the reference."""
    p = SEVEN.parameters
    alone = memory.learner_bytes(SEVEN, options(actor__num_gpus_per_node=1, ds__zero_stage=0))
    assert [alone[part] / p for part in ("weights", "gradients", "optimizer", "reference")] == [2, 2, 12, 2]
    assert memory.checkpoint_bytes(SEVEN, options()) == pytest.approx(107e9, rel=0.01)
    four = memory.learner_bytes(SEVEN, options())
    assert [four[part] / p for part in ("weights", "gradients", "optimizer", "reference")] == [0.5, 0.5, 3, 0.5]
    two = memory.learner_bytes(SEVEN, options(ds__zero_stage=2))
    assert [two[part] / p for part in ("weights", "gradients", "optimizer")] == [2, 0.5, 3]
    offloaded = memory.learner_bytes(SEVEN, options(ds__adam_offload=True, algo__kl__init_coef=0))
    assert [offloaded[part] for part in ("gradients", "optimizer", "reference")] == [0, 0, 0]
    adapter, trained = options(ds__lora__rank=16, actor__num_gpus_per_node=1), SEVEN.trained(16)
    with_lora = memory.learner_bytes(SEVEN, adapter)
    assert [with_lora[part] for part in ("weights", "gradients", "optimizer")] == [2 * p, 2 * trained, 12 * trained]
    assert memory.checkpoint_bytes(SEVEN, adapter) == 2 * p + 12 * trained


def test_activations_grow_with_tokens_and_shrink_with_checkpointing():
    def at(rows: bool = False, **changes: object) -> float:
        return memory.learner_bytes(SEVEN, options(**changes), rows)["activations"]

    assert at(data__max_len=2048) == 2 * at()
    assert at(actor__gradient_checkpointing_enable=False) > 2 * at()
    tokens = 8 * 1024
    assert at() > 10 * tokens * SEVEN.vocabulary  # logits are most of it


def test_a_row_holds_a_prompt_once_and_few_logits():
    def at(rows: bool = True, **changes: object) -> float:
        no_logits = replace(SEVEN, vocabulary=0)
        return memory.learner_bytes(no_logits, options(**changes), rows)["activations"]

    tokens = 8 * 256 + (1024 - 256)
    assert at() / tokens == pytest.approx(at(rows=False) / (8 * 1024))
    assert at(train__dynamic_batch_enable=True) / 16192 == pytest.approx(at() / tokens)
    assert at(rollout__max_new_tokens=None) == at(rows=False)
    whole = memory.learner_bytes(SEVEN, options())["activations"]
    assert whole - at() == 10 * memory.MOST_LOGITS


def test_an_engine_holds_weights_and_the_cache_of_a_group():
    engine = memory.engine_bytes(SEVEN, options())
    assert engine["weights"] == 2 * SEVEN.parameters
    assert engine["KV cache"] == 8 * 1024 * 2 * 28 * 4 * 128 * 2
    assert memory.engine_bytes(SEVEN, options(vllm__tensor_parallel_size=2))["weights"] == SEVEN.parameters


@pytest.mark.parametrize(
    ("changes", "gib", "messages"),
    [
        ({}, 80, []),
        ({"actor__num_gpus_per_node": 1}, 80, ["a learner rank needs about"]),
        ({"vllm__gpu_memory_utilization": 0.15}, 80, ["a vLLM engine needs about"]),
        ({}, 16, ["a learner rank needs about", "a vLLM engine needs about"]),
        ({"train__colocate_all": True, "vllm__gpu_memory_utilization": 0.95}, 80, ["learner and reference: --vllm"]),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_do(changes, gib, messages):
    found = memory.memory_warnings(SEVEN, options(**changes), gib * GIB)
    assert len(found) == len(messages)
    for warning, message in zip(found, messages, strict=True):
        assert message in warning
        assert "--" in warning


def test_checkpoints_that_do_not_fit_on_the_disk(tmp_path, monkeypatch):
    for free, fits in ((330e9, True), (310e9, False)):
        monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        said = memory.disk_warning(SEVEN, options(), str(tmp_path / "run" / "checkpoints"))
        assert (said is None) == fits
    assert said is not None
    assert "3 checkpoints of 107 GB" in said
    assert memory.disk_warning(SEVEN, options(ckpt__save_steps=-1), str(tmp_path)) is None
    small = replace(SEVEN, layers=1, vocabulary=100)
    assert memory.disk_warning(small, options(), str(tmp_path)) is None


@pytest.mark.parametrize("model", QWEN)
def test_the_table_of_the_cluster_guide_is_computed(model):
    shape = QWEN[model]
    cells = []
    for nodes, gpus in ((1, 1), (1, 4), (8, 4)):
        parts = memory.learner_bytes(shape, options(actor__num_nodes=nodes, actor__num_gpus_per_node=gpus))
        cells.append(f"{sum(parts.values()) / GIB:.0f}")
        if gpus == 1:
            cells.append(f"{parts['activations'] / GIB:.0f}")
    engine = memory.engine_bytes(shape, options())
    cells += [f"{engine['weights'] / GIB:.0f}", f"{engine['KV cache'] / GIB:.1f}"]
    row = " | ".join([model, *cells, f"{memory.checkpoint_bytes(shape, options()) / 1e9:.0f} GB"])
    assert f"| {row} |" in (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
