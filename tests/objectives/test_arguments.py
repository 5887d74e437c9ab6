"""Shapes, types and devices that are taken, and errors that say what is wrong and where."""

import math
import subprocess
import sys

import pytest
import torch

from openrlhf_maxk.objectives import (
    exact_weights,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    max_at_k,
    objective_names,
    on_policy_weights,
    pass_at_k,
)
from openrlhf_maxk.objectives.order import SortedGroups

WEIGHTS = {
    "on_policy_weights": lambda r, rho, k: on_policy_weights(r, k),
    "first_order_weights": lambda r, rho, k: first_order_weights(r, rho, k),
    "first_order_weights score": lambda r, rho, k: first_order_weights(r, rho, k, "score"),
    "exact_weights": lambda r, rho, k: exact_weights(r, rho, k),
    "exact_weights score": lambda r, rho, k: exact_weights(r, rho, k, "score"),
    **{
        f"{function.__name__} {order}": lambda r, rho, k, f=function, o=order: f(r, k, rho, o)
        for function in (marginal_gain, leave_one_out)
        for order in ("none", "first", "exact")
    },
    **{
        f"objective {name}": lambda r, rho, k, name=name: get_objective(name)(r, k, rho).values
        for name in objective_names()
        if not get_objective(name).binary
    },
}
WITH_RATIOS = {
    name: weights for name, weights in WEIGHTS.items() if name != "on_policy_weights" and not name.endswith(" none")
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(params=WEIGHTS, ids=lambda name: name.replace(" ", "-"))
def weights(request):
    return WEIGHTS[request.param]


def sample(*shape, dtype=torch.float64, device="cpu", seed=0):
    """Rewards with ties, and ratios."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(-3, 4, shape, generator=generator).double() / 3
    ratios = (torch.randn(shape, generator=generator, dtype=torch.float64) / 3).exp()
    return rewards.to(device, dtype), ratios.to(device, dtype)


def test_leading_dimensions_are_a_batch(weights):
    r, rho = sample(2, 3, 4, 6)
    batched = weights(r, rho, 3)
    assert batched.shape == r.shape
    for index in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        torch.testing.assert_close(batched[index], weights(r[index], rho[index], 3), rtol=1e-13, atol=1e-13)


def test_empty_batches(weights):
    for shape in [(0, 6), (3, 0, 6)]:
        r, rho = sample(*shape)
        assert weights(r, rho, 3).shape == shape
    assert max_at_k(torch.rand(0, 6), 3).shape == (0,)


def test_batches_larger_than_a_chunk():
    """exact weights take a bounded number of groups at a time."""
    r, rho = sample(3000, 40)
    batched = exact_weights(r, rho, 20)
    torch.testing.assert_close(batched[2990:], exact_weights(r[2990:], rho[2990:], 20), rtol=1e-13, atol=1e-13)


def test_views_are_taken_and_left_as_they_are(weights):
    base_r, base_rho = sample(6, 5)
    r, rho = base_r.t(), base_rho.t()
    before = base_r.clone(), base_rho.clone()
    torch.testing.assert_close(weights(r, rho, 2), weights(r.contiguous(), rho.contiguous(), 2))
    assert torch.equal(base_r, before[0])
    assert torch.equal(base_rho, before[1])


@pytest.mark.parametrize("device", DEVICES)
def test_float32_in_and_out_is_float64_inside(weights, device):
    r, rho = sample(16, 64, dtype=torch.float32, device=device)
    result = weights(r, rho, 24)
    assert result.dtype == torch.float32
    assert result.device == r.device
    torch.testing.assert_close(result, weights(r.double(), rho.double(), 24).float(), rtol=0, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(weights, device, dtype):
    r, rho = sample(3, 8, dtype=dtype, device=device)
    result = weights(r, rho, 4)
    assert result.dtype == dtype
    torch.testing.assert_close(result, weights(r.double(), rho.double(), 4).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_give_floats(weights, dtype):
    r = torch.tensor([1, 0, 1, 1, 0, 0]).to(dtype)
    result = weights(r, torch.ones(6), 3)
    assert result.dtype == torch.get_default_dtype()
    torch.testing.assert_close(result, weights(r.float(), torch.ones(6), 3))


def test_ratios_of_another_type(weights):
    r, rho = sample(3, 8)
    torch.testing.assert_close(weights(r, rho.float(), 4), weights(r, rho.float().double(), 4))


def test_no_gradient_flows_through_a_weight(weights):
    r, rho = sample(3, 8)
    assert not weights(r.requires_grad_(), rho.requires_grad_(), 4).requires_grad


def test_weights_are_ordinary_tensors(weights):
    """A loss multiplies them with what has a gradient; they can be changed in place."""
    r, rho = sample(3, 8)
    result = weights(r, rho, 4)
    parameter = torch.ones(3, 8, dtype=torch.float64, requires_grad=True)
    (parameter * result).sum().backward()
    torch.testing.assert_close(parameter.grad, result, rtol=0, atol=0)
    result += 1


def test_zeros_of_both_signs_are_ties(weights):
    r = torch.tensor([0.0, -1.0, -0.0, 0.0, -0.0, 2.0], dtype=torch.float64)
    rho = torch.tensor([1.5, 0.5, 1.5, 1.5, 1.5, 1.0], dtype=torch.float64)
    result = weights(r, rho, 2)
    torch.testing.assert_close(result, weights(r + 0.0, rho, 2))
    torch.testing.assert_close(result[[0, 2, 3, 4]], result[0].expand(4))


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1.0, 1e300])
def test_sorting_of_any_finite_float64(scale):
    r = torch.tensor([3.0, -2.0, 0.0, -1.0, 1.0, -3.0, 2.0], dtype=torch.float64) * scale
    groups = SortedGroups.of(r.expand(2, 7))
    assert torch.equal(groups.rewards[1], r.sort().values)
    assert torch.equal(groups.restore(groups.rewards)[1], r)


def test_group_of_one():
    one, rho = torch.tensor([[2.0]]), torch.tensor([[1.5]])
    assert max_at_k(one, 1).tolist() == [2]
    assert on_policy_weights(one, 1).tolist() == [[2]]
    assert first_order_weights(one, rho, 1).tolist() == exact_weights(one, rho, 1).tolist() == [[2]]
    assert exact_weights(one, rho, 1, "score").tolist() == [[3]]
    for order in ("none", "first", "exact"):
        assert marginal_gain(one, 1, rho, order).tolist() == [[0]]  # no others to compare with
        with pytest.raises(ValueError, match="got k = n = 1"):
            leave_one_out(one, 1, rho, order)


@pytest.mark.parametrize("k", [0, -1, 7, 100])
def test_k_out_of_range(weights, k):
    r, rho = sample(2, 6)
    with pytest.raises(ValueError, match=f"k must be between 1 and the group size n = 6, got k = {k}"):
        weights(r, rho, k)
    with pytest.raises(ValueError, match="k must be between"):
        max_at_k(r, k)
    with pytest.raises(ValueError, match="k must be between"):
        pass_at_k(r > 0, k)


@pytest.mark.parametrize("k", [2.0, True, None, "2"])
def test_k_that_is_no_integer(weights, k):
    r, rho = sample(2, 6)
    with pytest.raises(ValueError, match="k must be an integer"):
        weights(r, rho, k)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite(weights, value):
    r, rho = sample(2, 6)
    r[1, 3] = value
    with pytest.raises(ValueError, match=rf"rewards must be finite: rewards\[1, 3\] is {value}"):
        weights(r, rho, 3)
    with pytest.raises(ValueError, match=r"rewards\[1, 3\]"):
        max_at_k(r, 3)


@pytest.mark.parametrize("name", WITH_RATIOS)
@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf, -math.inf])
def test_ratios_that_are_not_positive_and_finite(name, value):
    r, rho = sample(2, 6)
    rho[0, 5] = value
    with pytest.raises(ValueError, match=rf"ratios must be positive and finite: ratios\[0, 5\] is {value}"):
        WITH_RATIOS[name](r, rho, 3)


@pytest.mark.parametrize("value", [-0.5, math.nan, -math.inf])
def test_ratios_that_no_clamp_can_mend(value):
    r, rho = sample(2, 6)
    rho[0, 5] = value
    with pytest.raises(ValueError, match=rf"ratios must be positive: ratios\[0, 5\] is {value}"):
        get_objective("offpolicy_bon")(r, 3, rho, delta_clip=0.5)


@pytest.mark.parametrize("name", WITH_RATIOS)
def test_ratios_of_another_shape(name):
    r, rho = sample(2, 6)
    for other in (rho[0], rho[:, :5], rho.t(), rho.unsqueeze(0)):
        with pytest.raises(ValueError, match=r"ratios must have the shape of rewards, \(2, 6\), got"):
            WITH_RATIOS[name](r, other, 3)


def test_not_a_tensor(weights):
    with pytest.raises(ValueError, match=r"rewards must be a torch\.Tensor, got list"):
        weights([0.0, 1.0], torch.ones(2), 1)
    with pytest.raises(ValueError, match="rewards must be real"):
        weights(torch.ones(2, dtype=torch.complex64), torch.ones(2), 1)


def test_no_completions(weights):
    for r in (torch.tensor(1.0), torch.rand(3, 0)):
        with pytest.raises(ValueError, match="at least one completion"):
            weights(r, torch.ones_like(r), 1)


def test_pass_at_k_wants_zeros_and_ones():
    with pytest.raises(ValueError, match=r"correct must be 0 or 1: correct\[0, 2\] is 0\.5"):
        pass_at_k(torch.tensor([[1, 0, 0.5, 1]]), 2)


@pytest.mark.parametrize("function", [first_order_weights, exact_weights])
def test_unknown_form(function):
    with pytest.raises(ValueError, match="form must be one of ratio, score, got 'ppo'"):
        function(torch.rand(4), torch.ones(4), 2, form="ppo")


@pytest.mark.parametrize("function", [marginal_gain, leave_one_out])
def test_orders(function):
    with pytest.raises(ValueError, match="order must be one of none, first, exact, got 'second'"):
        function(torch.rand(4), 2, torch.ones(4), order="second")
    for order in ("first", "exact"):
        with pytest.raises(ValueError, match=f"order '{order}' needs ratios"):
            function(torch.rand(4), 2, order=order)


@pytest.mark.parametrize("far", [1e-300, 1e-30, 1e30, 1e150])
def test_one_ratio_far_out_disturbs_nothing_else(far):
    """By hand, over the pairs of others."""
    r = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    rho = torch.tensor([1.0, far, 1.0, 1.0], dtype=torch.float64)
    weights = torch.tensor([6 * far + 4, 2 + 4 + 4, 6 * far + 4, 8 * far + 4], dtype=torch.float64)
    gains = torch.tensor([0, 0, far, 5 * far + 2], dtype=torch.float64)
    torch.testing.assert_close(4 * exact_weights(r, rho, 3), weights, rtol=1e-14, atol=0)
    torch.testing.assert_close(4 * marginal_gain(r, 3, rho), gains, rtol=1e-14, atol=0)


def test_products_out_of_range_are_an_error():
    r = torch.arange(300, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"out of the range of torch\.float32: clamp the ratios"):
        exact_weights(r, torch.full((300,), 4.0), 150)
    with pytest.raises(ValueError, match=r"out of the range of torch\.float64"):
        marginal_gain(r.double(), 150, torch.full((300,), 1e10, dtype=torch.float64))


def test_import_needs_torch_only():
    """Neither the stack this package extends nor anything else beside torch and what torch itself imports."""
    program = """
import sys
import torch
before = set(sys.modules)
import openrlhf_maxk.objectives
added = {name.partition(".")[0] for name in set(sys.modules) - before}
allowed = {"openrlhf_maxk"} | set(sys.stdlib_module_names)
assert added <= allowed, sorted(added - allowed)
for heavy in ("ray", "vllm", "openrlhf", "deepspeed", "transformers", "matplotlib"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)
