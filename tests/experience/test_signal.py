"""The share of groups without signal: those whose completions all have the advantage 0."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from openrlhf_maxk.experience.group import Group

from ..rollouts import sample
from .test_maker import MAXK, N, make_maker


def metrics(groups: list[list[float]], k: int, **options: object) -> dict[str, float]:
    """Of a step with these rewards."""
    maker = make_maker(maxk=SimpleNamespace(**{**MAXK, "k": str(k), **options}))
    experiences = maker.split_rollout_samples(
        [
            Group(i, [sample([11 + i, 5], [j + 1], reward, seed=j) for j, reward in enumerate(rewards)])
            for i, rewards in enumerate(groups)
        ]
    )
    for experience in experiences:
        experience.kl = experience.action_mask.float()
    maker.compute_advantages_and_returns(experiences)
    return maker.metrics


@pytest.mark.parametrize("flat", range(5))
def test_groups_of_equal_rewards_are_those_without_signal(flat):
    found = metrics([[0.5] * N] * flat + [[0.0, 0.25, 0.5, 1.0]] * (4 - flat), k=2)
    assert found["rollout/no_signal"] == pytest.approx(flat / 4)
    assert found["rollout/groups"] == 4


@pytest.mark.parametrize("best", range(N))
def test_one_completion_with_an_advantage_is_signal_wherever_it_stands(best):
    """At k = n and with the marginal baseline the best of a group alone has one."""
    rewards = [float(i == best) for i in range(N)]
    assert metrics([rewards, [1.0] * N], k=N)["rollout/no_signal"] == 0.5


def test_what_training_maximises_is_told():
    """The mean of the two best, of 2 and of 4; of one there are no two."""
    found = metrics([[0.0, 0.25, 0.5, 1.0], [1.0] * N], k=2, strategy="mean_of_best:2")
    assert found["rollout/mean_of_best:2@2"] == pytest.approx((0.4375 + 1) / 2)
    assert found["rollout/mean_of_best:2@4"] == pytest.approx((0.75 + 1) / 2)
    assert "rollout/mean_of_best:2@1" not in found
    assert found["rollout/max@4"] == 1
    assert not any("max@" not in name and "pass@" not in name and "@" in name for name in metrics([[0.5] * N], k=2))
