"""The word problems: right answers, splits that share no sequence of phrases, demonstrations with their mistakes."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from openrlhf_maxk.problems.mini.splits import ProblemSettings
from openrlhf_maxk.problems.mini.tokenizer import EOS, build_tokenizer
from openrlhf_maxk.problems.mini.words.demonstrations import demonstrations
from openrlhf_maxk.problems.mini.words.generator import generate
from openrlhf_maxk.problems.mini.words.language import LARGEST, PHRASES, Story, statement, vocabulary, written
from openrlhf_maxk.problems.record import Comparison, Mode

SETTINGS = ProblemSettings(train=400, validation=60, test=120)
LONGEST_PROMPT, LONGEST_COMPLETION = 40, 40
PATTERNS = [(phrase, re.compile(phrase.text.replace("{n}", r"\d+") + r"$")) for phrase in PHRASES]


@pytest.fixture(scope="module")
def problems():
    return list(generate(SETTINGS))


def phrases_of(text: str) -> tuple[str, ...]:
    events = text.partition(". ")[0].split(", ")[1:]
    return tuple(next(phrase.text for phrase, pattern in PATTERNS if pattern.match(event)) for event in events)


def right_lines(completion: str) -> list[bool]:
    """Of each line of a calculation, whether it is right."""
    found = re.findall(r"^(\d+) ([-+*/]) (\d+) = (\d+)$", completion, re.M)
    by = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    return [by[operator](int(left), int(right)) == int(result) for left, operator, right, result in found]


def test_the_example_of_the_module():
    share, get = (next(p for p in PHRASES if p.text.startswith(text)) for text in ("shares", "gets {n} more"))
    story = Story((share, get), (share.right[0], 0), 12, (3, 5))
    assert statement(story, "sam", "apples") == (
        "sam has 12 apples, shares them equally with 3 friends, gets 5 more. how many now?\n"
    )
    lines = [line for of_event in story.lines for line in of_event]
    assert written(lines, 8) == "3 + 1 = 4\n12 / 4 = 3\n3 + 5 = 8\n\\boxed{8}"


def test_calculations_are_right_and_end_in_the_answer(problems):
    for problem, solution in problems:
        assert all(right_lines(solution.program))
        assert problem.mode is Mode.ANSWER
        assert problem.judge.comparison is Comparison.MATH
        (test,) = problem.tests
        assert solution.program.endswith(f"= {test.output}\n\\boxed{{{test.output}}}")
        assert 0 <= int(test.output) <= LARGEST


def test_a_tricky_phrase_is_read_the_right_way_and_a_vague_one_in_several(problems):
    readings: dict[str, set[int]] = {phrase.text: set() for phrase in PHRASES}
    for problem, solution in problems:
        numbers = [int(n) for n in re.findall(r"\d+", re.sub(r"each of 2", "", problem.statement))]
        names = phrases_of(problem.statement)
        if len(names) == 1:
            phrase = next(p for p in PHRASES if p.text == names[0])
            n = numbers[1] if "{n}" in phrase.text else 2
            for reading in range(len(phrase.readings)):
                lines = Story((phrase,), (reading,), numbers[0], (n,)).lines
                if lines is not None and solution.program.startswith(written(lines[0], None)):
                    readings[phrase.text].add(reading)
    for phrase in PHRASES:
        assert readings[phrase.text] & set(phrase.right), phrase.text
    usual = Counter(phrase.right == (0,) for phrase in PHRASES if len(phrase.right) == 1 and not phrase.clear)
    assert usual == {True: 3, False: 2}, "most votes are right for some of the phrases, and wrong for others"


def test_splits_share_no_sequence_of_phrases(problems):
    sequences: dict[str, set[tuple[str, ...]]] = {"train": set(), "validation": set(), "test": set()}
    for problem, _ in problems:
        sequences[problem.provenance["split"]].add(phrases_of(problem.statement))
    shown = {phrases_of(d.prompt) for d in islice(demonstrations(0), 3000)}
    assert not (sequences["train"] | shown) & (sequences["validation"] | sequences["test"])
    assert not sequences["validation"] & sequences["test"]
    assert min(len(sequence) for sequence in sequences["test"]) == 2
    assert {phrase for sequence in sequences["test"] for phrase in sequence} == {phrase.text for phrase in PHRASES}


def test_the_same_settings_give_the_same_problems_and_sizes_do_not_matter(problems):
    assert list(generate(SETTINGS)) == problems
    fewer = list(generate(ProblemSettings(train=3, validation=2, test=5)))
    tests = [pair for pair in problems if pair[0].provenance["split"] == "test"]
    assert fewer[-5:] == tests[:5]
    assert next(generate(ProblemSettings(seed=1)))[0].statement != problems[0][0].statement


def test_difficulty_counts_events_and_unclear_phrases(problems):
    clear = {phrase.text for phrase in PHRASES if phrase.clear}
    for problem, _ in problems:
        names = phrases_of(problem.statement)
        assert problem.difficulty == f"{len(names)} events, {sum(name not in clear for name in names)} unclear"


def test_demonstrations_have_the_mistakes_they_are_said_to_have():
    sound = list(islice(demonstrations(seed=0, faulty=0.0), 500))
    assert all(all(right_lines(d.completion)) and d.completion.endswith("}") for d in sound)
    faulty = list(islice(demonstrations(seed=0, faulty=1.0), 2000))
    kinds = Counter(
        "no box" if "boxed" not in d.completion else "slip" if not all(right_lines(d.completion)) else "other"
        for d in faulty
    )
    assert min(kinds[kind] for kind in ("no box", "slip", "other")) > 300
    assert list(islice(demonstrations(seed=3), 20)) == list(islice(demonstrations(seed=3), 20))


def test_text_comes_back_exactly_and_fits(problems):
    tokenizer = build_tokenizer(vocabulary())
    shown = list(islice(demonstrations(0), 500))
    prompts = [p.statement for p, _ in problems] + [d.prompt for d in shown]
    completions = [s.program for _, s in problems] + [d.completion for d in shown]
    for texts, longest in ((prompts, LONGEST_PROMPT), (completions, LONGEST_COMPLETION)):
        ids = tokenizer(texts)["input_ids"]
        assert tokenizer.batch_decode(ids) == texts
        assert tokenizer.unk_token_id not in {i for row in ids for i in row}
        assert max(map(len, ids)) <= longest
    both = tokenizer(prompts[0] + completions[0] + EOS)["input_ids"]
    assert both == [
        *tokenizer(prompts[0])["input_ids"],
        *tokenizer(completions[0])["input_ids"],
        tokenizer.eos_token_id,
    ]
