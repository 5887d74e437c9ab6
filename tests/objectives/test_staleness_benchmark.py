"""benchmarks/staleness.py: its policies are worth what enumeration says, and its corrections agree where they must."""

from __future__ import annotations

import itertools
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openrlhf_maxk.evaluation.scoring.scores_file import save_scores
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores
from openrlhf_maxk.problems.verdict import Verdict

staleness = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "staleness.py")))
SAMPLES = [("a", 0.5, 0), ("a", 0.0, 1), ("a", 0.5, 0), ("a", 1.0, 2), ("b", 0.25, 0), ("b", 0.0, 1), ("b", 0.75, 2)]


@pytest.fixture
def problems(tmp_path: Path):
    groups = {name: [reward for of, reward, _ in SAMPLES if of == name] for name in "ab"}
    names = ("indices", "behaviours", "answers", "tokens", "public", "hidden", "entropy")
    details = Details(
        programs=np.array([program for _, _, program in SAMPLES]),
        **{name: np.zeros(len(SAMPLES)) for name in names},
        verdicts=np.zeros((len(SAMPLES), len(Verdict))),
    )
    save_scores(tmp_path, replace(Scores.from_groups(groups), details=details))
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield staleness.Problems.read(tmp_path)
    torch.set_default_dtype(previous)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_best_of_k_is_that_of_all_draws(problems, k):
    by_hand = []
    for problem in "ab":
        rewards = [reward for name, reward, _ in SAMPLES if name == problem]
        draws = list(itertools.product(rewards, repeat=k))
        by_hand.append(sum(map(max, draws)) / len(draws))
    assert problems.best_of(k, problems.logits[None]).item() == pytest.approx(sum(by_hand) / 2)


def test_corrections_agree_for_one_step_and_part_beyond(problems):
    def after(epochs: int, correction: str) -> torch.Tensor:
        how = staleness.Setting("score", math.inf, 0.3, epochs)
        return staleness.train(problems, 4, 1, how, correction).values

    for correction in ("first", "none"):
        assert torch.allclose(after(1, "exact"), after(1, correction), atol=1e-12)
        assert not torch.allclose(after(4, "exact"), after(4, correction), atol=1e-4)


def test_training_raises_what_it_is_for(problems):
    for loss in ("score", "sequence_clip"):
        found = staleness.train(problems, 8, 1, staleness.Setting(loss, 1.0, 0.5, 3), "exact")
        base = torch.stack([problems.best_of(k, problems.logits[None]) for k in staleness.KS], -1)
        assert (found.values[:, 0] > base[:, 0]).all()
        assert 0 < found.ess <= 1
        assert (found.clipped > 0) == (loss == "sequence_clip")
