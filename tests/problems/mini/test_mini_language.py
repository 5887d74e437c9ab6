"""Words, their meanings and the programs they stand for."""

import itertools

import pytest

from openrlhf_maxk.problems.mini.language import OPERATIONS, RESULTS, TEMPLATES, Task, Word, statement
from openrlhf_maxk.problems.mini.splits import bucket

from .interpreter import printed, random_lists

WORDS = OPERATIONS + RESULTS
AMBIGUOUS = [word for word in WORDS if word.ambiguous]


def results_of(task: Task) -> tuple[str | None, ...]:
    return tuple(task.run(values) for values in random_lists(300))


def alone(word: Word, meaning: int) -> Task:
    numbers = next(w for w in RESULTS if w.text == "numbers")
    return Task((word, numbers), (meaning, 0)) if word in OPERATIONS else Task((word,), (meaning,))


def test_the_vocabulary_of_the_world():
    assert len(AMBIGUOUS) == 13
    assert len({word.text for word in WORDS}) == len(WORDS) == 23


@pytest.mark.parametrize("word", AMBIGUOUS, ids=lambda word: word.text)
def test_the_meanings_of_a_word_differ_in_what_they_do(word):
    assert len(word.meanings) == 6
    assert len({results_of(alone(word, i)) for i in range(6)}) == 6


@pytest.mark.parametrize("word", AMBIGUOUS, ids=lambda word: word.text)
def test_the_intended_order_is_another_than_the_demonstrated_one(word):
    assert sorted(word.ranking) == list(range(6))
    assert word.ranking[0] != 0
    assert sum(position == i for position, i in enumerate(word.ranking)) <= 2


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.text)
def test_what_a_task_runs_is_what_its_program_does(word):
    for meaning in range(len(word.meanings)):
        task = alone(word, meaning)
        for values in random_lists(50):
            assert printed(task.program, " ".join(map(str, values))) == task.run(values), task.program


def test_operations_apply_in_order():
    doubled, evens, count = (next(w for w in WORDS if w.text == text) for text in ("doubled", "evens", "count"))
    assert Task((doubled, evens, count), (0, 0, 0)).run([1, 2, 3]) == "3"
    assert Task((evens, doubled, count), (0, 0, 0)).run([1, 2, 3]) == "1"


def test_a_program_that_raises_has_no_result():
    positives, maximum = (next(w for w in WORDS if w.text == text) for text in ("positives", "maximum"))
    assert Task((positives, maximum), (0, 0)).run([-1, -2]) is None


def test_difficulty_counts_words():
    large, trim, doubled, numbers, total = (
        next(w for w in WORDS if w.text == text) for text in ("large", "trim", "doubled", "numbers", "total")
    )
    assert Task((large, doubled, numbers), (0, 0, 0)).difficulty == "1 ambiguous, 1 clear"
    assert Task((large, trim, total), (0, 0, 0)).difficulty == "3 ambiguous, 0 clear"


def test_statements_tell_words_and_templates_apart():
    sequences = [(*ops, r) for n in (1, 2) for ops in itertools.permutations(OPERATIONS, n) for r in RESULTS]
    texts = {statement(words, t, "1", "2") for words in sequences for t in range(len(TEMPLATES))}
    assert len(texts) == len(sequences) * len(TEMPLATES)


def test_buckets_depend_on_nothing_but_the_words():
    large, total = OPERATIONS[0], RESULTS[0]
    assert (large.text, total.text) == ("large", "total")
    # SHA-256 of "large total" starts with these eight bytes.
    assert bucket(f"{large.text} {total.text}", 2**64) == 0xDD8B0EE7E14CBDB7
