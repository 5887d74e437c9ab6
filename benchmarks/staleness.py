"""Where the off-policy correction matters: policies without a network, trained many times, in a minute.

    python benchmarks/staleness.py
    python benchmarks/staleness.py --scores EVALUATION/scores --runs 256 --out staleness.md

Each problem of an evaluation is a policy of its own over the different programs that were sampled for it, with their
rewards; it starts as often at each as that was sampled. Thirty rollouts of 32 problems × 8 samples, several steps of
gradient ascent on the logits over each, as in training: the same samples, μ where they were drawn. As there are no
held-out problems, no Adam and no shared weights, this says what a correction does to the objective, not what it does
to a network. The values at the end are computed from the probabilities, not sampled. A sign behind one: it differs from
the exact correction's, with all comparisons of the table corrected for.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from openrlhf_maxk.evaluation.scoring.scores_file import load_scores
from openrlhf_maxk.objectives import marginal_gain
from openrlhf_maxk.objectives.checks import clamped_ratios

SCORES = Path(__file__).parents[1] / "docs/results/headline/seed 0/base/evaluation/scores"
N, K, PROMPTS, ROLLOUTS = 8, 4, 32, 30
KS = (1, 8, 64)
CLIP = 0.2
_FAR = 50.0  # log-ratios beyond are taken for this: without a clamp, ρ must not be 0
CORRECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exact": lambda rewards, ratios: marginal_gain(rewards, K, ratios),
    "first": lambda rewards, ratios: marginal_gain(rewards, K, ratios, "first"),
    "none": lambda rewards, ratios: marginal_gain(rewards, K),
}


@dataclass(frozen=True)
class Problems:
    """Outcomes of problems, in rising order of reward; ``logits`` are -inf where a problem has fewer than others."""

    rewards: Tensor  # (problems, outcomes)
    logits: Tensor  # (problems, outcomes), of the base model

    @classmethod
    def read(cls, scores: Path) -> Problems:
        kept = load_scores(scores)
        if kept.details is None:
            raise SystemExit(
                f"error: {scores} does not tell which programs are the same: name an evaluation's own, not packed"
            )
        found = []
        for start, end in itertools.pairwise(kept.offsets.tolist()):
            programs = zip(kept.rewards[start:end].tolist(), kept.details.programs[start:end].tolist(), strict=True)
            found.append(sorted((reward, count) for (reward, _), count in Counter(programs).items()))
        shape = len(found), max(map(len, found))
        rewards, logits = torch.zeros(shape), torch.full(shape, -torch.inf)
        for row, of_problem in enumerate(found):
            for column, (reward, count) in enumerate(of_problem):
                rewards[row, column], logits[row, column] = reward, math.log(count)
        return cls(rewards, logits)

    def best_of(self, k: int, logits: Tensor) -> Tensor:
        """max@k of policies of shape (runs, problems, outcomes), mean over problems, shape (runs,)."""
        below = logits.softmax(-1).cumsum(-1).clamp(max=1) ** k
        return (below.diff(dim=-1, prepend=torch.zeros_like(below[..., :1])) * self.rewards).sum(-1).mean(-1)


@dataclass(frozen=True)
class Setting:
    loss: str
    delta_clip: float
    rate: float
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What became of many runs of one setting."""

    values: Tensor  # (runs, KS)
    ess: float  # of ρ after the last step over a rollout, as a share of the group
    clipped: float  # share of the samples that the clip silences in a step


