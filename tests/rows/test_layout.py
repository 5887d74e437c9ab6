"""A row's layout against what it says in words, one token at a time."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from openrlhf_maxk.rows.attention import _keys, _seen
from openrlhf_maxk.rows.layout import RowLayout

from .batches import batch_of, random_sequences

GROUPS = [[4], [1], [3, 1, 2], [1, 1, 1], [2, 5]]


def flat(parts):
    return list(chain.from_iterable(parts))


def layout_of(sequences, **padding):
    ids, actions, present = batch_of(sequences, **padding)
    return RowLayout.of(ids, present, actions)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("padding", [{}, {"left": 3}, {"right": 2}, {"left": 1, "right": 4}])
def test_prompts_stand_once_and_every_completion_behind_them(groups, padding):
    sequences = random_sequences(groups, seed=sum(groups))
    layout = layout_of(sequences, **padding)
    starts = [sum(groups[:i]) for i in range(len(groups))]
    prompts = [sequences[i][0] for i in starts]
    assert layout.tokens.tolist() == flat(prompts) + flat(completion for _, completion in sequences)
    assert layout.prompts.sizes.tolist() == [len(prompt) for prompt in prompts]
    assert layout.completions.sizes.tolist() == [len(completion) for _, completion in sequences]
    assert layout.owner.tolist() == [g for g, size in enumerate(groups) for _ in range(size)]
    positions = [list(range(len(p))) for p in prompts] + [list(range(len(p), len(p) + len(c))) for p, c in sequences]
    assert layout.positions.tolist() == flat(positions)
    uses = [[size] * len(p) for size, p in zip(groups, prompts, strict=True)] + [[1] * len(c) for _, c in sequences]
    assert layout.uses.tolist() == flat(uses)


@pytest.mark.parametrize("groups", GROUPS)
def test_every_action_is_predicted_from_the_token_before_it(groups):
    sequences = random_sequences(groups, seed=7)
    ids, actions, present = batch_of(sequences, left=2, right=3)
    layout = RowLayout.of(ids, present, actions)
    matrix = torch.full((actions.numel(),), -1)
    matrix[layout.places] = layout.targets
    wanted = torch.where(actions.bool(), ids[:, 1:], -1)
    assert torch.equal(matrix.view(actions.shape), wanted)
    before = iter(layout.tokens[layout.sources].tolist())
    for prompt, completion in sequences:
        whole = [*prompt, *completion]
        for at in range(len(prompt), len(whole)):
            assert next(before) == whole[at - 1]


def test_turns_without_actions_are_part_of_the_completion():
    """Of several turns, what the environment says is seen, and has no log-prob."""
    ids, actions, present = batch_of([([1, 2], [3, 4, 5, 6]), ([1, 2], [7, 8])])
    actions[0, 2:4] = 0  # tokens 4 and 5
    layout = RowLayout.of(ids, present, actions)
    assert layout.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert layout.targets.tolist() == [3, 6, 7, 8]
    assert layout.tokens[layout.sources].tolist() == [2, 5, 2, 7]


def test_prompts_that_begin_alike_or_lie_apart_are_not_shared():
    layout = layout_of([([1, 2, 3], [4]), ([1, 2], [3, 4]), ([1, 2, 3], [5])])
    assert layout.prompts.sizes.tolist() == [3, 2, 3]
    assert layout.owner.tolist() == [0, 1, 2]


def test_a_filler_has_no_completion():
    ids, actions, present = batch_of([([1, 2], [3]), ([1, 2], [3])])
    actions[1] = 0
    layout = RowLayout.of(ids, present, actions)
    assert layout.prompts.sizes.tolist() == [2, 3]
    assert layout.completions.sizes.tolist() == [1, 0]
    assert layout.targets.tolist() == [3]


def test_what_nothing_predicts_is_said():
    ids, actions, present = batch_of([([], [3, 4])], left=1)
    with pytest.raises(ValueError, match="nothing that it is predicted from"):
        RowLayout.of(ids, present, actions)


def seen_by_a_token(layout, window=None):
    """For every completion token, the tokens of the row that it sees, from the masks of the padded matrices."""
    masks = _seen(layout, window)
    longest = layout.prompts.longest
    prompt = layout.prompts.padded.view(-1, longest)[layout.owner]
    own = len(layout.prompts.flat) + layout.completions.padded.view(len(layout.owner), -1)
    places = torch.cat([prompt, own], dim=1)
    return [
        sorted(places[i][masks[i, at]].tolist())
        for i, size in enumerate(layout.completions.sizes.tolist())
        for at in range(size)
    ]


@pytest.mark.parametrize("window", [None, 1, 3, 6, 50])
def test_a_token_sees_its_own_sequence_up_to_itself(window):
    sequences = random_sequences([3, 1, 2], seed=4)
    layout = layout_of(sequences)
    expected = []
    for i, (prompt, completion) in enumerate(sequences):
        start, own = int(layout.prompts.starts[layout.owner[i]]), int(layout.completions.starts[i])
        whole = [*range(start, start + len(prompt)), *range(own, own + len(completion))]
        expected += [whole[: at + 1][-(window or 10**6) :] for at in range(len(prompt), len(whole))]
    assert seen_by_a_token(layout, window) == [sorted(tokens) for tokens in expected]


def test_the_keys_of_completions_follow_each_other():
    sequences = random_sequences([2, 3], seed=9)
    layout = layout_of(sequences)
    assert layout.tokens[_keys(layout)].tolist() == flat([*p, *c] for p, c in sequences)
