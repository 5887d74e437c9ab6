"""What only keeps ranks in step is in no statistic."""

from __future__ import annotations

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_maxk.experience.group import Group, group_ids, without_fillers
from openrlhf_maxk.experience.sharding import filler

from ..rollouts import PAD, sample


def test_the_rows_of_fillers_are_left_out():
    group = Group(3, [sample([11, 5], [7, 8], 1.0), sample([11, 5], [9], 0.5)])
    for member in group.members:
        member.info["reward"] = member.rewards.clone()
    spare = filler(group.members[0])
    batch = Experience.concat_experiences([group.members[0], spare, group.members[1]], PAD)
    kept = without_fillers(batch)
    assert group_ids(kept.info).tolist() == [3, 3]
    assert kept.info["reward"].tolist() == kept.rewards.tolist() == [1.0, 0.5]
    assert torch.equal(kept.response_length, batch.response_length[[0, 2]])
    assert len(batch.rewards) == 3, "the batch itself stays as it is"
    nothing = without_fillers(Experience.concat_experiences([spare], PAD))
    assert nothing.info["reward"].tolist() == []
