"""The registry, and each objective by its formula on small groups."""

import math

import pytest
import torch

from openrlhf_maxk.objectives import (
    Advantages,
    Form,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    objective_names,
    on_policy_weights,
    register,
    registry,
)

from .oracle import rewards_for

BINARY = {"nsr", "passk_training", "w_reinforce"}
SHIPPED = BINARY | {
    "bon_loo1",
    "bon_max_mean",
    "bon_max_second",
    "bon_mean",
    "dr_grpo",
    "grpo",
    "grpo_passk",
    "maxpo",
    "maxrl",
    "offpolicy_bon",
    "offpolicy_bon_paper",
    "pkpo",
    "rloo",
    "rs_grpo",
}


@pytest.fixture
def own_names(monkeypatch):
    """Names registered by a test go away with it."""
    monkeypatch.setattr(registry, "_OBJECTIVES", dict(registry._OBJECTIVES))


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def z_score(values):
    return (values - values.mean()) / values.std()


def advantages(name, r, k=2, rho=None, **options):
    return get_objective(name)(r, k, rho, **options).values


def test_names():
    assert set(objective_names()) == SHIPPED
    assert list(objective_names()) == sorted(objective_names())


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no objective named 'bon'; known: .*grpo.*offpolicy_bon"):
        get_objective("bon")


def test_duplicate_name_is_refused(own_names):
    with pytest.raises(ValueError, match="'grpo' already"):
        register("grpo")(lambda rewards, k, ratios, options: rewards)


def test_users_register_their_own(own_names):
    @register("best_minus_mean")
    def best_minus_mean(rewards, k, ratios, options):
        """Mine: r_i − mean r."""
        assert rewards.dtype == torch.float64
        return ratios * (rewards - rewards.mean(-1, keepdim=True))

    assert "best_minus_mean" in objective_names()
    assert get_objective("best_minus_mean") is best_minus_mean
    assert best_minus_mean.description == "Mine: r_i − mean r."
    result = best_minus_mean(torch.tensor([1.0, 3.0]), 1, torch.tensor([1.0, 5.0]), delta_clip=1.0)
    assert result.values.tolist() == [-1, 2]
    assert result.values.dtype == torch.float32


def test_wrong_shape_of_a_formula_is_named(own_names):
    register("sum")(lambda rewards, k, ratios, options: rewards.sum(-1))
    with pytest.raises(ValueError, match="'sum' made \\(3,\\) of rewards \\(3, 4\\)"):
        get_objective("sum")(torch.rand(3, 4), 2)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_docstrings_give_paper_and_assumption(name):
    description = get_objective(name).description
    assert "A_i = " in description or "w′" in description
    assert "arXiv" in description or "verl" in description or "eq. 10" in description


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_form(name):
    assert get_objective(name).form is (Form.SCORE if name == "offpolicy_bon_paper" else Form.RATIO)


def test_grpo():
    r = row(0.5, 0, 2, 0.25)
    torch.testing.assert_close(advantages("grpo", r), z_score(r), rtol=1e-8, atol=0)


def test_rloo():
    torch.testing.assert_close(advantages("rloo", row(0, 1, 5)), row(-3, -1.5, 4.5))


def test_bon_max_mean_gives_all_of_the_best_the_same():
    assert advantages("bon_max_mean", row(4, 0, 4, -4)).tolist() == [3, 0, 3, 0]


def test_bon_max_second_looks_below_the_best_value():
    assert advantages("bon_max_second", row(4, 0, 4, -4)).tolist() == [4, 0, 4, 0]


def test_grpo_passk_gives_nothing_to_two_best():
    r = row(1, 4, 0.5, -4)
    torch.testing.assert_close(advantages("grpo_passk", r), row(0, 3, 0, 0) / r.std(), rtol=1e-8, atol=0)
    assert advantages("grpo_passk", row(4, 0, 4, -4)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_bon_loo1(k):
    r = row(0.5, 0, 2, 0.25)
    torch.testing.assert_close(advantages("bon_loo1", r, k, r.exp()), 4 * marginal_gain(r, k))


def test_bon_mean():
    r = row(0.5, 0, 2, 0.25)
    torch.testing.assert_close(advantages("bon_mean", r), z_score(on_policy_weights(r, 2)), rtol=1e-8, atol=0)
    assert advantages("bon_mean", r, 4).tolist() == [0, 0, 0, 0]  # k = n: all weights are equal


def test_bon_mean_has_no_noise_where_the_weights_are_equal():
    """Fewer than k wrong: r̃ has no spread, and a z-score of rounding errors would be noise of size 1."""
    r = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 1.0], [0.3, 0.3, 0.3, 0.1, 0.3, 0.3, 0.3, 0.3]], dtype=torch.float64)
    assert advantages("bon_mean", r, 3).eq(0).all()


