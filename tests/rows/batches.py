"""Padded batches as OpenRLHF makes them, and small random models of several families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

import openrlhf_maxk

openrlhf_maxk.install()

from openrlhf.models.actor import Actor  # noqa: E402

VOCABULARY = 61
PAD = 0
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
}
WINDOW = {"sliding_window": 5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "output_router_logits": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "Qwen2": {},
    "Llama": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, **WINDOW},
    "Gemma3": {"head_dim": 8, **WINDOW},
    "Mistral": WINDOW,
    "Qwen2Moe": {**EXPERTS, "shared_expert_intermediate_size": 16},
}

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


def make_actor(
    family: str = "Qwen2", temperature: float = 0.8, dtype: torch.dtype = torch.float32, **sizes: Any
) -> Any:
    """OpenRLHF's actor around a random model of a family, as a run makes it from a folder."""
    name = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, name)(**{**SIZES, **FAMILIES.get(family, {}), **sizes})
    config._attn_implementation = sizes.get("attn_implementation", "sdpa")
    torch.manual_seed(3)
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype)
    for parameter in model.parameters():  # Hugging Face's initialization makes nearly uniform predictions
        parameter.data.normal_(0, 0.3) if parameter.dim() > 1 else parameter.data.add_(0.1)
    model.config.use_cache = False
    actor = Actor(model, temperature=temperature)
    actor.is_vlm = actor.packing_samples = False  # what it is given with a folder
    return actor


def batch_of(sequences: Sequences, left: int = 0, right: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids (B, L), action mask (B, L − 1) and attention mask (B, L); every completion token is an action."""
    width = left + right + max(len(prompt) + len(completion) for prompt, completion in sequences)
    ids = torch.full((len(sequences), width), PAD)
    present, actions = torch.zeros_like(ids), torch.zeros(len(sequences), width - 1)
    for row, (prompt, completion) in enumerate(sequences):
        start, end = left, left + len(prompt) + len(completion)
        ids[row, start:end] = torch.tensor([*prompt, *completion])
        present[row, start:end] = 1
        actions[row, start + len(prompt) - 1 : end - 1] = 1
    return ids, actions, present


def random_sequences(groups: Sequence[int], longest: int = 9, seed: int = 0) -> Sequences:
    """Groups of these sizes, with prompts and completions of 1 to ``longest`` tokens."""
    generator = torch.Generator().manual_seed(seed)

    def tokens() -> list[int]:
        size = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return torch.randint(1, VOCABULARY, (size,), generator=generator).tolist()

    return [(prompt, tokens()) for size in groups for prompt in [tokens()] for _ in range(size)]
