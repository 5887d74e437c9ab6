"""Every strategy against its definition: all subsets, exact rationals, n <= 7, all k, ties, negatives, any order."""

from fractions import Fraction
from itertools import product

import pytest
import torch

from openrlhf_maxk.objectives import (
    NO_VOTE,
    Strategy,
    exact_weights,
    first_order_weights,
    get_objective,
    leave_one_out,
    marginal_gain,
    max_at_k,
    on_policy_weights,
    value_at_k,
    vote_at_k,
    vote_weights,
    worth_at_k,
)

from . import oracle

SIZES = [(n, k) for n in range(1, 8) for k in range(1, n + 1)]
NAMES = ["max", "min", "mean_of_best:2", "median", "quantile:0.3", "own weights", "selected"]
RANKS = {
    "max": lambda k: [1, *[0] * (k - 1)],
    "min": lambda k: [*[0] * (k - 1), 1],
    "mean_of_best:2": lambda k: [Fraction(1, 2), Fraction(1, 2), *[0] * (k - 2)],
    "median": lambda k: [Fraction((m in (k // 2, (k - 1) // 2)), 2 - k % 2) for m in range(k)],
    "quantile:0.3": lambda k: quantile(k, Fraction(3, 10)),
    "own weights": lambda k: [2, -1, 0, 3, 0, 1, 1][:k],
    "selected": lambda k: [1, *[0] * (k - 1)],
}


def quantile(k, p):
    """Between the two neighbours of place (k−1)p from below, as in NumPy."""
    place = (k - 1) * p
    lower, part = int(place), place - int(place)
    from_below = [Fraction(0)] * (k + 1)
    from_below[lower], from_below[lower + 1] = 1 - part, part
    return from_below[:k][::-1]


@pytest.fixture(params=SIZES, ids=lambda size: f"n{size[0]}-k{size[1]}", scope="module")
def size(request):
    return request.param


@pytest.fixture(params=NAMES)
def case(request, size):
    """Groups with their worths, and the arguments of the functions."""
    (n, k), name = size, request.param
    if name == "mean_of_best:2" and k == 1:
        pytest.skip("the mean of the best two needs two")
    rewards, ratios = oracle.groups(n, 2, seed=100 * n + k)
    levels = [[Fraction((7 * i * i + 3 * i + g) % 5) for i in range(n)] for g in range(2)]
    scores = levels if name == "selected" else rewards
    ranks = RANKS[name](k)
    worths = [oracle.ranked(r, s, ranks) for r, s in zip(rewards, scores, strict=True)]
    options = {"strategy": [float(c) for c in ranks] if name == "own weights" else name}
    if name == "selected":
        options["scores"] = oracle.tensor(scores)
    lowest = [
        {i: min((l for l in range(n) if l != i), key=lambda l: (s[l], -l)) for i in range(n)} if n > 1 else {}
        for s in scores
    ]
    return k, worths, ratios, oracle.tensor(rewards), oracle.tensor(ratios), options, (ranks, rewards, scores, lowest)


def assert_same(actual, expected):
    torch.testing.assert_close(actual, oracle.tensor(expected), rtol=1e-13, atol=1e-13)


def test_value(case):
    k, worths, ratios, r, _, options, _ = case
    assert_same(value_at_k(r, k, **options), [oracle.mean_worth(worth, len(ratios[0]), k) for worth in worths])


def test_weights_without_a_baseline(case):
    k, worths, ratios, r, rho, options, _ = case

    def expected(weight):
        both = zip(worths, ratios, strict=True)
        return [oracle.worth_weights(worth, own, k, weight, oracle.no_baseline) for worth, own in both]

    assert_same(on_policy_weights(r, k, **options), expected(oracle.one))
    assert_same(first_order_weights(r, rho, k, **options), expected(oracle.one_plus_deltas))
    assert_same(exact_weights(r, rho, k, **options), expected(oracle.product))
    score = first_order_weights(r, rho, k, **options) + (rho - 1) * on_policy_weights(r, k, **options)
    torch.testing.assert_close(first_order_weights(r, rho, k, "score", **options), score, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        exact_weights(r, rho, k, "score", **options), rho * exact_weights(r, rho, k, **options), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_leave_one_out(case, order):
    k, worths, ratios, r, rho, options, _ = case
    if k == r.shape[-1]:
        with pytest.raises(ValueError, match="k below the group size"):
            leave_one_out(r, k, rho, order, **options)
        return
    expected = [
        oracle.worth_weights(worth, own, k, oracle.ORDERS[order], oracle.stand_ins(worth, len(own)))
        for worth, own in zip(worths, ratios, strict=True)
    ]
    assert_same(leave_one_out(r, k, rho, order, **options), expected)


@pytest.mark.parametrize("order", ["none", "first", "exact"])
def test_marginal_gain(case, order):
    """i against the lowest of the others, which may be in the subset already: then it counts twice."""
    k, worths, ratios, r, rho, options, (ranks, rewards, scores, lowest) = case
    n = r.shape[-1]
    expected = []
    for g, worth in enumerate(worths):

        def with_lowest(i, rest, g=g):
            low = lowest[g][i]
            again = oracle.ranked([*rewards[g], rewards[g][low]], [*scores[g], scores[g][low]], ranks)
            return again([*rest, n])

        if n == 1:
            expected.append([Fraction(0)])
        elif k == 1:
            expected.append(oracle.worth_weights(worth, ratios[g], k, oracle.one, oracle.stand_ins(worth, n)))
        else:
            expected.append(oracle.worth_weights(worth, ratios[g], k, oracle.ORDERS[order], with_lowest))
    assert_same(marginal_gain(r, k, rho, order, **options), expected)


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_vote(size, silent):
    """Of three keys none, one or two are no votes: an answer that some do not give, or most."""
    n, k = size
    rewards, ratios = oracle.groups(n, 2, seed=n + 10 * k)
    keys = [[(5 * i * i + i + g) % 3 - silent for i in range(n)] for g in range(2)]
    r, rho, votes = oracle.tensor(rewards), oracle.tensor(ratios), torch.tensor(keys)
    worths = [oracle.voted(*group) for group in zip(rewards, keys, strict=True)]
    assert_same(vote_at_k(r, votes, k), [oracle.mean_worth(worth, n, k) for worth in worths])

    def expected(baseline, weight):
        result = []
        for worth, own in zip(worths, ratios, strict=True):
            subtracted = {
                "none": oracle.no_baseline,
                "marginal": lambda i, rest, worth=worth: worth(rest),
                "leave_one_out": oracle.stand_ins(worth, n),
            }
            kind = baseline
            if kind == "marginal" and k == 1:
                kind = "leave_one_out"
            elif kind == "leave_one_out" and k == n:
                kind = "marginal"
            if n == 1 and baseline != "none":
                result.append([Fraction(0)])
            else:
                result.append(oracle.worth_weights(worth, own, k, weight, subtracted[kind]))
        return result

    for baseline in ("none", "marginal", "leave_one_out"):
        assert_same(vote_weights(r, votes, k, rho, baseline), expected(baseline, oracle.product))
        assert_same(vote_weights(r, votes, k, baseline=baseline), expected(baseline, oracle.one))


def test_offpolicy_bon_takes_a_strategy():
    """n times the weights, for each baseline and correction; leave one out falls back to the gain at k = n."""
    r, rho = (oracle.tensor(values[0]) for values in oracle.groups(5, 2, seed=3))
    objective = get_objective("offpolicy_bon")
    for strategy, k, correction in product(["min", "mean_of_best:2", "median"], (3, 5), ("none", "first", "exact")):
        of = {"strategy": strategy}
        weights = {
            "none": on_policy_weights(r, k, **of),
            "first": first_order_weights(r, rho, k, **of),
            "exact": exact_weights(r, rho, k, **of),
        }
        gains = marginal_gain(r, k, rho, correction, **of)
        wanted = {
            "none": weights[correction],
            "marginal": gains,
            "leave_one_out": gains if k == 5 else leave_one_out(r, k, rho, correction, **of),
        }
        for baseline, expected in wanted.items():
            result = objective(r, k, rho, correction=correction, baseline=baseline, **of)
            torch.testing.assert_close(result.values, 5 * expected)


def test_offpolicy_bon_chooses_by_scores_or_keys():
    """They stay with their completions, and other strategies do not look at them."""
    r, rho = (oracle.tensor(values[0]) for values in oracle.groups(5, 2, seed=3))
    scores, keys = torch.tensor([0.5, 2.0, 0.5, -1.0, 2.0]), torch.tensor([4, NO_VOTE, 4, 0, 1])
    objective = get_objective("offpolicy_bon")
    for k, correction in product((3, 5), ("none", "exact")):
        given = None if correction == "none" else rho
        for baseline in ("none", "marginal", "leave_one_out"):
            options = {"correction": correction, "baseline": baseline}
            voted = objective(r, k, rho, strategy="vote", chosen_by=keys, **options)
            torch.testing.assert_close(voted.values, 5 * vote_weights(r, keys, k, given, baseline))
            picked = objective(r, k, rho, strategy="selected", chosen_by=scores, **options)
            gain = leave_one_out if baseline == "leave_one_out" and k < 5 else marginal_gain
            of = {"strategy": "selected", "scores": scores}
            if baseline != "none":
                torch.testing.assert_close(picked.values, 5 * gain(r, k, rho, correction, **of))
            other = objective(r, k, rho, chosen_by=scores, **options)
            assert torch.equal(other.values, objective(r, k, rho, **options).values)
    assert torch.equal(worth_at_k(r, 3, "vote", keys), vote_at_k(r, keys, 3))
    assert torch.equal(worth_at_k(r, 3, "selected", scores), value_at_k(r, 3, "selected", scores))
    assert torch.equal(worth_at_k(r, 3, "min", scores), value_at_k(r, 3, "min"))
    for name in ("vote", "selected"):
        for call in (lambda name=name: objective(r, 3, strategy=name), lambda name=name: worth_at_k(r, 3, name)):
            with pytest.raises(ValueError, match=f"strategy {name} needs to know more .* what to choose by"):
                call()
    with pytest.raises(ValueError, match="vote has no first-order correction: use exact or none"):
        objective(r, 3, rho, strategy="vote", chosen_by=keys, correction="first")
    with pytest.raises(ValueError, match="keys must be integers"):
        objective(r, 3, strategy="vote", chosen_by=scores)


def test_who_does_not_vote_is_no_rival_of_who_does():
    """One answer among silent completions wins every draw that it is in; the silent alone share their worth."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.5])
    silent = torch.tensor([7, NO_VOTE, NO_VOTE, -5])
    assert vote_at_k(rewards, silent, 2).item() == pytest.approx((3 * 1 + 0 + 0.25 + 0.25) / 6)
    assert vote_at_k(rewards, torch.tensor([7, 8, 9, 10]), 2).item() == pytest.approx(rewards.mean().item())
    everyone = torch.full((4,), NO_VOTE)
    assert vote_at_k(rewards, everyone, 3).item() == pytest.approx(rewards.mean().item())
    assert vote_at_k(rewards[:2], silent[1:3], 2).item() == pytest.approx(0.5)


def test_identities():
    """The mean of all ranks is the mean; quantiles end in min and max; min is max turned round; selected by rewards."""
    r, rho = (oracle.tensor(values[:3]) for values in oracle.groups(9, 4, seed=1))
    for k in (1, 2, 4, 9):
        best = [1.0, *[0.0] * (k - 1)]
        for weights in (exact_weights(r, rho, k, strategy=best), exact_weights(r, rho, k, strategy="mean_of_best:1")):
            assert torch.equal(weights, exact_weights(r, rho, k))
        torch.testing.assert_close(value_at_k(r, k, f"mean_of_best:{k}"), r.mean(-1))
        assert torch.equal(value_at_k(r, k, "quantile:1"), max_at_k(r, k))
        assert torch.equal(value_at_k(r, k, "quantile:0"), value_at_k(r, k, "min"))
        torch.testing.assert_close(value_at_k(r, k, "min"), -max_at_k(-r, k))
        torch.testing.assert_close(exact_weights(r, rho, k, strategy="min"), -exact_weights(-r, rho, k))
        torch.testing.assert_close(exact_weights(r, rho, k, strategy="selected", scores=r), exact_weights(r, rho, k))
        torch.testing.assert_close(value_at_k(r, k, "selected", scores=r), max_at_k(r, k))
        total = (rho * exact_weights(r, rho, k, strategy="median")).sum(-1)
        expected = [
            k * oracle.mean_worth(lambda I, g=g: median_of(r[g, list(I)]) * rho[g, list(I)].prod().item(), 9, k)
            for g in range(3)
        ]
        torch.testing.assert_close(total, torch.tensor([float(x) for x in expected]).double())


def median_of(values):
    return Fraction(values.quantile(0.5).item())


def test_a_score_that_is_no_reward_pushes_down_what_it_likes_wrongly():
    """The highest score has the least reward: chosen whenever it is drawn, so that it costs."""
    scores, r = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    gains = marginal_gain(r, 2, strategy="selected", scores=scores)
    assert gains.tolist() == [0, 0, 0, pytest.approx(-0.5)]
    assert marginal_gain(r, 2)[3] == 0  # max@k sees no harm in it


def test_the_first_drawn_of_equal_scores_is_kept():
    scores, r = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 5.0, 9.0])
    assert value_at_k(r, 3, "selected", scores=scores) == 0
    assert value_at_k(r.flip(0), 3, "selected", scores=scores.flip(0)) == 5


@pytest.mark.parametrize("strategy", ["min", "median", "mean_of_best:2", "selected"])
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e6])
def test_equal_rewards_give_exactly_zero(strategy, value):
    r = torch.full((2, 7), value, dtype=torch.float64)
    rho = torch.linspace(0.5, 2, 14, dtype=torch.float64).view(2, 7)
    scores = rho.flip(-1) if strategy == "selected" else None
    for k in (2, 4, 7):
        for order in ("none", "first", "exact"):
            assert marginal_gain(r, k, rho, order, strategy=strategy, scores=scores).eq(0).all()
            if k < 7:
                assert leave_one_out(r, k, rho, order, strategy=strategy, scores=scores).eq(0).all()
        for baseline in ("marginal", "leave_one_out"):
            assert vote_weights(r, torch.arange(14).view(2, 7) % 3, k, rho, baseline).eq(0).all()


@pytest.mark.parametrize("text", ["max", "min", "mean_of_best:3", "median", "quantile:0.25", "selected", "vote"])
def test_names(text):
    assert str(Strategy.parse(text)) == text
    assert Strategy.parse(Strategy.parse(text)) == Strategy.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "strategy must be one of max, min, mean_of_best:q, median, quantile:p, selected, vote, got 'best'"),
        ("max:2", "strategy max has no parameter"),
        ("mean_of_best", "strategy mean_of_best needs its q: mean_of_best:q"),
        ("mean_of_best:0", "needs a whole number q from 1 on"),
        ("mean_of_best:1.5", "needs a whole number q from 1 on"),
        ("mean_of_best:nan", "needs a whole number q from 1 on"),
        ("mean_of_best:inf", "needs a whole number q from 1 on"),
        ("quantile:1.2", "between 0 .* and 1"),
        ("quantile:x", "'x' is not a number"),
    ],
)
def test_bad_names(text, message):
    with pytest.raises(ValueError, match=message):
        Strategy.parse(text)


def test_a_quantile_that_falls_on_a_sample_is_that_sample():
    assert Strategy.parse("quantile:0.9").rank_weights(11).values == (0, 1, *[0] * 9)


def test_bad_arguments():
    r = torch.rand(2, 5)
    for call, message in {
        "strategy mean_of_best:4 needs k of at least 4, got k = 3": lambda: value_at_k(r, 3, "mean_of_best:4"),
        "strategy vote goes by keys": lambda: value_at_k(r, 3, "vote"),
        "strategy selected needs scores": lambda: exact_weights(r, r + 1, 3, strategy="selected"),
        "one for each of k = 3 samples, got 2": lambda: value_at_k(r, 3, [1.0, 0.0]),
        "finite numbers, not all 0": lambda: value_at_k(r, 2, [0.0, 0.0]),
        "must be finite numbers": lambda: value_at_k(r, 2, [0.0, float("nan")]),
        "scores must have the shape of rewards": lambda: value_at_k(r, 2, "selected", scores=r[0]),
        r"scores must be finite: scores\[0, 0\]": lambda: value_at_k(r, 2, "selected", scores=r / 0),
        "keys must be integers": lambda: vote_at_k(r, r, 2),
        "keys must have the shape": lambda: vote_weights(r, torch.zeros(5).long(), 2),
    }.items():
        with pytest.raises(ValueError, match=call):
            message()


def test_shapes_and_types():
    r = torch.rand(2, 3, 6)
    rho, keys = r + 0.5, (4 * r).long()
    for dtype in (torch.float32, torch.float64):
        x = r.to(dtype)
        assert value_at_k(x, 3, "median").shape == vote_at_k(x, keys, 3).shape == (2, 3)
        for result in (
            exact_weights(x, rho, 3, strategy="median"),
            leave_one_out(x, 3, rho, strategy="min"),
            vote_weights(x, keys, 3, rho),
        ):
            assert result.shape == x.shape
            assert result.dtype == dtype
            assert not result.requires_grad
    assert vote_weights(r[:0], keys[:0], 3).shape == (0, 3, 6)
    many, votes = r.expand(20, 2, 3, 6), keys.expand(20, 2, 3, 6)  # more than are taken at a time
    torch.testing.assert_close(vote_weights(many, votes, 3)[19], vote_weights(r, keys, 3))
