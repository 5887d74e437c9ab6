"""Advantages of flat, shuffled, ragged batches are those of the objective called on every group by itself."""

from __future__ import annotations

import random
from copy import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_maxk.experience.advantages import effective_size, group_advantages, sequence_log_ratios
from openrlhf_maxk.experience.group import FILLER
from openrlhf_maxk.objectives import Form, get_objective, objective_names
from openrlhf_maxk.options.maxk import MaxKOptions


class Batch:
    """Groups of ``sizes`` and ``ks`` and some fillers, rows in random order; members of a group keep theirs."""

    def __init__(self, sizes: list[int], ks: list[int], fillers: int, seed: int, distance: float = 0.5) -> None:
        source = random.Random(seed)
        rows = [100 - number for number, size in enumerate(sizes) for _ in range(size)] + [FILLER] * fillers
        source.shuffle(rows)
        k_of = {100 - number: k for number, k in enumerate(ks)} | {FILLER: 1}
        self.groups = torch.tensor(rows)
        self.ks = torch.tensor([k_of[row] for row in rows])
        self.rewards = torch.tensor([source.randint(-4, 4) / 4 for _ in rows])
        self.log_ratios = torch.tensor([source.gauss(0, distance) for _ in rows])

    def for_objective(self, name: str) -> Batch:
        """The same, with right and wrong in the place of rewards where the objective is about that."""
        batch = copy(self)
        if get_objective(name).binary:
            batch.rewards = (self.rewards > 0).float()
        return batch

    def of(self, number: int) -> torch.Tensor:
        """The rows of a group."""
        return torch.nonzero(self.groups == number).squeeze(-1)

    @property
    def numbers(self) -> list[int]:
        return sorted({number for number in self.groups.tolist() if number != FILLER})

    def chosen(self, seed: int) -> torch.Tensor:
        """Answers of the rows, some of which have no vote."""
        return torch.tensor([random.Random(seed + row).randint(-1, 2) for row in range(len(self.groups))])

    def advantages(self, options: MaxKOptions, on_policy: bool = False):
        return group_advantages(self.groups, self.rewards, None if on_policy else self.log_ratios, self.ks, options)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    sizes = draw(st.lists(st.integers(2, 7), min_size=1, max_size=6))
    ks = [draw(st.integers(1, size)) for size in sizes]
    return Batch(sizes, ks, draw(st.integers(0, 3)), draw(st.integers(0, 2**20)))


@settings(max_examples=25)
@given(
    batches(),
    st.sampled_from(["none", "first", "exact"]),
    st.sampled_from(["marginal", "leave_one_out", "none"]),
    st.sampled_from([0.3, 1.0, float("inf")]),
)
@pytest.mark.parametrize("name", objective_names())
def test_a_batch_is_its_groups_one_by_one(name, batch, correction, baseline, delta_clip):
    options = MaxKOptions.make(objective=name, correction=correction, baseline=baseline, delta_clip=delta_clip)
    batch = batch.for_objective(name)
    found = batch.advantages(options)
    objective = get_objective(name)
    raw_ess = ess = clamped = fallen = 0.0
    for number in batch.numbers:
        rows = batch.of(number)
        k = int(batch.ks[rows[0]])
        used = batch.log_ratios[rows].exp().double()
        whole = (used.sum() ** 2 / used.square().sum()).item()
        raw_ess += whole
        if whole < 0.3 * len(rows):
            used = torch.ones_like(used)
            fallen += len(rows)
        expected = objective(
            batch.rewards[rows].double(),
            k,
            used,
            correction=correction,
            baseline=baseline,
            delta_clip=delta_clip,
        )
        torch.testing.assert_close(found.values[rows].double(), expected.values, atol=1e-5, rtol=1e-5)
        factors = expected.ratios if objective.form is Form.RATIO else torch.ones(len(rows), dtype=torch.float64)
        torch.testing.assert_close(found.score_factors[rows].double(), factors, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found.ratios[rows].double(), expected.ratios, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            (found.values * found.score_factors)[rows].double(), expected.for_score_loss(), atol=1e-5, rtol=1e-5
        )
        ess += (expected.ratios.sum() ** 2 / expected.ratios.square().sum()).item()
        clamped += expected.clamped.sum().item()
    filler = batch.groups == FILLER
    assert not found.values[filler].any()
    ratios = batch.log_ratios[~filler].exp()
    count = float((~filler).sum())
    assert found.sums["ratio_mean"] == (pytest.approx(ratios.sum().item(), rel=1e-5), count)
    assert found.sums["ratio_clamped"] == (clamped, count)
    assert found.sums["ratio_ess"] == (pytest.approx(raw_ess, rel=1e-5), count)
    assert found.sums["ratio_ess_clamped"] == (pytest.approx(ess, rel=1e-5), count)
    assert found.sums["ratio_fallback"] == (fallen, count)
    assert found.sums["advantage_abs"] == (pytest.approx(found.values.abs().sum().item(), rel=1e-5), count)
    assert found.largest_ratio == pytest.approx(ratios.max().item(), rel=1e-6)


