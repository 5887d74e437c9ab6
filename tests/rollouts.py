"""Rollout samples as OpenRLHF makes them: single-sample Experiences, response after prompt, right-padded nowhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import Group

PAD = 0
PROMPTS = 1000  # the first token of every prompt is its group's number above this


def sample(prompt: Sequence[int], response: Sequence[int], reward: float, seed: int = 0) -> Experience:
    """One completion; log-probs are random numbers, which nothing may mix up."""
    tokens = torch.tensor([[*prompt, *response]])
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, tokens.shape[1] - 1, dtype=torch.bool)
    mask[0, len(prompt) - 1 :] = True
    log_probs = -torch.rand(mask.shape, generator=generator) - 0.1
    return Experience(
        sequences=tokens,
        attention_mask=torch.ones_like(tokens),
        action_mask=mask,
        action_log_probs=log_probs,
        rollout_log_probs=log_probs + 0.01 * torch.randn(mask.shape, generator=generator),
        rewards=torch.tensor([reward]),
        scores=torch.tensor([reward]),
        response_length=torch.tensor([len(response)]),
        truncated=torch.tensor([False]),
        total_length=torch.tensor([tokens.shape[1]]),
        prompts=[" ".join(map(str, prompt))],
        labels=[str(prompt[0])],
        info={"response_length": torch.tensor([len(response)])},
    )


def random_group(number: int, size: int, source: random.Random, longest: int = 6) -> Group:
    """A group of random lengths, tokens and rewards."""
    prompt = [PROMPTS + number, *(source.randint(1, 99) for _ in range(source.randint(0, longest)))]
    members = []
    for _ in range(size):
        response = [source.randint(1, 99) for _ in range(source.randint(1, longest))]
        members.append(sample(prompt, response, source.randint(-4, 4) / 4, source.getrandbits(30)))
    return Group(number, members)


def arguments(**values: object) -> SimpleNamespace:
    """Nested arguments as OpenRLHF's ``hierarchize`` makes them; names with ``__`` for the dot."""
    root = SimpleNamespace()
    for name, value in values.items():
        *path, last = name.split("__")
        node = root
        for part in path:
            if not hasattr(node, part):
                setattr(node, part, SimpleNamespace())
            node = getattr(node, part)
        setattr(node, last, value)
    return root
