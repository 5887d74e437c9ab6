"""Groups stay whole from rollout to optimizer step, whatever their sizes and lengths: every regrouping in between."""

from __future__ import annotations

import pickle
import random
from types import SimpleNamespace
from unittest import mock

import pytest
import ray
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openrlhf.trainer.ppo_utils.experience import Experience, make_experience_batch
from openrlhf.trainer.ray.launcher import RayActorGroup

from openrlhf_maxk.experience.group import FILLER, SEQUENCE_ADVANTAGE, Group
from openrlhf_maxk.experience.maker import GroupExperience
from openrlhf_maxk.experience.sharding import even_chunks, shard
from openrlhf_maxk.learner.batch import GroupBatch
from openrlhf_maxk.learner.buffer import GroupReplayBuffer, count_steps, cut_by_count, optimizer_steps
from openrlhf_maxk.options.maxk import KSchedule, MaxKOptions

from ..rollouts import PAD, PROMPTS, arguments, random_group

EPOCHS = 3


class Handle:
    """Stands for one Ray actor: keeps what ``execute_batch`` was called with, pickled as on its way through Ray."""

    def __init__(self) -> None:
        self.execute_batch = SimpleNamespace(remote=self._execute_batch)

    def _execute_batch(self, method: str, data: dict, start: int, end: int) -> None:
        self.received = pickle.loads(pickle.dumps(data["experience"][start:end]))


def experience_of(groups: list[Group], n: int, ranks: int, rows: int) -> list[Experience]:
    """The experience maker's micro-batches of ``groups``."""
    maker = object.__new__(GroupExperience)
    maker.args = arguments(
        rollout__n_samples_per_prompt=n,
        rollout__micro_batch_size=rows,
        train__dynamic_batch_enable=False,
        actor__num_nodes=1,
        actor__num_gpus_per_node=ranks,
    )
    maker.maxk, maker.progress = MaxKOptions(k=KSchedule(2, 2)), 0.0
    maker.tokenizer = SimpleNamespace(pad_token_id=PAD)
    experiences = maker.split_rollout_samples(groups)
    for experience in experiences:
        assert len(experience.sequences) <= rows
        experience.info[SEQUENCE_ADVANTAGE] = 3 * experience.rewards
        experience.advantages = experience.returns = experience.action_log_probs * 2
    return experiences


def dealt(experiences: list[Experience], ranks: int) -> list[list[Experience]]:
    """What every rank receives, by upstream's own method."""
    group = object.__new__(RayActorGroup)
    group._actor_handlers, group.duplicate_actors = [Handle() for _ in range(ranks)], 1
    with mock.patch.object(ray, "put", lambda value: value):
        group.async_run_method_batch("append", experience=experiences)
    return [handle.received for handle in group._actor_handlers]


def rows_of(batch: Experience) -> list[tuple]:
    """The rows of a batch without padding, as comparable values; the group id first."""
    columns = GroupBatch.of(batch)
    rows = []
    for i, number in enumerate(columns.groups.tolist()):
        length = int(batch.attention_mask[i].sum())
        assert not batch.attention_mask[i, length:].any()
        assert not batch.action_mask[i, length - 1 :].any()
        assert batch.prompts[i].startswith(str(PROMPTS + number)) or number == FILLER
        rows.append(
            (
                number,
                tuple(batch.sequences[i, :length].tolist()),
                tuple(batch.action_mask[i, : length - 1].tolist()),
                tuple(batch.action_log_probs[i, : length - 1].tolist()),
                tuple(batch.rollout_log_probs[i, : length - 1].tolist()),
                tuple(batch.advantages[i, : length - 1].tolist()),
                batch.rewards[i].item(),
                columns.rewards[i].item(),
                columns.sequence_advantages[i].item(),
                columns.ks[i].item(),
            )
        )
    return rows


def expected_rows(group: Group) -> list[tuple]:
    rows = []
    for member in group.members:
        mask, log_probs, reward = member.action_mask[0], member.action_log_probs[0], member.rewards.item()
        rows.append(
            (
                group.id,
                tuple(member.sequences[0].tolist()),
                tuple(mask.tolist()),
                tuple(log_probs.tolist()),
                tuple(member.rollout_log_probs[0].tolist()),
                tuple((2 * log_probs).tolist()),
                reward,
                reward,
                3 * reward,
                2,
            )
        )
    return rows


@st.composite
def situations(draw: st.DrawFn) -> dict:
    n, ranks = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, n), min_size=1, max_size=12))
    per_step = draw(st.integers(1, 3)) * n  # samples of one rank in an optimizer step
    micros = [m for m in range(1, per_step + 1) if per_step % m == 0]
    return {
        "n": n,
        "ranks": ranks,
        "sizes": sizes,
        "forward_rows": draw(st.integers(1, 2 * n)),
        "per_step": per_step,
        "micro": draw(st.sampled_from(micros)),
        "seed": draw(st.integers(0, 2**20)),
    }