def test_offpolicy_bon_paper():
    r, rho = row(0.5, 0, 2, 0.25), row(1.5, 0.5, 0.8, 1.1)
    expected = z_score(first_order_weights(r, rho, 2, "score"))
    torch.testing.assert_close(advantages("offpolicy_bon_paper", r, 2, rho), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("correction", ["none", "first", "exact"])
def test_offpolicy_bon_leaves_out_where_it_can(correction):
    r, rho = row(0.5, 0, 2, 0.25), row(1.5, 0.5, 0.8, 1.1)
    result = advantages("offpolicy_bon", r, 3, rho, correction=correction, baseline="leave_one_out")
    torch.testing.assert_close(result, 4 * leave_one_out(r, 3, rho, correction))
    result = advantages("offpolicy_bon", r, 4, rho, correction=correction, baseline="leave_one_out")
    torch.testing.assert_close(result, 4 * marginal_gain(r, 4, rho, correction))


@pytest.mark.parametrize("name", sorted(SHIPPED - BINARY - {"offpolicy_bon_paper"}))
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1 / 3, 1e6])
@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("baseline", ["marginal", "leave_one_out"])
def test_equal_rewards_give_exactly_zero(name, value, n, baseline):
    generator = torch.Generator().manual_seed(n)
    r = torch.full((3, n), value, dtype=torch.float64)  # in float64 the mean of equal numbers can differ from them
    rho = torch.rand(3, n, generator=generator, dtype=torch.float64) + 0.5
    for k in {1, (n + 1) // 2, n}:
        assert get_objective(name)(r, k, rho, baseline=baseline).values.eq(0).all()
        assert get_objective(name)(r.float(), k, rho.float(), baseline=baseline).values.eq(0).all()


def test_equal_rewards_where_they_are_said_not_to_give_zero():
    r, rho = row(1, 1, 1), row(0.5, 1, 2)
    assert advantages("offpolicy_bon_paper", r, 2, rho).ne(0).all()
    assert advantages("offpolicy_bon_paper", r, 2).eq(0).all()  # ratios of 1
    torch.testing.assert_close(advantages("offpolicy_bon", r, 2, rho, baseline="none"), row(3, 2.5, 1.5))


@pytest.mark.parametrize("name", sorted(SHIPPED - BINARY))
def test_groups_of_one(name):
    result = get_objective(name)(torch.tensor([[2.0]]), 1, torch.tensor([[1.5]]))
    assert result.values.tolist() == [[0.0]]


def test_clamping_is_reported_and_used():
    r, rho = row(0.5, 0, 2, 0.25), row(0.2, 1.1, 7.0, 0.9)
    result = get_objective("offpolicy_bon")(r, 2, rho, delta_clip=0.5)
    assert result.clamped.tolist() == [True, False, True, False]
    assert result.ratios.tolist() == [0.5, 1.1, 1.5, 0.9]
    torch.testing.assert_close(result.values, 4 * marginal_gain(r, 2, row(0.5, 1.1, 1.5, 0.9)))


def test_clamping_keeps_ratios_positive_and_takes_back_overflow():
    r, rho = torch.rand(4), torch.tensor([0.0, math.inf, 1e-30, 2.0])
    result = get_objective("offpolicy_bon")(r, 2, rho, delta_clip=1.0)
    assert result.clamped.tolist() == [True, True, False, False]
    assert result.ratios.min() > 0
    assert result.ratios.max() == 2


def test_no_ratios_are_ratios_of_one():
    r = row(0.5, 0, 2, 0.25)
    result = get_objective("offpolicy_bon")(r, 2)
    assert result.ratios.eq(1).all()
    assert not result.clamped.any()
    torch.testing.assert_close(result.values, advantages("offpolicy_bon", r, 2, torch.ones_like(r)))


def test_score_loss_weights_carry_the_ratio_once():
    r, rho = row(0.5, 0, 2, 0.25), row(0.5, 1.1, 1.5, 0.9)
    for name in sorted(SHIPPED):
        objective = get_objective(name)
        result = objective(rewards_for(objective, r), 2, rho, delta_clip=0.3)
        factor = 1 if name == "offpolicy_bon_paper" else row(0.7, 1.1, 1.3, 0.9)
        torch.testing.assert_close(result.for_score_loss(), factor * result.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": "second"}, "correction must be one of none, first, exact, got 'second'"),
        ({"baseline": "mean"}, "baseline must be one of marginal, leave_one_out, none, got 'mean'"),
        ({"delta_clip": 0.0}, "delta_clip must be positive"),
        ({"delta_clip": -1.0}, "delta_clip must be positive"),
        ({"delta_clip": math.nan}, "delta_clip must be positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        get_objective("grpo")(torch.rand(4), 2, torch.ones(4), **options)


def test_advantages_cannot_be_changed():
    result = get_objective("grpo")(torch.rand(4), 2)
    assert isinstance(result, Advantages)
    with pytest.raises(AttributeError):
        result.values = torch.zeros(4)


def test_an_objective_of_a_users_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_OBJECTIVES", dict(registry._OBJECTIVES))
    file = tmp_path / "mine.py"
    file.write_text(
        "from openrlhf_maxk.objectives import register\n"
        "@register('from a file')\n"
        "def mine(rewards, k, ratios, options):\n"
        "    return rewards - rewards.median(-1, keepdim=True).values\n"
    )
    objective = get_objective(str(file))
    assert objective(torch.tensor([0.0, 1.0, 5.0]), 1).values.tolist() == [-1.0, 0.0, 4.0]
    assert get_objective(str(file)) is objective is get_objective("from a file")


def test_a_file_without_an_objective(tmp_path):
    (tmp_path / "none.py").write_text("")
    with pytest.raises(ValueError, match=r"none\.py must register one objective, not 0"):
        get_objective(str(tmp_path / "none.py"))
    with pytest.raises(ValueError, match=r"missing\.py does not exist"):
        get_objective(str(tmp_path / "missing.py"))
