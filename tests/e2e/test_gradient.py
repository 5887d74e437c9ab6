"""One step of the real pipeline on two ranks against a one-process reference: autograd through F(ρ(θ)) in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from openrlhf_maxk.experience.group import FILLER

from . import pipeline

N, K = 4, 2
pytestmark = pytest.mark.slow


# ZeRO stage, --train.batch_size and --train.micro_batch_size, --rollout.batch_size: two optimizer steps an epoch; and
# the most tokens in a micro-batch, where those decide: a group has about 60.
CASES = {
    "zero3-whole-groups": (3, 16, 4, 8, None),
    "zero2-cut-groups": (2, 24, 3, 12, None),
    "zero3-groups-cut-by-tokens": (3, 16, 4, 8, 50),
    "zero2-whole-groups-by-tokens": (2, 24, 4, 12, 150),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def record(request, tmp_path_factory):
    stage, batch, micro, prompts, tokens = request.param
    folder = tmp_path_factory.mktemp("gradient")
    pipeline.make_model(folder / "model")
    pipeline.make_data(folder / "data.jsonl", prompts)
    pipeline.make_reward(folder / "reward.py")
    options = pipeline.arguments(
        folder,
        maxk__k=K,
        maxk__loss="score",
        maxk__baseline="none",
        maxk__delta_clip="inf",
        maxk__min_ess=0,
        maxk__aggregate="token",
        ds__zero_stage=stage,
        actor__num_gpus_per_node=2,
        actor__max_norm=0,
        actor__adam__lr=5e-5,
        train__batch_size=batch,
        train__micro_batch_size=micro,
        rollout__batch_size=prompts,
        rollout__micro_batch_size=5,
        train__max_epochs=2,
        train__dynamic_batch_enable=tokens is not None or None,
        train__max_tokens_per_gpu=tokens,
    )
    file = folder / "record.pt"
    script = Path(pipeline.__file__).with_name("run_recorded.py")
    done = pipeline.run([str(script), *options], MAXK_TEST_RECORD=str(file))
    assert done.returncode == 0, done.stdout[-5000:]
    recorded = torch.load(file, weights_only=False)
    # Both ways to come by the log-probs of the policy that sampled are compared with the objective's gradient.
    assert recorded["left_out"] == (tokens is not None or micro % N == 0)
    return folder, recorded


def objective(rewards: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """F(ρ): the mean over subsets of the product of their ratios times their best reward."""
    subsets = list(itertools.combinations(range(len(rewards)), K))
    return sum(ratios[list(s)].prod() * rewards[list(s)].max() for s in subsets) / math.comb(len(rewards), K)


def test_gradients_of_every_step_are_those_of_the_objective(record):
    from transformers import AutoModelForCausalLM

    folder, recorded = record
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64, attn_implementation="eager")
    model.eval()
    groups: dict[int, list[dict]] = {}
    for row in recorded["rows"]:
        groups.setdefault(row["group"], []).append(row)
    assert all(len(group) == N for group in groups.values())
    model.load_state_dict({n: v.double() for n, v in recorded["steps"][0]["parameters"].items()}, strict=False)
    with torch.no_grad():  # of the policy that sampled, which the learner computes at different moments
        behaviour = {id(row): log_prob(model, row) for row in recorded["rows"]}
    drift = []
    for step in recorded["steps"]:
        step["groups"] = [group for group in step["groups"] if group != FILLER]
        model.load_state_dict({name: value.double() for name, value in step["parameters"].items()}, strict=False)
        model.zero_grad()
        tokens = sum(float(row["mask"].sum()) for g in step["groups"] for row in groups[g])
        total = torch.zeros((), dtype=torch.float64)
        for g in step["groups"]:
            log_ratios = torch.stack([log_prob(model, row) - behaviour[id(row)] for row in groups[g]])
            drift.append(log_ratios.detach().abs().max().item())
            rewards = torch.tensor([row["reward"] for row in groups[g]], dtype=torch.float64)
            total = total - N / tokens * objective(rewards, log_ratios.exp())
        total.backward()
        for name, parameter in model.named_parameters():
            expected, found = parameter.grad, step["gradients"][name].double()
            scale = expected.abs().max().clamp(min=1e-12)
            assert ((expected - found).abs().max() / scale).item() < 1e-4, name
    assert len(recorded["steps"]) >= 4
    assert max(drift) > 0.05


def test_before_the_first_step_the_advantages_are_the_on_policy_ones(record):
    from openrlhf_maxk.objectives import on_policy_weights

    _, recorded = record
    groups: dict[int, list[dict]] = {}
    for row in recorded["rows"]:
        groups.setdefault(row["group"], []).append(row)
    for group in groups.values():
        rewards = torch.tensor([row["reward"] for row in group], dtype=torch.float64)
        expected = N * on_policy_weights(rewards, K)
        torch.testing.assert_close(
            torch.tensor([row["advantage"] for row in group], dtype=torch.float64), expected, atol=1e-6, rtol=1e-6
        )


def log_prob(model: torch.nn.Module, row: dict) -> torch.Tensor:
    """log π(y|x) of one row, with gradient."""
    sequence = row["sequence"][None]
    logits = model(sequence).logits[0, :-1]
    log_probs = logits.log_softmax(-1).gather(-1, sequence[0, 1:, None]).squeeze(-1)
    mask = row["mask"].double()
    return (log_probs[-len(mask) :] * mask).sum()