@settings(max_examples=40)
@given(batches(), st.sampled_from(objective_names()))
def test_no_log_ratios_are_log_ratios_of_zero(batch, name):
    options = MaxKOptions.make(objective=name)
    batch = batch.for_objective(name)
    without = batch.advantages(options, on_policy=True)
    batch.log_ratios = torch.zeros_like(batch.log_ratios)
    zeros = batch.advantages(options)
    assert torch.equal(without.values, zeros.values)
    assert torch.equal(without.score_factors, zeros.score_factors)
    assert without.sums == zeros.sums
    assert without.largest_ratio == zeros.largest_ratio == 1.0


def test_by_hand():
    """k = 2 of (0, 1, 3), ρ = (2, 1, ½): A_i = 3 · ⅓ Σ over the other l of ρ_l max(r_i, r_l)."""
    groups = torch.tensor([4, FILLER, 4, 4])
    rewards = torch.tensor([3.0, 9.0, 0.0, 1.0])
    log_ratios = torch.tensor([0.5, 7.0, 2.0, 1.0]).log()
    options = MaxKOptions.make(baseline="none", delta_clip=float("inf"))
    found = group_advantages(groups, rewards, log_ratios, torch.tensor([2, 1, 2, 2]), options)
    torch.testing.assert_close(found.values, torch.tensor([2 * 3 + 1 * 3.0, 0, 1 * 1 + 0.5 * 3, 2 * 1 + 0.5 * 3]))
    torch.testing.assert_close(found.score_factors, torch.tensor([0.5, 1, 2, 1]))
    assert found.sums["ratio_mean"] == (pytest.approx(3.5), 3.0)
    assert found.sums["ratio_ess"] == (pytest.approx(3.5**2 / (4 + 1 + 0.25)), 3.0)
    assert found.sums["ratio_clamped"] == (0.0, 3.0)
    assert found.largest_ratio == pytest.approx(2.0)


def test_the_clamp_is_counted():
    groups = torch.zeros(3, dtype=torch.int64)
    options = MaxKOptions.make(delta_clip=0.5)
    found = group_advantages(
        groups, torch.tensor([0.0, 1, 2]), torch.tensor([3.0, 0.2, 1.0]).log(), torch.full((3,), 2), options
    )
    assert found.sums["ratio_clamped"] == (2.0, 3.0)
    torch.testing.assert_close(found.score_factors, torch.tensor([1.5, 0.5, 1.0]))
    assert found.largest_ratio == pytest.approx(3.0), "as it was before the clamp"


def test_a_completion_that_the_policy_has_all_but_forgotten_needs_no_clamp():
    groups, rewards = torch.zeros(3, dtype=torch.int64), torch.tensor([0.0, 1, 2])
    log_ratios = torch.tensor([-200.0, 0.5, -0.5])  # exp(−200) is 0 in float32
    options = MaxKOptions.make(baseline="none", delta_clip=float("inf"))
    found = group_advantages(groups, rewards, log_ratios, torch.full((3,), 2), options)
    expected = get_objective("offpolicy_bon")(rewards.double(), 2, log_ratios.double().exp(), baseline="none").values
    torch.testing.assert_close(found.values.double(), expected, atol=1e-6, rtol=1e-6)
    assert found.values[0] > 1


