"""From vLLM's tokens to the gradient, through everything between: the last token too is trained on, no other is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from openrlhf.trainer.ppo_trainer import RemoteExperienceMaker, SamplesGenerator
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import Group
from openrlhf_maxk.rewards.request import Reward, RewardRequest

from ..rollout.engines import END, Completion, FakeVLLM, Tokenizer, make_actor
from ..rollout.test_sampler import Pool, Reference, make_sampler
from ..rollouts import PAD
from .learning import VOCABULARY, Policy, log_probs_of, make_arguments, make_trainer, objective

N = 4
START = Policy().logits.detach()
MU = START + 0.4 * torch.randn(START.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
ASKED: dict[str, list[Completion]] = {
    "a": [([5, 6, END], "stop"), ([7, 4, 8, 8], "length"), ([END], "stop"), ([6, 6], "abort")],
    "bcd": [([9, END], "stop"), ([3, 3, 7, 3, 10, 3], "length"), ([10, 4, END], "stop"), ([8], "length")],
}
KEPT = {prompt: [sample for sample in samples if sample[1] != "abort"] for prompt, samples in ASKED.items()}


def log_prob(logits: torch.Tensor, before: int, token: int) -> torch.Tensor:
    return logits.log_softmax(-1)[before % VOCABULARY, token % VOCABULARY]


class Actor:
    """Ray's handle of a rollout actor around vLLM with the policy ``MU``."""

    def __init__(self) -> None:
        tokens = {tuple(_tokens(prompt)): samples for prompt, samples in ASKED.items()}
        self._actor = make_actor(FakeVLLM(tokens, lambda before, token: log_prob(MU, before, token).item()))
        self.get_num_unfinished_requests = SimpleNamespace(remote=lambda: Reference(0))
        self.generate_responses = SimpleNamespace(remote=self._generate)

    def _generate(self, hf_tokenizer: Reference, **call: Any) -> Reference:
        return Reference(asyncio.run(self._actor.generate_responses(hf_tokenizer=hf_tokenizer.value, **call)))


class LettersInAll(Pool):
    """The reward of a completion is the number of its letters, in quarters."""

    def submit(self, request: RewardRequest) -> Reference:
        self.pending.append(Reference([Reward(len(text) / 4, None) for text in request.completions]))
        return self.pending[-1]


def _tokens(prompt: str) -> list[int]:
    return Tokenizer()(prompt, add_special_tokens=False)["input_ids"]


def reward_of(tokens: list[int]) -> float:
    return sum(token != END for token in tokens) / 4


@pytest.fixture
def groups(monkeypatch) -> list[Group]:
    """What the sampler makes of the actor's answers."""
    made: SamplesGenerator = make_sampler(monkeypatch, [Actor()], LettersInAll(None), behaviour="rollout", k="2")
    made.tokenizer = Tokenizer()
    made.prompts_dataloader = [([None], [prompt], [prompt], [None]) for prompt in ASKED]
    found, *_ = made.generate_samples(max_len=20, max_new_tokens=6)
    assert made.counts.lost == 1
    return found


def experiences_of(groups: list[Group], args: SimpleNamespace) -> list[Experience]:
    """What the learner receives; only the learner's own log-probs come from elsewhere."""
    strategy, tokenizer = SimpleNamespace(args=args), SimpleNamespace(pad_token_id=PAD)
    maker: Any = RemoteExperienceMaker(None, None, None, None, SimpleNamespace(value=0.0), strategy, tokenizer)
    experiences = maker.split_rollout_samples(groups)
    for experience in experiences:
        experience.action_log_probs = (log_probs_of(START, experience.sequences) * experience.action_mask).float()
        experience.kl = torch.zeros_like(experience.action_log_probs)
    return maker.compute_advantages_and_returns(experiences)


def make_options(micro: int) -> SimpleNamespace:
    args = make_arguments(N, 8, micro, train__max_epochs=1)
    args.maxk.behaviour = "rollout"
    return args


def log_ratio(logits: torch.Tensor, prompt: str, tokens: list[int]) -> torch.Tensor:
    """log π/μ of a completion, from its tokens alone."""
    pairs = list(zip([_tokens(prompt)[-1], *tokens], tokens, strict=False))
    return sum(log_prob(logits, *pair) - log_prob(MU, *pair) for pair in pairs)


def rows(experiences: list[Experience]) -> Iterator[tuple[str, list[int], list[float], bool, float]]:
    """Prompt, trained tokens, their log-probs by vLLM, whether it was cut, reward; of each completion."""
    for experience in experiences:
        for i, mask in enumerate(experience.action_mask.bool()):
            tokens = experience.sequences[i, 1:][mask].tolist()
            behaviour = experience.rollout_log_probs[i][mask].tolist()
            yield experience.prompts[i], tokens, behaviour, bool(experience.truncated[i]), experience.rewards[i].item()


def test_the_sampled_tokens_alone_are_actions_the_end_included_each_with_its_log_prob(groups):
    found = list(rows(experiences_of(groups, make_options(4))))
    assert len(found) == 7
    for prompt, samples in KEPT.items():
        of_prompt = [row[1:] for row in found if row[0] == prompt]
        assert [(tokens, cut) for tokens, _, cut, _ in of_prompt] == [
            (tokens, reason == "length") for tokens, reason in samples
        ]
        for tokens, behaviour, _, reward in of_prompt:
            pairs = zip([_tokens(prompt)[-1], *tokens], tokens, strict=False)
            assert behaviour == pytest.approx([log_prob(MU, *pair).item() for pair in pairs], abs=1e-6)
            assert reward == reward_of(tokens)


@pytest.mark.parametrize("micro", [4, 8, 2], ids=["whole groups", "both at once", "cut"])
def test_the_gradient_is_that_of_the_sampled_tokens(groups, micro):
    args = make_options(micro)
    trainer = make_trainer(experiences_of(groups, args), args)
    status = trainer.ppo_train(0.0)
    (step,) = trainer.strategy.steps

    logits = START.clone().requires_grad_()
    total, count, ratios = torch.zeros((), dtype=torch.float64), 0, []
    for prompt, samples in KEPT.items():
        ratios.append(torch.stack([log_ratio(logits, prompt, tokens) for tokens, _ in samples]).exp())
        rewards = torch.tensor([reward_of(tokens) for tokens, _ in samples], dtype=torch.float64)
        total = total - len(samples) * objective(lambda pair, rewards=rewards: rewards[pair].max(), ratios[-1])
        count += sum(len(tokens) for tokens, _ in samples)
    expected = torch.autograd.grad(total / count, logits)[0]
    scale = expected.abs().max().item()
    torch.testing.assert_close(step.gradient, expected, atol=1e-5 * scale, rtol=1e-4)

    ratios = torch.cat(ratios).detach()
    assert ratios.log().abs().max() > 0.3, "vLLM's policy is another"
    assert status["maxk/ratio_mean"] == pytest.approx(ratios.mean().item(), rel=1e-5)
    assert status["maxk/log_ratio_abs_measured"] == pytest.approx(ratios.log().abs().mean().item(), rel=1e-5)
    assert status["ppo_kl"] * ratios.log().sum() < 0, "KL is counted from μ to π"
    assert status["truncated"] == pytest.approx(3 / 7)
    assert status["response_length"] == pytest.approx(count / 7)