def train(problems: Problems, runs: int, seed: int, how: Setting, correction: str) -> Outcome:
    generator = torch.Generator().manual_seed(seed)
    logits = problems.logits.expand(runs, -1, -1).clone()
    each = torch.arange(runs)[:, None]
    ess, clipped = [], []
    for _ in range(ROLLOUTS):
        chosen = torch.rand(runs, len(problems.logits), generator=generator).argsort(1)[:, :PROMPTS]
        of_chosen = logits[each, chosen]
        behaviour = of_chosen.log_softmax(-1)
        drawn = torch.multinomial(behaviour.exp().flatten(0, 1), N, replacement=True, generator=generator)
        samples = drawn.unflatten(0, chosen.shape)
        rewards, before = problems.rewards[chosen].gather(-1, samples), behaviour.gather(-1, samples)
        for _ in range(how.epochs):
            ratios = (of_chosen.log_softmax(-1).gather(-1, samples) - before).clamp(-_FAR, _FAR).exp()
            clamped, _ = clamped_ratios(ratios, rewards, how.delta_clip)
            weights = CORRECTIONS[correction](rewards, clamped)
            if how.loss == "score":
                weights = weights * clamped
            else:
                silenced = (ratios > 1 + CLIP) & (weights > 0) | (ratios < 1 - CLIP) & (weights < 0)
                clipped.append(silenced.double().mean().item())
                weights = weights * ratios * ~silenced
            pushed = torch.zeros_like(of_chosen).scatter_add(-1, samples, weights)
            of_chosen = of_chosen + how.rate * (pushed - weights.sum(-1, keepdim=True) * of_chosen.softmax(-1))
        ratios = (of_chosen.log_softmax(-1).gather(-1, samples) - before).exp()
        ess.append((ratios.sum(-1) ** 2 / (N * (ratios**2).sum(-1))).mean().item())
        logits[each, chosen] = of_chosen
    values = torch.stack([problems.best_of(k, logits) for k in KS], -1)
    return Outcome(values, sum(ess) / len(ess), sum(clipped) / len(clipped) if clipped else 0.0)


def table(problems: Problems, runs: int, settings: list[Setting]) -> Iterator[str]:
    base = ", ".join(f"max@{k} {problems.best_of(k, problems.logits[None]).item():.3f}" for k in KS)
    alpha = 0.05 / (2 * len(KS) * len(settings))  # Bonferroni's, over the whole table
    yield f"base: {base}; {runs} runs each\n"
    titles = ["loss", "clamp", "rate", "epochs", "correction", "ESS", "clipped", *(f"max@{k}" for k in KS)]
    yield f"| {' | '.join(titles)} |"
    yield f"|---|{'---:|' * (len(titles) - 1)}"
    for how in settings:
        exact = None
        for correction in CORRECTIONS:
            found = train(problems, runs, 1, how, correction)
            exact = exact or found
            setting = [how.loss, f"{how.delta_clip:g}", f"{how.rate:g}", str(how.epochs), correction]
            cells = [*setting, f"{found.ess:.2f}", f"{found.clipped:.2f}", *_cells(found, exact, alpha)]
            yield f"| {' | '.join(cells)} |"


def _cells(found: Outcome, exact: Outcome, alpha: float) -> Iterator[str]:
    """The mean of the runs; a sign where a z-test finds it to differ from the exact correction's.

    Runs count as independent, though those of one setting draw with the same random numbers.
    """
    for column in range(len(KS)):
        ours, theirs = found.values[:, column], exact.values[:, column]
        error = math.sqrt((ours.var() + theirs.var()).item() / len(ours))
        difference = (ours.mean() - theirs.mean()).item()
        z = abs(difference) / error if error else 0.0
        sign = (" −" if difference < 0 else " +") if 2 * NormalDist().cdf(-z) < alpha else ""
        yield f"{ours.mean():.3f}{sign}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scores", type=Path, default=SCORES, help="the scores/ of an evaluation of the base model")
    parser.add_argument("--runs", type=int, default=64, help="of each setting")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 6, 10, 20], help="steps over each rollout")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 2.0], help="step sizes, on logits")
    parser.add_argument("--losses", nargs="+", default=["score", "sequence_clip"], choices=("score", "sequence_clip"))
    parser.add_argument("--clamps", type=float, nargs="+", default=[1.0, math.inf], help="--maxk.delta_clip")
    parser.add_argument("--out", type=Path, help="file to write the table to, besides the terminal")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    settings = [
        Setting(loss, clamp, rate, epochs)
        for loss in options.losses
        for clamp in (options.clamps if loss == "score" else options.clamps[:1])  # ρ does not get as far in a clip
        for rate in options.rates
        for epochs in options.epochs
    ]
    lines = []
    for line in table(Problems.read(options.scores), options.runs, settings):
        print(line, flush=True)
        lines.append(line)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
