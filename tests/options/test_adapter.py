"""``--ds.lora.target_modules``: layers that are not there, or that cannot be merged, are named before a run starts."""

from __future__ import annotations

import json

import pytest
from transformers import Qwen2Config

LORA = {"ds__lora__rank": 4}


@pytest.fixture
def model(tmp_path):
    """Write the configuration of a small model, with its embeddings tied or not."""

    def write(tied: bool) -> None:
        config = Qwen2Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
        (tmp_path / "model" / "config.json").write_text(config.to_json_string())

    return write


@pytest.mark.parametrize(
    ("targets", "tied", "parts"),
    [
        (["q_proj", "v_proj"], True, []),
        (["layers.1.self_attn.q_proj"], True, []),
        (["all-linear"], True, []),
        (None, True, []),
        (["lm_head"], False, []),
        (["q_prj"], True, ["q_prj is no linear layer of the model: did you mean q_proj?", "down_proj, gate_proj"]),
        (["proj"], True, ["proj is no linear layer of the model"]),
        (["q_proj", "embed_tokens"], True, ["embed_tokens is no linear layer of the model: It has down_proj"]),
        (["q_proj", "all-linear"], True, ["all-linear is no linear layer"]),
        (["lm_head"], True, ["lm_head shares its weight with the input embeddings", "leave it out"]),
        ([], True, ["names no layer", "leave it out for all linear ones"]),
    ],
)
def test_layers_are_looked_up_in_the_model(check, refused, model, targets, tied, parts):
    check()  # makes the folder
    model(tied)
    lines = refused(**LORA, ds__lora__target_modules=targets)
    assert len(lines) == bool(parts), lines
    for part in parts:
        assert part in lines[0]
        assert lines[0].startswith("--ds.lora.target_modules")


def test_without_an_adapter_no_model_is_made(check, refused, model, tmp_path):
    check()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (line,) = refused(ds__lora__target_modules=["q_prj"])
    assert "without --ds.lora.rank" in line


def test_a_model_that_is_not_here_is_not_judged(check):
    check(**LORA, ds__lora__target_modules=["q_prj"], actor__model_name_or_path="owner/model")
