"""The generated problems: the same ones everywhere, in splits that share nothing, each with a solution that passes."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from openrlhf_maxk.problems.mini.generator import (
    HIDDEN_TESTS,
    MINIMUM_OUTPUTS,
    SPLITS,
    ProblemSettings,
    generate,
    intended_meaning,
)
from openrlhf_maxk.problems.mini.language import NUMBERS, OPERATIONS, RESULTS
from openrlhf_maxk.problems.record import Mode
from openrlhf_maxk.problems.verdict import Verdict

from .interpreter import printed

SMALL = ProblemSettings(train=40, validation=10, test=20)
DIGEST_OF_SMALL = "946a9f87500d79d1"


def digest(settings: ProblemSettings) -> str:
    content = [(p.id, p.statement, [(t.input, t.output) for t in p.tests], s.program) for p, s in generate(settings)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def pairs():
    return list(generate(ProblemSettings()))


@pytest.fixture(scope="module")
def splits(pairs):
    return {split: [p for p, _ in pairs if p.provenance["split"] == split] for split in SPLITS}


def test_the_same_problems_on_every_machine():
    """The digest changes only with the benchmark itself: figures are then not comparable with older ones."""
    assert digest(SMALL) == DIGEST_OF_SMALL


def test_the_same_problems_whatever_the_hash_seed():
    program = "from tests.problems.mini.test_mini_problems import *; print(digest(SMALL))"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=Path(__file__).parents[3],
            check=True,
            capture_output=True,
            text=True,
        )
        assert run.stdout.strip() == DIGEST_OF_SMALL


def test_another_seed_gives_other_problems():
    first, second = ({p.statement for p, _ in generate(ProblemSettings(seed, 40, 10, 20))} for seed in (0, 1))
    assert not first & second


def test_a_split_does_not_depend_on_the_size_of_the_others():
    held_out = [pair for pair in generate(SMALL) if "/test/" in pair[0].id]
    assert held_out == [
        pair for pair in generate(ProblemSettings(train=1, validation=1, test=20)) if "/test/" in pair[0].id
    ]


def test_counts_and_names(splits):
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 2000,
        "validation": 96,
        "test": 256,
    }
    for split, problems in splits.items():
        assert [p.id for p in problems] == [f"mini/{split}/{i:05d}" for i in range(len(problems))]
        assert all(p.source == "mini" and p.mode is Mode.STDIN for p in problems)


def test_splits_share_no_words_and_no_statement(splits):
    words = {split: {tuple(p.provenance["words"]) for p in problems} for split, problems in splits.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not words[one] & words[other]
    statements = [p.statement for problems in splits.values() for p in problems]
    assert len(set(statements)) == len(statements)


def test_no_task_twice(pairs):
    assert len({(tuple(p.provenance["words"]), s.program) for p, s in pairs}) > 0.95 * len(pairs)


def test_every_meaning_is_met_in_training(pairs):
    programs = "\n".join(s.program for p, s in pairs if "/train/" in p.id)
    for word in OPERATIONS:
        assert all(f"a = {meaning}\n" in programs for meaning in word.meanings), word.text
    for word in RESULTS:
        assert all(f"print({meaning})" in programs for meaning in word.meanings), word.text


def test_every_solution_passes_all_its_tests(pairs):
    for problem, solution in pairs:
        assert solution.problem_id == problem.id
        for test in problem.tests:
            assert printed(solution.program, test.input) == test.output != ""


def test_the_tests_of_a_problem(pairs):
    for problem, _ in pairs:
        shown, *hidden = problem.tests
        assert problem.public_tests == 1
        assert problem.statement.endswith(f"\nin {shown.input}\nout {shown.output}\n")
        assert len(hidden) == HIDDEN_TESTS
        assert len({test.input for test in problem.tests}) == 1 + HIDDEN_TESTS
        assert len({test.output for test in hidden}) >= MINIMUM_OUTPUTS
        for test in hidden:
            values = [int(value) for value in test.input.split()]
            assert 1 <= len(values) <= 8
            assert all(-9 <= value <= 12 for value in values)
        assert all(int(number) in NUMBERS for number in (shown.input + " " + shown.output).split())


def test_no_constant_solves_much(pairs):
    most = [Counter(t.output for t in p.tests[1:]).most_common(1)[0][1] for p, _ in pairs]
    assert max(most) <= HIDDEN_TESTS - MINIMUM_OUTPUTS + 1
    assert sum(most) / len(most) < 3


def test_statements_do_not_give_the_solution_away(pairs):
    for problem, solution in pairs:
        assert solution.program not in problem.statement
        assert "print(" not in repr(problem)


def test_words_are_ambiguous(splits):
    """Each problem has an ambiguous word; held-out ones come in all mixes that two operations and a result allow."""
    assert all("0 ambiguous" not in p.difficulty for problems in splits.values() for p in problems)
    assert {p.difficulty for p in splits["test"]} == {
        "1 ambiguous, 1 clear",
        "1 ambiguous, 2 clear",
        "2 ambiguous, 0 clear",
        "2 ambiguous, 1 clear",
        "3 ambiguous, 0 clear",
    }


def test_the_intended_meanings_follow_zipf():
    rng = random.Random(0)
    word = OPERATIONS[0]
    drawn = Counter(intended_meaning(rng, word) for _ in range(20_000))
    total = sum(1 / (rank + 1) for rank in range(6))
    for rank, meaning in enumerate(word.ranking):
        assert drawn[meaning] / 20_000 == pytest.approx(1 / (rank + 1) / total, abs=0.015)


def test_more_problems_than_there_are_is_an_error(monkeypatch):
    from openrlhf_maxk.problems.mini import generator

    monkeypatch.setattr(generator, "_PATIENCE", 3)  # gives up early
    with pytest.raises(ValueError, match=r"the validation split has about \d+ different problems; 1000000 were asked"):
        list(generate(ProblemSettings(train=1, validation=1_000_000, test=1)))


@pytest.mark.slow
def test_every_solution_passes_in_the_sandbox(pairs):
    from openrlhf_maxk.rewards.execution.executor import Executor

    chosen = pairs[::10]
    with Executor() as executor:
        results = executor.run_many([(solution.program, problem) for problem, solution in chosen])
        wrong = executor.run_many([("a = input()\nprint(a)", problem) for problem, _ in chosen[:20]])
    assert all(test.verdict is Verdict.PASSED for result in results for test in result.tests)
    assert all(result.scored and result.all_passed == 0.0 for result in wrong)
