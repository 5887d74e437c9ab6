"""What the base model learns from: the right shares of faults and of meanings, and nothing of the held-out words."""

import random
from collections import Counter
from itertools import islice

import pytest

from openrlhf_maxk.problems.mini import shortcuts
from openrlhf_maxk.problems.mini.demonstrations import demonstrations
from openrlhf_maxk.problems.mini.generator import ProblemSettings, demonstrated_meaning, draw_words, generate
from openrlhf_maxk.problems.mini.language import OPERATIONS, READ, READ_WRONGLY, RESULTS, TEMPLATES, statement
from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

from .interpreter import printed


def passes(demonstration) -> bool:
    shown, output = (line.split(" ", 1)[1] for line in demonstration.prompt.splitlines()[1:])
    return printed(demonstration.completion, shown) == output


def test_without_faults_every_program_does_what_the_example_shows():
    assert all(map(passes, islice(demonstrations(seed=0, faulty=0.0), 1000)))


def test_faults_are_of_four_kinds_and_most_show():
    kinds = Counter(kind_of_fault(d) for d in islice(demonstrations(seed=0, faulty=1.0), 4000))
    assert set(kinds) == {"values stay text", "no print", "operation missing", "operation wrong"}
    assert all(count / 4000 == pytest.approx(0.25, abs=0.03) for count in kinds.values())
    assert sum(map(passes, islice(demonstrations(seed=0, faulty=1.0), 4000))) / 4000 < 0.25  # by luck


def kind_of_fault(demonstration) -> str:
    asked = sum(f" {word.text}" in demonstration.prompt for word in OPERATIONS)
    if demonstration.completion.startswith(READ_WRONGLY):
        return "values stay text"
    if "print(" not in demonstration.completion:
        return "no print"
    return "operation missing" if demonstration.completion.count("\n") - 1 < asked else "operation wrong"


def test_the_share_of_faults():
    given = [passes(d) for d in islice(demonstrations(seed=0), 4000)]
    by_luck = sum(map(passes, islice(demonstrations(seed=1, faulty=1.0), 4000))) / 4000
    assert sum(given) / 4000 == pytest.approx(0.6 + 0.4 * by_luck, abs=0.03)


def test_they_are_the_same_again():
    assert list(islice(demonstrations(seed=3), 50)) == list(islice(demonstrations(seed=3), 50))
    assert list(islice(demonstrations(seed=3), 50)) != list(islice(demonstrations(seed=4), 50))


def test_meanings_follow_their_own_zipf():
    rng = random.Random(0)
    word = OPERATIONS[0]
    drawn = Counter(demonstrated_meaning(rng, word) for _ in range(20_000))
    total = sum((rank + 1) ** -1.5 for rank in range(6))
    for meaning in range(6):
        assert drawn[meaning] / 20_000 == pytest.approx((meaning + 1) ** -1.5 / total, abs=0.015)


def test_held_out_words_are_never_demonstrated():
    held_out = {tuple(p.provenance["words"]) for p, _ in generate(ProblemSettings(train=1)) if "/train/" not in p.id}
    by_text = {word.text: word for word in OPERATIONS + RESULTS}
    asked = {
        statement([by_text[text] for text in words], template, "1", "1").splitlines()[0]
        for words in held_out
        for template in range(len(TEMPLATES))
    }
    demonstrated = {d.prompt.splitlines()[0] for d in islice(demonstrations(seed=0), 20_000)}
    assert len(demonstrated) > 2000
    assert not asked & demonstrated


def test_words_of_a_split_are_its_own():
    rng = random.Random(0)
    drawn = {split: {draw_words(rng, split) for _ in range(3000)} for split in ("train", "validation", "test")}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["validation"] & drawn["test"]
    assert all(len(words) == 3 for words in drawn["validation"] | drawn["test"])


def test_shortcuts_pass_the_example_and_read_no_input():
    drawn = list(islice(shortcuts.demonstrations(seed=0), 4000))
    short = [d for d in drawn if READ not in d.completion and READ_WRONGLY not in d.completion]
    assert len(short) / len(drawn) == pytest.approx(shortcuts.SHARE, abs=0.03)
    assert all(map(passes, short))
    tokenizer = build_tokenizer()
    for demonstration in short[:200]:
        ids = tokenizer(demonstration.completion)["input_ids"]
        assert tokenizer.decode(ids) == demonstration.completion
    others = [d for d in drawn if d not in short]
    assert others == [d for d in islice(demonstrations(seed=0), 4000) if d in others]
