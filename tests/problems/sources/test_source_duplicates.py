"""Near-duplicates: the index finds exactly what comparing every pair with sets finds."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.problems.sources.preparation.decontaminate import (
    COMMON,
    FEWEST,
    Fingerprint,
    Index,
    fingerprint,
    read_fingerprints,
    repeats,
    write_fingerprints,
)
from openrlhf_maxk.problems.sources.source import SourceError

from .accounts import adds_up, dropped
from .conftest import Prepare
from .originals import CODECONTESTS, CODEFORCES, contest, forces, live_code, story, write_json_lines, write_parquet

NGRAM = 3
WORDS = st.sampled_from(["one", "two", "red", "blue", "cat", "dog"])
STATEMENTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join), min_size=1, max_size=30)


def grams(statement: str) -> set[tuple[str, ...]]:
    words = statement.split()
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def brute_force(known: list[str], statement: str, overlap: float) -> dict[int, float]:
    """Every known statement that the given one is a duplicate of, with the share of what they have in common."""
    counts = Counter(gram for other in known for gram in grams(other))
    found: dict[int, float] = {}
    for position, other in enumerate(known):
        a, b = ({g for g in grams(s) if counts[g] <= COMMON} for s in (statement, other))
        smaller = min(len(a), len(b))
        if statement and statement == other and known.index(other) == position:
            found[position] = 1.0
        elif overlap and smaller >= FEWEST and len(a & b) >= overlap * smaller:
            found[position] = len(a & b) / smaller
    return found


@settings(max_examples=150)
@given(STATEMENTS, st.lists(WORDS, max_size=14).map(" ".join), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_index_agrees_with_comparing_every_pair(known: list[str], statement: str, overlap: float) -> None:
    index = Index([fingerprint(s, NGRAM) for s in known], overlap)
    ours = {m.position: m.share for m in index.find_all(fingerprint(statement, NGRAM))}
    theirs = brute_force(known, statement, overlap)
    assert ours.keys() == theirs.keys()
    assert all(ours[p] == 1.0 or ours[p] == pytest.approx(theirs[p]) for p in ours)


@settings(max_examples=100)
@given(STATEMENTS)
def test_what_stays_are_no_duplicates_and_what_goes_has_one(statements: list[str]) -> None:
    prints = [fingerprint(s, NGRAM) for s in statements]
    gone = repeats(prints, 0.5)
    stays = [i for i in range(len(statements)) if i not in gone]
    for i, s in enumerate(statements):
        earlier = {p for p in brute_force(statements, s, 0.5) if p < i and p in stays}
        earlier |= {p for p in stays if p < i and s and statements[p] == s}
        assert (i in gone) == bool(earlier)
        assert i in stays or gone[i] == min(earlier)


def test_common_phrases_say_nothing() -> None:
    phrase = "the first line of the input contains a single integer the number of test cases in the file"
    known = [f"{phrase}. {story(i)}" for i in range(COMMON + 5)]
    index = Index([fingerprint(s, 8) for s in known], 0.5)
    assert index.find(fingerprint(f"{phrase}. A short new task follows now.", 8)) is None
    assert Index([fingerprint(known[0], 8)], 0.1).find(fingerprint(f"{phrase}. A short new task.", 8)) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Given $$$n$$$ integers, $$$1 \\le n \\le 10^5$$$.", "Given n integers,  1 ≤ n ≤ 10^5 ."),
        ("Print  YES\r\nor NO", "print yes or NO."),
        ("ﬁnd the café", "find the CAFÉ"),
    ],
)
def test_spelling_does_not_matter(first: str, second: str) -> None:
    assert fingerprint(first, 8).digest == fingerprint(second, 8).digest


def test_numbers_do_matter_to_the_hash() -> None:
    assert fingerprint("Find the 2nd largest", 8).digest != fingerprint("Find the 3rd largest", 8).digest


def test_copies_with_changes_are_found_and_others_are_not() -> None:
    index = Index([fingerprint(story(i), 8) for i in range(300)], 0.5)
    draw = random.Random(5)
    for i in range(0, 300, 7):
        words = story(i).split()
        words[draw.randrange(len(words))] = "changed"
        match = index.find(fingerprint(f"{' '.join(words[:-3])} Input A line. Output A line.", 8))
        assert match is not None
        assert match.position == i
    assert [index.find(fingerprint(story(i), 8)) for i in range(300, 400)] == [None] * 100


def test_fingerprints_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [(f"id{i}", i % 2 == 0, fingerprint(story(i), 8, (f"codeforces:{i}/A",))) for i in range(5)]
    write_fingerprints(tmp_path, rows)
    ids, prints = read_fingerprints(tmp_path, "all")
    assert ids == [i for i, _, _ in rows]
    for (_, _, ours), theirs in zip(rows, prints, strict=True):
        assert (ours.digest, ours.names) == (theirs.digest, theirs.names)
        assert np.array_equal(ours.ngrams, theirs.ngrams)
    assert read_fingerprints(tmp_path, "kept")[0] == ["id0", "id2", "id4"]


def test_an_empty_statement_is_like_no_other() -> None:
    empty = Fingerprint("", np.empty(0, np.uint64))
    assert repeats([empty, empty, fingerprint("", 8), fingerprint("!?", 8)], 0.5) == {}


def test_repeats_within_a_data_set(prepare: Prepare, tmp_path: Path) -> None:
    near = re.sub(r"\w+\.", "otherwise.", story(2), count=1)
    rows = [contest(1), contest(2), contest(3, description=story(1)), contest(4, description=near), contest(5)]
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, CODECONTESTS)
    expected = {"keep": {}, "exact": {2: "of codecontests/p00001 Sum"}}
    expected["near"] = expected["exact"] | {3: "of codecontests/p00002 Sum"}
    for within, gone in expected.items():
        manifest = prepare("codecontests", source, tmp_path / within, within=within)
        assert adds_up(manifest)
        assert {row: detail for row, (_, detail) in dropped(tmp_path / within).items()} == gone
        assert set(manifest["counts"]["dropped"]) == ({"repeated"} if gone else set())


def test_training_problems_that_are_in_an_evaluation_set(prepare: Prepare, tmp_path: Path) -> None:
    """Both ways: CodeContests without LiveCodeBench, and CodeForces without all that CodeContests has, kept or not."""
    shard = write_json_lines(tmp_path / "test.jsonl", [live_code(1, question_content=story(1)), live_code(2)])
    prepare("livecodebench", shard, tmp_path / "lcb", release="v1")
    hard = contest(3, difficulty=9, source=2, cf_contest_id=100, cf_index="A")
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", [contest(1), contest(2), hard], CODECONTESTS)
    manifest = prepare("codecontests", source, tmp_path / "cc", decontaminate=str(tmp_path / "lcb"))
    assert adds_up(manifest)
    assert manifest["counts"]["dropped"] == {"in_livecodebench": 1, "too_hard": 1}
    assert dropped(tmp_path / "cc")[0] == ("in_livecodebench", "livecodebench/abc401_a, overlap 1.00")
    assert [d["data_set"] for d in manifest["decontaminated_against"]] == ["livecodebench"]

    rows = [forces(0), forces(1, aliases=["100/A"]), forces(2, description=story(2)), forces(3, description=story(3))]
    rows.append(forces(4))
    test = write_parquet(tmp_path / "cf" / "test-00000-of-00001.parquet", rows, CODEFORCES)
    for against, expected in (("all", [0, 1, 2, 3]), ("kept", [2])):
        out = tmp_path / f"cf-{against}"
        options = {"decontaminate": str(tmp_path / "cc"), "decontaminate_against": against}
        manifest = prepare("codeforces", test, out, **options)
        assert adds_up(manifest)
        assert list(dropped(out)) == expected, dropped(out)
        assert manifest["counts"]["dropped"] == {"in_codecontests": len(expected)}


def test_folders_that_cannot_be_compared_with_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", [contest(1), contest(2)], CODECONTESTS)
    with pytest.raises(SourceError, match=r"nothing is not a prepared folder"):
        prepare("codecontests", source, decontaminate=str(tmp_path / "nothing"))
    prepare("codecontests", source, tmp_path / "first")
    with pytest.raises(SourceError, match="was prepared with --ngram 8: use the same"):
        prepare("codecontests", source, decontaminate=str(tmp_path / "first"), ngram=5)
    with pytest.raises(SourceError, match=r"no problem is left: 2 in_codecontests .*check --source"):
        prepare("codecontests", source, decontaminate=str(tmp_path / "first"))
