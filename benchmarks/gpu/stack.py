"""A process of the kit: OpenRLHF behind this package's seams, the random model, the engine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from . import stand_ins
from .parts import Bench, Sizes


def prepare(device: str) -> None:
    """Make this process one in which OpenRLHF's learner can be imported, on ``device``, with what is installed.

    Elsewhere the installed build of vLLM says which platform it is. Here the device does.

    Raises:
        RuntimeError: "cuda", and PyTorch sees no such device.
        openrlhf_maxk.upstream.seams.SeamError: the installed OpenRLHF is not the one that is extended.
    """
    on_cpu = device == "cpu"
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise RuntimeError("no CUDA device: PyTorch sees none (--device cpu runs without)")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms ask for it
    stand_ins.install()
    from openrlhf_maxk import platform

    platform.is_cpu = lambda: on_cpu
    os.environ.update(platform.environment())
    from openrlhf_maxk.upstream import seams

    # PyTorch's AdamW always: compiling DeepSpeed's takes a minute, and both learners have the same one.
    active = [seam for seam in seams.SEAMS if seam in seams.active(on_cpu) or seam.missing == seams.NVCC]
    active = [seam for seam in active if not seam.by.startswith("openrlhf_maxk.rollout.")]
    seams.check(active)
    seams.apply(active)


def make_model(folder: Path, sizes: Sizes, device: str) -> str:
    """A Qwen2 with random weights in bfloat16, as a Hugging Face folder; made once a run."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

    model = folder / "model"
    if not (model / "tokenizer_config.json").exists():
        config = Qwen2Config(**sizes.model, max_position_embeddings=4096, tie_word_embeddings=True)
        torch.manual_seed(0)
        with torch.device(device):
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(model)
        build_tokenizer().save_pretrained(model)
    return str(model)


def start_engine(bench: Bench, zero: int) -> None:
    """Give ``bench`` both learners on a DeepSpeed engine of this ZeRO stage."""
    from learners import Learners

    model = make_model(bench.folder, bench.sizes, bench.device)
    bench.learners = Learners.make(model, str(bench.folder), *engine_options(bench.sizes, zero))


def engine_options(sizes: Sizes, zero: int) -> tuple[str, ...]:
    """Options of the training: bfloat16, PyTorch's attention, two PPO epochs of two optimizer steps."""
    return (
        *("--ds.zero_stage", str(zero), "--ds.param_dtype", "bf16", "--ds.attn_implementation", "sdpa"),
        *("--rollout.n_samples_per_prompt", str(sizes.n), "--rollout.batch_size", str(sizes.rows // sizes.n)),
        *("--train.batch_size", str(sizes.rows // 2), "--train.micro_batch_size", str(sizes.micro)),
        *("--train.max_epochs", "2", "--rollout.max_new_tokens", str(sizes.longest)),
        *("--data.max_len", str(sizes.prompt + sizes.longest)),
    )
