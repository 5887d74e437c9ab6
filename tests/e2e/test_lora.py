"""LoRA on two real ranks: vLLM samples from the learner's policy, what is saved is that policy, and a run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from . import pipeline
from .test_runs import logged

pytestmark = pytest.mark.slow
STEPS = 4
OPTIONS = {
    "ds__lora__rank": 4,
    "ds__lora__alpha": 64,
    "actor__adam__lr": 1e-2,
    "actor__num_gpus_per_node": 2,
    "maxk__behaviour": "rollout",  # logs how far vLLM's log-probs are from the learner's
    "maxk__min_ess": 0,
    "algo__kl__init_coef": 0.01,
    "algo__kl__use_loss": True,
    "algo__kl__estimator": "k3",
    "train__num_episodes": 2,
    "train__micro_batch_size": 8,
    "ckpt__save_steps": 1,
    "ckpt__max_num": STEPS,
    "ckpt__load_enable": True,
}
AGREES = 5e-3  # nats a token: what rounding makes of it is below a thousandth


@pytest.fixture(scope="module", params=[2, 3], ids=["zero2", "zero3"])
def run(request, tmp_path_factory):
    """A finished run, and its options."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline.make_model(folder / "model")
    pipeline.make_data(folder / "data.jsonl", 16)
    pipeline.make_reward(folder / "reward.py")
    options = {**OPTIONS, "ds__zero_stage": request.param}
    done = pipeline.train(folder, logger__tensorboard_dir=folder / "tensorboard", **options)
    assert done.returncode == 0, done.stdout[-5000:]
    return folder, options


def weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).named_parameters())


def test_vllm_samples_from_the_policy_that_the_learner_has(run):
    scalars = logged(run[0] / "tensorboard")
    mismatch = scalars["train/rollout/sampler_mismatch"]
    assert len(mismatch) == STEPS
    assert max(mismatch) < AGREES
    assert scalars["train/kl"][-1] > 20 * AGREES  # from the base model


def test_the_adapter_on_the_base_model_is_the_model_that_is_saved(run):
    folder, _ = run
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "out" / "adapter").eval()
    saved = AutoModelForCausalLM.from_pretrained(folder / "out", dtype=torch.float32).eval()
    ids = torch.arange(24)[None] % base.config.vocab_size
    with torch.no_grad():
        of_adapted, of_saved = (model(ids).logits.log_softmax(-1) for model in (adapted, saved))
        with adapted.disable_adapter():
            of_base = adapted(ids).logits.log_softmax(-1)
    rounding = (of_adapted - of_saved).abs().mean()  # the saved model is bfloat16, as the base model
    assert rounding < 0.05 * (of_adapted - of_base).abs().mean()
    merged = dict(adapted.merge_and_unload().named_parameters())
    for name, weight in weights(folder / "out", torch.bfloat16).items():
        assert torch.equal(weight, merged[name].to(torch.bfloat16)), name


def test_the_base_model_stays_as_it_is(run):
    folder, _ = run
    before, after = weights(folder / "model", torch.bfloat16), weights(folder / "out", torch.bfloat16)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "_proj.weight" not in name}


def test_a_resumed_run_goes_on_with_its_adapter(run):
    folder, options = run
    shutil.rmtree(folder / "out")
    (folder / "checkpoints" / "_actor" / "latest").write_text("global_step2")
    done = pipeline.train(folder, logger__tensorboard_dir=folder / "resumed", **options)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "resumed after step 2" in done.stdout
    whole, resumed = logged(folder / "tensorboard"), logged(folder / "resumed")
    mismatch = resumed["train/rollout/sampler_mismatch"]
    assert len(mismatch) == STEPS - 2
    assert max(mismatch) < AGREES
    assert resumed["train/kl"][0] > whole["train/kl"][1]  # where step 2 has left it, and not from the start
    assert (folder / "out" / "adapter" / "adapter_model.safetensors").is_file()
