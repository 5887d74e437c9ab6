"""The base model's training: the right gradient, the same model again, a folder that loads elsewhere."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch

from openrlhf_maxk import platform
from openrlhf_maxk.problems.mini import base_model
from openrlhf_maxk.problems.mini.base_model import ModelSettings, train_base_model
from openrlhf_maxk.problems.mini.demonstrations import demonstrations
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

from .interpreter import printed

TINY = ModelSettings(steps=30, batch=16, warmup=5, layers=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base_model")
    return folder, train_base_model(folder, TINY, threads=2)


def sha256(folder) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [1, 3, 21, 64])
def test_loss_and_gradient_are_those_of_the_whole_batch(size):
    """Against Hugging Face's own loss on one left-padded batch with a mask."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = base_model.new_model(TINY, tokenizer)
    rows = base_model._encode(tokenizer, islice(demonstrations(seed=0), size))
    with ThreadPoolExecutor(2) as workers:
        loss, gradients = base_model._loss_and_gradients(model, rows, workers)

    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([[0] * (length - len(row.ids)) + row.ids for row in rows])
    mask = torch.tensor([[0] * (length - len(row.ids)) + [1] * len(row.ids) for row in rows])
    first = [length - len(row.ids) + row.prompt for row in rows]
    labels = torch.stack([ids[i].masked_fill(torch.arange(length) < first[i], -100) for i in range(size)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels).loss
    expected.backward()

    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(
            gradient, parameter.grad, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_it_learns(trained):
    assert trained[1]["first_loss"] == pytest.approx(5.3, abs=0.3)  # about ln 202: it knows nothing
    assert trained[1]["last_loss"] < 4.0


def test_the_same_model_again_whatever_the_threads(trained, tmp_path):
    train_base_model(tmp_path, TINY, threads=1)
    assert sha256(tmp_path) == sha256(trained[0])


def test_another_seed_is_another_model(trained, tmp_path):
    train_base_model(tmp_path, ModelSettings(seed=1, steps=1, batch=4, layers=2), threads=1)
    assert sha256(tmp_path) != sha256(trained[0])


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    train_base_model(tmp_path, ModelSettings(steps=1, batch=4, layers=1), threads=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_folder_is_complete_and_loads(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

    folder, _ = trained
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in folder.iterdir())
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, Qwen2ForCausalLM)
    assert model.dtype is torch.bfloat16
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.config.vocab_size == len(tokenizer)
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] // config["num_attention_heads"] == 32
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    output = model.generate(**tokenizer("print the", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert output.shape == (1, 6)


@pytest.mark.slow
def test_the_default_model_is_of_the_kind_the_benchmark_needs(tmp_path):
    """Trained in full: right programs are rare and there. Bounds are wide; docs/mini.md has the figures."""
    from openrlhf_maxk.objectives import max_at_k, pass_at_k
    from openrlhf_maxk.problems.mini.generator import ProblemSettings, generate

    train_base_model(tmp_path, ModelSettings())
    held_out = [p for p, _ in generate(ProblemSettings(train=1, validation=1, test=64)) if "/test/" in p.id]
    scores = sampled_scores(tmp_path, held_out, samples=64)
    solved = (scores == 1).float()
    figures = {k: (max_at_k(scores, k).mean().item(), pass_at_k(solved, k).mean().item()) for k in (1, 8, 64)}
    assert 0.12 < figures[1][0] < 0.32
    assert 0.05 < figures[1][1] < 0.18
    assert 0.45 < figures[8][0] < 0.65
    assert 0.7 < figures[64][0] < 0.95


def sampled_scores(folder, problems, samples: int) -> torch.Tensor:
    """Shares of tests passed, (problems, samples), sampled at temperature 1."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows: list[list[float]] = []
    for start in range(0, len(problems), 16):
        batch = problems[start : start + 16]
        prompts = tokenizer([p.statement for p in batch], return_tensors="pt", padding=True)
        ids = model.generate(
            **prompts, do_sample=True, top_k=0, max_new_tokens=26, num_return_sequences=samples, renormalize_logits=True
        )
        texts = tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, problem in enumerate(batch):
            programs = texts[i * samples : (i + 1) * samples]
            shares = {
                program: sum(printed(program, test.input) == test.output for test in problem.tests) / len(problem.tests)
                for program in set(programs)
            }
            rows.append([shares[program] for program in programs])
    return torch.tensor(rows)


@pytest.mark.slow
def test_vllm_loads_it_and_decodes_alike(trained, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    vllm = pytest.importorskip("vllm")
    from transformers import AutoTokenizer
    from vllm.distributed import cleanup_dist_env_and_memory

    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    prompts = [d.prompt for d in islice(demonstrations(seed=9), 4)]
    engine = vllm.LLM(
        str(trained[0]), max_model_len=128, enforce_eager=True, max_num_seqs=8, gpu_memory_utilization=0.2
    )
    wanted = vllm.SamplingParams(n=2, temperature=1.0, max_tokens=16, skip_special_tokens=False, seed=0)
    try:
        results = engine.generate(prompts, wanted, use_tqdm=False)
    finally:
        cleanup_dist_env_and_memory()  # its process group would be in the way of the tests that make one
    for prompt, result in zip(prompts, results, strict=True):
        assert result.prompt_token_ids == tokenizer(prompt)["input_ids"]
        for output in result.outputs:
            decoded = tokenizer.decode(output.token_ids, skip_special_tokens=False)
            assert output.text == decoded.removesuffix(tokenizer.eos_token)  # which vLLM does not show