@settings(max_examples=150)
@given(situations())
@example({"n": 4, "ranks": 2, "sizes": [4, 1, 4], "forward_rows": 4, "per_step": 4, "micro": 4, "seed": 0})
@example({"n": 3, "ranks": 4, "sizes": [2], "forward_rows": 1, "per_step": 3, "micro": 3, "seed": 2})
@example({"n": 4, "ranks": 4, "sizes": [1, 4, 1, 4, 2], "forward_rows": 3, "per_step": 12, "micro": 3, "seed": 1})
def test_every_group_comes_back_whole_once_an_epoch_in_one_step(situation):
    n, ranks, per_step, micro = (situation[name] for name in ("n", "ranks", "per_step", "micro"))
    source = random.Random(situation["seed"])
    groups = [random_group(i, size, source) for i, size in enumerate(situation["sizes"])]
    expected = {group.id: expected_rows(group) for group in groups}

    received = dealt(experience_of(groups, n, ranks, situation["forward_rows"]), ranks)
    assert len({len(batches) for batches in received}) == 1, "ranks would wait for each other"
    buffers = []
    for batches in received:
        buffer = GroupReplayBuffer(micro)
        for batch in batches:
            for row in rows_of(batch):
                assert row[0] != FILLER or not any(row[2])
            buffer.append(batch)
        buffers.append(buffer)
    kept = [buffer.groups() for buffer in buffers]
    spares = [buffer.filler() for buffer in buffers]
    assert max(map(len, kept)) - min(map(len, kept)) <= 1

    whole = micro % n == 0
    steps = max(count_steps(len(mine), per_step, n) for mine in kept)
    shuffles = [torch.Generator().manual_seed(7) for _ in range(ranks)]
    for _ in range(EPOCHS):
        seen: dict[int, list[tuple]] = {}
        for mine, spare, shuffle in zip(kept, spares, shuffles, strict=True):
            windows = list(optimizer_steps(mine, spare, steps, cut_by_count(per_step // micro, whole), shuffle))
            assert len(windows) == steps
            for window in windows:
                assert len(window) == per_step // micro
                in_step: dict[int, list[tuple]] = {}
                batches_of: dict[int, set[int]] = {}
                for index, batch in enumerate(map(make_experience_batch, window)):
                    assert len(batch.sequences) <= micro
                    for row in rows_of(batch):
                        if row[0] == FILLER:
                            assert not any(row[2])
                            assert len(batch.sequences) == 1
                        else:
                            in_step.setdefault(row[0], []).append(row)
                            batches_of.setdefault(row[0], set()).add(index)
                assert not in_step.keys() & seen.keys(), "a group in two optimizer steps"
                assert not whole or all(len(batches) == 1 for batches in batches_of.values())
                seen |= in_step
        assert seen == expected


def test_epochs_shuffle_groups_differently():
    source = random.Random(0)
    buffer = GroupReplayBuffer(2)
    for batch in experience_of([random_group(i, 2, source) for i in range(8)], 2, 1, 4):
        buffer.append(batch)
    shuffle = torch.Generator().manual_seed(0)
    epochs = [optimizer_steps(buffer.groups(), buffer.filler(), 8, cut_by_count(1, True), shuffle) for _ in range(4)]
    orders = [[row[0] for window in epoch for row in rows_of(make_experience_batch(window[0]))] for epoch in epochs]
    assert len(set(map(tuple, orders))) == 4


def test_a_rank_with_fewer_groups_takes_the_same_steps_on_a_filler():
    buffer = GroupReplayBuffer(3)
    for batch in experience_of([random_group(0, 3, random.Random(0))], 3, 1, 3):
        buffer.append(batch)
    windows = list(optimizer_steps(buffer.groups(), buffer.filler(), 2, cut_by_count(1, True), torch.Generator()))
    numbers = [GroupBatch.of(make_experience_batch(window[0])).groups.tolist() for window in windows]
    assert sorted(numbers) == [[FILLER], [0, 0, 0]]


def test_a_cleared_buffer_is_empty():
    buffer = GroupReplayBuffer(3)
    for batch in experience_of([random_group(0, 3, random.Random(0))], 3, 1, 3):
        buffer.append(batch)
    assert len(buffer) == 3
    buffer.clear()
    assert len(buffer) == 0
    assert buffer.groups() == []


def test_a_buffer_refuses_what_would_cut_groups():
    with pytest.raises(ValueError, match="whole groups"):
        GroupReplayBuffer(4, limit=5)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_shards_have_even_counts(tokens, ranks):
    groups = [SimpleNamespace(tokens=count) for count in tokens]
    shards = shard(groups, ranks)
    assert sorted(map(id, groups)) == sorted(id(group) for part in shards for group in part)
    counts = [len(part) for part in shards]
    assert len(counts) == ranks
    assert max(counts) - min(counts) <= 1
    assert counts[0] > 0, "the first rank has something to show"


def test_shards_balance_tokens():
    groups = [SimpleNamespace(tokens=count) for count in (1, 8, 3, 6, 5, 4, 7, 2)]
    assert [sum(group.tokens for group in part) for part in shard(groups, 2)] == [18, 18]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 12))
def test_even_chunks_keep_order_and_differ_by_one(items, count):
    chunks = even_chunks(items, count)
    assert len(chunks) == count
    assert [item for chunk in chunks for item in chunk] == items
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


@pytest.mark.parametrize(
    ("groups", "samples", "size", "steps"), [(8, 16, 4, 2), (9, 16, 4, 3), (1, 16, 4, 1), (0, 4, 4, 1)]
)
def test_count_steps(groups, samples, size, steps):
    assert count_steps(groups, samples, size) == steps
