"""Every curve of the metrics list as tables and files get it, against its definition over all subsets."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from openrlhf_maxk.evaluation.statistics.metrics import METRICS, NO_ANSWER, SHARE, UNKNOWN
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores, offsets_of, shown_metrics
from openrlhf_maxk.problems.verdict import Verdict

# One row a sample: reward, share of the public tests passed, number of the answer. The best reward, the best by public
# tests and the most frequent answer are three different samples.
PROBLEMS = [
    [(1.0, 0.5, 0), (0.25, 1.0, 1), (0.5, 0.0, 2), (0.5, 0.5, 2), (0.0, 1.0, NO_ANSWER)],
    [(1.0, 1.0, 0), (1.0, 1.0, 0), (0.0, 0.0, 3), (0.75, 0.0, 3)],
    [(0.0, 0.0, NO_ANSWER), (0.0, 0.0, NO_ANSWER), (1.0, 0.0, 5)],
]


def scores_of(problems) -> Scores:
    rows = [row for problem in problems for row in problem]
    rewards, public = (np.asarray([row[i] for row in rows], dtype=float) for i in (0, 1))
    unknown = np.full(len(rows), -1)
    return Scores(
        ids=tuple(f"p{i}" for i in range(len(problems))),
        sources=("",) * len(problems),
        difficulties=("",) * len(problems),
        offsets=offsets_of([len(problem) for problem in problems]),
        rewards=rewards,
        correct=rewards == 1.0,
        unscored=np.zeros(len(problems), dtype=np.int64),
        details=Details(
            indices=np.arange(len(rows)),
            public=public,
            hidden=rewards,
            programs=unknown,
            behaviours=unknown,
            answers=np.asarray([row[2] for row in rows]),
            verdicts=np.zeros((len(rows), len(Verdict)), dtype=np.int64),
            entropy=np.full(len(rows), np.nan),
            tokens=unknown,
        ),
    )


def mean(values) -> Fraction:
    values = list(values)
    return sum(map(Fraction, values), Fraction(0)) / len(values)


def selected(subset) -> Fraction:
    best = max(public for _, public, _ in subset)
    return mean(reward for reward, public, _ in subset if public == best)


def majority(subset) -> Fraction:
    votes = Counter(answer for _, _, answer in subset if answer != NO_ANSWER)
    if not votes:
        return mean(reward for reward, _, _ in subset)
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return mean(mean(reward for reward, _, answer in subset if answer == winner) for winner in winners)


WORTHS = {
    "max": lambda subset: max(reward for reward, _, _ in subset),
    "pass": lambda subset: any(reward == 1 for reward, _, _ in subset),
    "selected": selected,
    "gap": lambda subset: selected(subset) - Fraction(max(public for _, public, _ in subset)),
    "maj": majority,
    "min": lambda subset: min(reward for reward, _, _ in subset),
    "pass_hat": lambda subset: all(reward == 1 for reward, _, _ in subset),
    "g_pass": lambda subset: sum(reward == 1 for reward, _, _ in subset) >= SHARE * len(subset),
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_the_mean_over_all_subsets(name):
    ks = [1, 2, 3, 4, 5]
    got = scores_of(PROBLEMS).estimates(name, ks)
    for p, problem in enumerate(PROBLEMS):
        for column, k in enumerate(ks):
            if k > len(problem):
                assert np.isnan(got[p, column])
            else:
                want = mean(WORTHS[name](subset) for subset in combinations(problem, k))
                assert got[p, column] == pytest.approx(float(want), abs=1e-12)


def test_what_they_are_called():
    labels = [metric.label(8) for metric in METRICS.values()]
    assert labels == ["max@8", "pass@8", "selected@8", "gap@8", "maj@8", "min@8", "pass^8", "G-Pass@8_0.5"]
    assert set(WORTHS) == set(METRICS)


def test_a_problem_of_which_something_is_not_known_has_no_value_and_the_others_keep_theirs():
    known = scores_of(PROBLEMS)
    no_public = [(reward, np.nan, answer) for reward, _, answer in PROBLEMS[0]]
    one_unknown = [
        (reward, public, UNKNOWN if i == 1 else answer) for i, (reward, public, answer) in enumerate(PROBLEMS[0])
    ]
    for names, problem in ((("selected", "gap"), no_public), (("maj",), one_unknown)):
        partly = scores_of([problem, *PROBLEMS[1:]])
        for name in names:
            assert np.isnan(partly.estimates(name, [1, 2])[0]).all()
            np.testing.assert_allclose(partly.estimates(name, [1, 2])[1:], known.estimates(name, [1, 2])[1:])
            assert partly.curve(name, [2]).problems == [2]
        for other in METRICS.keys() - {*names}:
            np.testing.assert_allclose(partly.estimates(other, [1, 2]), known.estimates(other, [1, 2]))


def test_what_some_evaluation_does_not_know_is_left_out_and_said():
    known = scores_of(PROBLEMS)
    plain = Scores.from_groups({"p0": [1.0, 0.0]})
    no_answers = scores_of([[(reward, public, UNKNOWN) for reward, public, _ in problem] for problem in PROBLEMS])
    assert shown_metrics({"a": known}) == (tuple(METRICS), ())
    shown, left_out = shown_metrics({"a": known, "b": no_answers, "c": plain})
    assert shown == ("max", "pass", "min", "pass_hat", "g_pass")
    assert left_out == (
        "selected@k is left out: no public tests of c are known",
        "gap@k is left out: no public tests of c are known",
        "maj@k is left out: no answers of b, c are known",
    )
    assert shown_metrics({"c": plain})[1][0] == "selected@k is left out: no public tests are known"
