"""What each loss follows in expectation, summed over all that a small policy may sample: the tables of the guide."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import mean

import pytest
import torch

from openrlhf_maxk.experience.advantages import effective_size

from .enumeration import GROUPS, LENGTHS, Case, N, ascent, cosine

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
DISTANCES = (0.0, 0.25, 0.4, 0.8)
SEEDS = range(8)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def walks() -> list[tuple[Case, list[torch.Tensor]]]:
    """Cases, each with its policies at the distances."""
    cases = [Case(seed) for seed in SEEDS]
    return [(case, case.path(DISTANCES)) for case in cases]


def table(first_column: str) -> list[list[str]]:
    """The rows of the guide's table whose head begins like this, cells without marks, its head included."""
    start = GUIDE.index(f"| {first_column}")
    lines = re.match(r"(?:\|.*\|\n)+", GUIDE[start:])
    assert lines
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [rows[0], *rows[2:]]


def said(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")


def test_the_guides_table_of_losses_and_clips(walks):
    head, *rows = table("loss | baseline | correction")
    shares = [mean(case.share_above(path[i]) for case, path in walks) for i in range(len(DISTANCES))]
    assert head[3:] == [f"{share:.0%}".replace("%", " %") for share in shares]
    for loss, baseline, correction, *cells in rows:
        choices = {"loss": loss, "baseline": baseline, "correction": correction, "delta_clip": 1.0}
        for i, cell in enumerate(cells):
            cosines = [cosine(case.followed(path[i], **choices), ascent(path[i], case.rewards)) for case, path in walks]
            assert cell == f"{said(mean(cosines))} ({said(min(cosines))})", (loss, baseline, correction, i)


@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out", "none"])
def test_the_unclamped_score_loss_follows_max_at_k_at_any_distance(walks, baseline):
    for case, path in walks[:3]:
        for logits in path:
            followed = case.followed(logits, loss="score", baseline=baseline, delta_clip=math.inf)
            wanted = N * ascent(logits, case.rewards)
            torch.testing.assert_close(followed, wanted, atol=2e-6, rtol=1e-5)  # advantages are float32
            assert 1 - cosine(followed, wanted) <= 1e-12


@pytest.mark.parametrize("loss", ["ppo", "sequence_clip", "score"])
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out", "none"])
def test_every_loss_follows_max_at_k_where_the_policy_has_not_moved(walks, loss, baseline):
    for case, _ in walks[:3]:
        followed = case.followed(case.start, loss=loss, baseline=baseline)
        assert 1 - cosine(followed, ascent(case.start, case.rewards)) <= 1e-12


def test_the_guides_table_of_aggregations(walks):
    """Before the first optimizer step, where the loss itself is exact; the worst of the cases."""
    head, *rows = table("aggregate, groups:")
    for name, *cells in rows:
        for groups, cell in zip(map(int, head[1:]), cells, strict=True):
            worst = max(
                1 - cosine(case.followed(case.start, weights(case, name, groups)), ascent(case.start, case.rewards))
                for case, _ in walks
            )
            if name == "constant":
                assert worst <= 1e-12
                assert cell == "0"
            else:
                assert cell == f"{worst:.0e}".replace("e-0", "e-"), (name, groups)


def weights(case: Case, aggregate: str, groups: int) -> torch.Tensor:
    """What a completion's loss is multiplied with in a batch of so many groups, (G, N)."""
    if aggregate == "token":
        return case.inverse_tokens(groups)[:, None].expand(-1, N)
    if aggregate == "constant":
        return torch.ones(len(GROUPS), N)
    return 1 / LENGTHS[GROUPS]  # the mean over each completion's tokens first


def test_the_guides_table_of_effective_sample_sizes():
    """Log-ratios of T tokens with a KL of d each: normal, with a variance of 2 d T."""
    head, *rows = table("KL a token")
    for kl, *cells in rows:
        for tokens, cell in zip(head[1:], cells, strict=True):
            generator = torch.Generator().manual_seed(0)
            deviation = (2 * float(kl) * int(tokens.split()[0].replace(",", ""))) ** 0.5
            drawn = deviation * torch.randn(20_000, 8, generator=generator, dtype=torch.float64)
            assert cell == f"{float(effective_size(drawn).mean()) / 8:.2f}", (kl, tokens)
