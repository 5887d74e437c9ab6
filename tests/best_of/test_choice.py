"""The choice among samples: most tests, then the majority, then the first; and none where the machinery failed."""

from __future__ import annotations

import pytest

from openrlhf_maxk.best_of.choice import UndecidedError, choose
from openrlhf_maxk.problems.verdict import Verdict

from .fakes import result


@pytest.mark.parametrize(
    ("programs", "results", "sample"),
    [
        (["a", "b", "c"], {"a": result("PWW"), "b": result("PPW"), "c": result("WWP")}, 1),
        ([None, "a", "b"], {"a": result("WWW"), "b": result("PWW")}, 2),
        ([None, None, "a"], {"a": result("WWW")}, 2),
        # equally many: what most print, be they different programs
        (["a", "b", "c"], {"a": result("PPP", "1"), "b": result("PPP", "2"), "c": result("PPP", " 2\n")}, 1),
        # of those that print the same, the program that was written most often
        (["a", "b", "c", "c"], {"a": result("PPP", "2"), "b": result("PPP", "2"), "c": result("PPP", "2")}, 2),
        # samples vote, not programs
        (["a", "a", "a", "b", "c"], {"a": result("PPP", "1"), "b": result("PPP", "2"), "c": result("PPP", "2")}, 0),
        # what the runner knows answers by, wherever it tells: what is printed may be cut, or not be the answer
        (
            ["a", "b", "c"],
            {"a": result("PPP", "1", "x"), "b": result("PPP", "1", "y"), "c": result("PPP", "2", "y")},
            1,
        ),
        # many that crash have no say against one that ends
        (["a", "a", "b", "c"], {"a": result("PCC"), "b": result("PWC"), "c": result("PWW")}, 3),
        # else the first
        ([None, "b", "a"], {"a": result("PPP", "1"), "b": result("PPP", "2")}, 1),
        # who passes less has no say
        (["a", "b", "c"], {"a": result("PPW", "1"), "b": result("PPW", "2"), "c": result("PWW", "2")}, 0),
        (["a", "a", "a", "b"], {"a": result("PPW", "1"), "b": result("PPP", "2")}, 3),
    ],
)
def test_the_best_is_chosen(programs, results, sample):
    best = choose(programs, results, 3)
    assert best.sample == sample
    assert best.program == programs[sample]
    assert best.verdicts == tuple(test.verdict for test in results[programs[sample]].tests)


def test_what_all_of_them_did_is_told():
    results = {"a": result("PPW", "1"), "b": result("PPP", "2"), "c": result("WCW", "3")}
    best = choose(["a", None, "b", "a", "c", "b"], results, 3)
    assert (best.sample, best.passed, best.votes, best.detail) == (2, 3, 2, "")
    assert (best.passing, best.solving, best.programs, best.lost) == ((4, 4, 2), 2, 5, 0)
    worse = choose(["c", "a"], {"a": results["a"], "c": results["c"]}, 3)
    assert worse.verdicts == (Verdict.PASSED, Verdict.PASSED, Verdict.WRONG)
    assert worse.detail == "wrong"


def test_without_any_program_there_is_a_sample_and_no_program():
    best = choose([None, None], {}, 2)
    assert (best.sample, best.program, best.passed, best.passing, best.programs) == (0, None, 0, (0, 0), 0)


def test_what_could_not_be_run_leaves_no_choice_unless_another_passes_all():
    results = {"a": result("PPW"), "b": result("PPI"), "c": result("PPP")}
    with pytest.raises(UndecidedError, match="1 of 2 samples could not be run: infrastructure_error"):
        choose(["a", "b"], results, 3)
    with pytest.raises(UndecidedError, match="2 of 3 samples"):
        choose(["b", None, "b"], {"b": results["b"]}, 3)
    best = choose(["a", "b", "b", "c", "b"], results, 3)
    assert (best.program, best.passing, best.lost, best.programs) == ("c", (2, 2, 1), 3, 5)


def test_no_sample_is_no_choice():
    with pytest.raises(ValueError, match="no sample"):
        choose([], {}, 1)
