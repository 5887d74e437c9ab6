"""A policy small enough to sum over everything that it may sample: what a loss follows in expectation, exactly.

Sequences of at most three tokens over a vocabulary of three, the last of which ends a sequence; a logit for every token
after every prefix; a reward for every sequence. Groups of N completions are summed over, each with its probability
under μ, and the policy is moved away from μ along the gradient of max@K, as training moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from openrlhf.models.loss import PolicyLoss

from openrlhf_maxk.experience.advantages import group_advantages
from openrlhf_maxk.learner.batch import GroupBatch
from openrlhf_maxk.learner.loss import GroupPolicyLoss
from openrlhf_maxk.options.maxk import MaxKOptions

N, K = 3, 2
VOCABULARY, LONGEST, END = 3, 3, 2
STEP = 0.05  # along the path


def _sequences() -> list[tuple[int, ...]]:
    whole = [(*prefix, END) for length in range(LONGEST) for prefix in product(range(END), repeat=length)]
    return whole + [(*prefix, last) for prefix in product(range(END), repeat=LONGEST - 1) for last in range(END)]


SEQUENCES = _sequences()
PREFIXES = sorted({sequence[:at] for sequence in SEQUENCES for at in range(len(sequence))}, key=lambda p: (len(p), p))
LENGTHS = torch.tensor([len(sequence) for sequence in SEQUENCES])
MASK = (torch.arange(LONGEST) < LENGTHS[:, None]).double()  # (S, LONGEST)
_STATES = torch.tensor([[PREFIXES.index(s[:at]) if at < len(s) else 0 for at in range(LONGEST)] for s in SEQUENCES])
_TOKENS = torch.tensor([[s[at] if at < len(s) else 0 for at in range(LONGEST)] for s in SEQUENCES])
GROUPS = torch.tensor(list(product(range(len(SEQUENCES)), repeat=N)))  # (G, N): every group, in every order


def token_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """log π of every token of every sequence, (S, LONGEST)."""
    return logits.log_softmax(-1)[_STATES, _TOKENS] * MASK


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """π of every sequence, (S,)."""
    return token_log_probs(logits).sum(-1).exp()


def expected_max(logits: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """max@K, by summing over all K-tuples: E max = Σ_r r (P(reward ≤ r)^K − P(reward < r)^K)."""
    chances = probabilities(logits)
    values = rewards.unique()
    at_most = torch.stack([chances[rewards <= value].sum() for value in values]) ** K
    return (values * torch.diff(at_most, prepend=at_most.new_zeros(1))).sum()


def ascent(logits: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """The exact gradient of max@K."""
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad(expected_max(logits, rewards), logits)[0]


class Case:
    """A policy μ and rewards, drawn at random, and the path that exact ascent takes from μ."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.start = torch.randn(len(PREFIXES), VOCABULARY, generator=generator, dtype=torch.float64)
        self.rewards = torch.randint(0, 9, (len(SEQUENCES),), generator=generator).double() / 8
        self.chances = probabilities(self.start)
        self.weights = self.chances[GROUPS].prod(-1)  # of each group

    def token_ratios(self, logits: torch.Tensor) -> torch.Tensor:
        return (token_log_probs(logits) - token_log_probs(self.start)).exp()

    def share_above(self, logits: torch.Tensor, epsilon: float = 0.2) -> float:
        """The share of tokens that μ samples whose ratio is past 1 + ε."""
        sampled = self.chances[:, None] * MASK
        return float((sampled * (self.token_ratios(logits) > 1 + epsilon)).sum() / sampled.sum())

    def path(self, distances: Sequence[float]) -> list[torch.Tensor]:
        """The policies at these distances (the length of the path in logits, multiples of STEP, ascending)."""
        logits, found, steps = self.start.clone(), [], 0
        for distance in distances:
            while steps < round(distance / STEP):
                slope = ascent(logits, self.rewards)
                logits, steps = logits + STEP * slope / slope.norm(), steps + 1
            found.append(logits)
        return found

    def followed(self, logits: torch.Tensor, weights: torch.Tensor | None = None, **choices: Any) -> torch.Tensor:
        """The expected descent direction of a loss at ``logits``: Σ over groups, each with its chance under μ.

        ``weights``, (G, N), are of the completions in their groups, where they are not 1: how a loss aggregates.
        """
        options = MaxKOptions.make(k=K, min_ess=0.0, **choices)
        logits = logits.detach().requires_grad_()
        rows = GROUPS.flatten()
        now, then = token_log_probs(logits)[rows], token_log_probs(self.start)[rows]
        numbers = torch.arange(len(GROUPS)).repeat_interleave(N)
        rewards, ks = self.rewards[rows], torch.full_like(rows, K)
        computed = group_advantages(numbers, rewards, (now - then).sum(-1).detach(), ks, options)
        chances = self.weights[:, None] * (torch.ones(N) if weights is None else weights)
        computed.values = computed.values.double() * chances.flatten()  # every loss is homogeneous in A
        loss = GroupPolicyLoss(PolicyLoss(), options)
        loss.batch, loss.computed = GroupBatch(numbers, rewards, ks, torch.zeros_like(rewards)), computed
        value, *_ = loss(now, then, torch.zeros_like(now), MASK[rows], batch_num_tokens=1.0)
        return -torch.autograd.grad(value, logits)[0]

    def inverse_tokens(self, groups: int) -> torch.Tensor:
        """E[1 / number of tokens] of a batch of so many groups, given one of them, (G,)."""
        tokens = LENGTHS[GROUPS].sum(-1)
        one = torch.zeros(N * LONGEST + 1, dtype=torch.float64).index_add(0, tokens, self.weights)
        others = torch.ones(1, dtype=torch.float64)
        for _ in range(groups - 1):
            padded = torch.nn.functional.pad(others, (len(one) - 1, len(one) - 1))
            others = torch.nn.functional.conv1d(padded[None, None], one.flip(0)[None, None])[0, 0]
        return (others / (tokens[:, None] + torch.arange(len(others))).clamp(min=1)).sum(-1)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))
