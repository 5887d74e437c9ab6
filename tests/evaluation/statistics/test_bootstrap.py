from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from openrlhf_maxk.evaluation.statistics.bootstrap import mean_interval
from openrlhf_maxk.evaluation.statistics.estimators import pass_at_k

POPULATIONS = {  # a sampler of problems' values, and their true mean
    "skewed": (lambda rng, size: rng.beta(0.3, 1.2, size), 0.2),
    "u-shaped": (lambda rng, size: rng.beta(0.5, 0.5, size), 0.5),
    "sparse": (lambda rng, size: (rng.random(size) < 0.1) * rng.random(size), 0.05),
    "nearly all solved": (lambda rng, size: (rng.random(size) < 0.9).astype(float), 0.9),
}


def test_agrees_with_scipys_bca():
    values = np.random.default_rng(3).beta(0.3, 1.2, size=(120, 3))
    ours = mean_interval(values, resamples=20_000)
    theirs = bootstrap((values,), np.mean, axis=0, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    np.testing.assert_allclose(ours.mean, values.mean(axis=0))
    np.testing.assert_allclose(ours.low, theirs.confidence_interval.low, atol=2e-3)
    np.testing.assert_allclose(ours.high, theirs.confidence_interval.high, atol=2e-3)


def coverage(population, problems, runs, resamples, seed):
    draw, truth = POPULATIONS[population]
    rng = np.random.default_rng(seed)
    values = draw(rng, (runs, problems)).T
    # All runs in one call share their resampling weights, which does not matter for each run's own coverage.
    interval = mean_interval(values, resamples=resamples)
    return np.mean((interval.low <= truth) & (truth <= interval.high))


@pytest.mark.parametrize("population", POPULATIONS)
def test_coverage_of_the_nominal_95_percent(population):
    # 6,000 runs: the standard error of the coverage is 0.3 %.
    assert 0.93 <= coverage(population, problems=128, runs=6000, resamples=1000, seed=11) <= 0.97


@pytest.mark.parametrize("problems", [96, 165, 276])
def test_coverage_of_zeros_and_ones_at_every_rate(problems):
    """pass@n of n samples is 0 or 1: all outcomes can be gone through, so that the coverage is exact."""
    solved = np.arange(problems + 1)
    interval = mean_interval((np.arange(problems)[:, None] < solved).astype(float))
    rates = np.arange(0.05, 0.951, 0.01)
    rates = rates[problems * np.minimum(rates, 1 - rates) >= 8]  # enough problems of either kind
    covered = (interval.low <= rates[:, None] + 1e-12) & (rates[:, None] - 1e-12 <= interval.high)
    coverages = np.sum(binom.pmf(solved, problems, rates[:, None]) * covered, axis=1)
    assert 0.945 <= coverages.mean() <= 0.96
    assert coverages.min() >= 0.93
    assert coverages.max() <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("problems", [96, 276])
@pytest.mark.parametrize("population", POPULATIONS)
def test_coverage_at_the_sizes_of_the_papers_sets(population, problems):
    assert 0.93 <= coverage(population, problems, runs=8000, resamples=2000, seed=5) <= 0.97


def test_coverage_of_pass_at_k_with_sampled_programs():
    """Both sources of noise at once: problems are drawn, then 32 samples of each."""
    rng = np.random.default_rng(7)
    runs, problems, n, k = 4000, 128, 32, 8
    truth = np.mean(1 - (1 - rng.beta(0.4, 1.6, 2_000_000)) ** k)
    correct = rng.binomial(n, rng.beta(0.4, 1.6, size=(runs, problems)))
    values = pass_at_k(correct.reshape(-1), n, [k]).reshape(runs, problems)
    interval = mean_interval(values.T, resamples=1000)
    assert 0.93 <= np.mean((interval.low <= truth) & (truth <= interval.high)) <= 0.97


def test_missing_values_are_left_out_and_counted():
    values = np.asarray([[0.0, np.nan, np.nan], [1.0, 1.0, np.nan], [0.5, 0.5, np.nan]])
    interval = mean_interval(values)
    np.testing.assert_allclose(interval.mean, [0.5, 0.75, np.nan])
    assert interval.problems.tolist() == [3, 2, 0]
    assert np.isnan(interval.low[2])
    assert np.isnan(interval.high[2])


def test_columns_without_spread_have_no_width():
    interval = mean_interval(np.full((50, 1), 0.1))
    assert interval.low[0] == interval.mean[0] == interval.high[0]


def test_same_seed_same_interval_and_memory_is_bounded():
    values = np.random.default_rng(0).random((9000, 2))  # more than one chunk of resamples
    first, second = mean_interval(values, resamples=1000), mean_interval(values, resamples=1000)
    np.testing.assert_array_equal(first.low, second.low)
    np.testing.assert_allclose(first.high - first.low, 2 * 1.96 * values.std(axis=0) / np.sqrt(9000), rtol=0.15)


def test_bad_arguments():
    with pytest.raises(ValueError, match="shape"):
        mean_interval(np.zeros(3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval(np.zeros((3, 1)), confidence=95)
