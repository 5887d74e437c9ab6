"""Micro-batches cut by tokens: as rows, never through a group that fits."""

from __future__ import annotations

import random

import pytest

from openrlhf_maxk.experience.group import FILLER, group_ids
from openrlhf_maxk.experience.sharding import by_tokens, forward_batches, row_tokens

from ..rollouts import random_group, sample

GROUPS = [random_group(i, size, random.Random(i)) for i, size in enumerate((4, 2, 6, 1, 3, 5, 4))]
MEMBERS = [group.members for group in GROUPS]


def numbers(batch):
    return [int(group_ids(member.info)) for member in batch]


def tokens_of(batch):
    """The tokens of a micro-batch as rows, one for each group in it."""
    rows = {}
    for member in batch:
        rows.setdefault(int(group_ids(member.info)), []).append(member)
    return sum(map(row_tokens, rows.values()))


def test_a_row_has_the_prompt_once():
    members = [sample([7, 8, 9], [1, 2], 0.0), sample([7, 8, 9], [1], 0.0), sample([7, 8, 9], [1, 2, 3, 4], 0.0)]
    assert row_tokens(members) == 3 + 2 + 1 + 4
    assert row_tokens(members[:1]) == 5
    padded = sample([7, 8, 9], [1, 2, 0, 0], 0.0)
    padded.attention_mask[:, -2:] = 0
    padded.action_mask[:, -2:] = False
    assert row_tokens([padded, members[1]]) == 3 + 2 + 1


@pytest.mark.parametrize("most", [1, 5, 9, 14, 25, 40, 60, 1000])
def test_everything_is_there_once_and_no_batch_is_too_large(most):
    batches = by_tokens(MEMBERS, most)
    samples = [id(member) for batch in batches for member in batch]
    assert sorted(samples) == sorted(id(member) for group in MEMBERS for member in group)
    for batch in batches:
        assert tokens_of(batch) <= most or len(batch) == 1
    largest = max(map(row_tokens, MEMBERS))
    if most >= largest:
        for group in range(len(GROUPS)):
            assert sum(group in numbers(batch) for batch in batches) == 1, "a group that fits is not cut"
        assert len(batches) <= 2 * -(-sum(map(row_tokens, MEMBERS)) // most), "first fit leaves no two half empty"


def test_a_group_that_is_too_large_is_cut_into_as_few_parts_as_fit():
    members = [sample([1, 2, 3, 4], [5, 6, 7], 0.0) for _ in range(5)]
    assert sorted(len(batch) for batch in by_tokens([members], 10)) == [1, 2, 2]
    assert sorted(len(batch) for batch in by_tokens([members], 9)) == [1] * 5


def test_ranks_get_as_many_micro_batches_as_the_one_with_the_most_tokens():
    short, long = [GROUPS[3]], [GROUPS[0], GROUPS[2], GROUPS[5]]
    batches = forward_batches([short, long], 1, tokens=max(map(row_tokens, MEMBERS)))
    assert len(batches[0]) == len(batches[1]) >= 2
    assert [numbers(batch) for batch in batches[0]] == [[3]] + [[FILLER]] * (len(batches[1]) - 1)
    assert not any(int(batch[0].action_mask.sum()) for batch in batches[0][1:])
