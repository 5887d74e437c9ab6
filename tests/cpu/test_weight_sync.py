"""What the learner sends replaces what vLLM has, all of it or nothing (with real vLLM: e2e/test_engine_process.py)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from openrlhf_maxk.cpu.weight_sync import CPUWorkerWrap


class Model(torch.nn.Linear):
    """Takes weights under their own names, and passes over others as vLLM does."""

    def load_weights(self, weights):
        named = dict(self.named_parameters())
        return {name for name, weight in weights if name in named and named[name].data.copy_(weight) is not None}


def worker(model):
    return SimpleNamespace(
        get_model=lambda: model, reload_weights=lambda weights_iterator: model.load_weights(weights_iterator)
    )


def test_all_weights_are_replaced():
    model = Model(2, 2)
    CPUWorkerWrap._load(worker(model), {"weight": torch.zeros(2, 2), "bias": torch.ones(2)})
    assert model.weight.eq(0).all()
    assert model.bias.eq(1).all()
    assert "load_weights" not in vars(model)


def test_weights_that_vllm_does_not_take_end_the_run():
    with pytest.raises(RuntimeError, match=r"Model got no new weight from the learner \(and 0 more\)"):
        CPUWorkerWrap._load(worker(Model(2, 2)), {"experts.weight": torch.zeros(2, 2), "bias": torch.ones(2)})


def test_a_model_that_does_not_say_what_it_took_is_believed():
    model = Model(2, 2)
    model.load_weights = lambda weights: None
    CPUWorkerWrap._load(worker(model), {})