@pytest.mark.parametrize("log_ratios", [None, torch.tensor([0.3, 0.4])], ids=["on-policy", "off-policy"])
def test_a_micro_batch_of_fillers_has_no_advantages(log_ratios):
    groups = torch.full((2,), FILLER)
    found = group_advantages(groups, torch.ones(2), log_ratios, torch.ones(2, dtype=torch.int64), MaxKOptions())
    assert found.values.tolist() == [0, 0]
    assert all(count == 0 for _, count in found.sums.values())


def test_sequence_log_ratios_sum_over_the_response_alone():
    log_probs = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -9.0]], requires_grad=True)
    behaviour = torch.tensor([[-5.0, -1.5, -1.0], [-0.25, -1.25, -1.0]])
    found = sequence_log_ratios(log_probs, behaviour, torch.tensor([[0, 1, 1], [1, 1, 0]]))
    assert found.tolist() == [-2.5, 0.75]
    assert not found.requires_grad


def test_a_group_of_ratios_that_say_nothing_is_taken_as_on_policy():
    """Six completions, one with nearly all of the weight: its group falls back, the other group does not."""
    groups = torch.tensor([1] * 6 + [2] * 6)
    rewards = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.25, 3.0] * 2)
    log_ratios = torch.tensor([9.0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, -0.5])
    ks = torch.full_like(groups, 3)
    found = group_advantages(groups, rewards, log_ratios, ks, MaxKOptions())
    on_policy = group_advantages(groups, rewards, None, ks, MaxKOptions())
    never = group_advantages(groups, rewards, log_ratios, ks, MaxKOptions(min_ess=0.0))
    assert torch.equal(found.values[:6], on_policy.values[:6])
    assert torch.equal(found.ratios[:6], torch.ones(6))
    assert torch.equal(found.values[6:], never.values[6:])
    assert not torch.equal(never.values[:6], on_policy.values[:6])
    assert found.sums["ratio_fallback"] == (6.0, 12.0)
    assert never.sums["ratio_fallback"] == (0.0, 12.0)
    assert found.sums["ratio_ess"] == never.sums["ratio_ess"], "what was measured is reported"
    assert found.sums["ratio_ess"][0] < 1.1 + 6 < found.sums["ratio_ess_clamped"][0]


def test_the_effective_size_of_ratios_that_overflow():
    log_ratios = torch.tensor([[2000.0, 2000.0, -2000.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert effective_size(log_ratios).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("strategy", ["min", "median", "mean_of_best:2"])
def test_the_strategy_reaches_the_objective(strategy):
    groups, rewards = torch.zeros(4, dtype=torch.int64), torch.tensor([0.0, 1, 3, 2])
    log_ratios = torch.tensor([0.2, -0.1, 0.0, 0.3])
    options = MaxKOptions.make(strategy=strategy, baseline="leave_one_out")
    found = group_advantages(groups, rewards, log_ratios, torch.full((4,), 3), options)
    objective = get_objective("offpolicy_bon")
    expected = objective(rewards, 3, log_ratios.exp(), baseline="leave_one_out", strategy=strategy).values
    torch.testing.assert_close(found.values, expected)
    other = objective(rewards, 3, log_ratios.exp(), baseline="leave_one_out").values
    assert not torch.allclose(found.values, other)


@settings(max_examples=25)
@given(batches(), st.sampled_from(["selected", "vote"]), st.integers(0, 99))
def test_rows_of_a_batch_are_chosen_by_their_own_column(batch, strategy, seed):
    options = MaxKOptions.make(strategy=strategy, min_ess=0.0)
    by = batch.chosen(seed)
    found = group_advantages(batch.groups, batch.rewards, batch.log_ratios, batch.ks, options, by)
    for number in batch.numbers:
        rows = batch.of(number)
        ratios = batch.log_ratios[rows].double().exp()
        objective = get_objective("offpolicy_bon")
        expected = objective(
            batch.rewards[rows], int(batch.ks[rows[0]]), ratios, delta_clip=1.0, strategy=strategy, chosen_by=by[rows]
        )
        torch.testing.assert_close(found.values[rows], expected.values.float(), atol=1e-5, rtol=1e-5)
    assert not found.values[batch.groups == FILLER].any()
