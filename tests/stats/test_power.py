"""How many seeds a difference between methods takes, against simulations of the test itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, stdtrit

from align_bench.stats.power import power_between_methods, seeds_needed


def simulated(dz: float, seed_noise: float, seeds: int, prompts: int, tests: int, repetitions: int = 1500) -> float:
    """How often two methods that differ by dz are told apart, by their scores on each prompt.

    Half of the variance of a difference on one prompt is the methods' own, half that of the checkpoints.
    """
    rng = np.random.default_rng(0)
    shape = repetitions, 2, seeds, prompts
    scores = rng.normal(0, 0.5, (repetitions, 2, 1, prompts)) + rng.normal(0, 0.5, shape)
    scores += rng.normal(0, seed_noise, (repetitions, 2, seeds, 1))
    scores[:, 0] += dz
    differences = scores[:, 0].mean(axis=1) - scores[:, 1].mean(axis=1)
    over_prompts = differences.var(axis=-1, ddof=1) / prompts
    over_seeds = scores.mean(axis=3).var(axis=2, ddof=1) / seeds
    means = scores.mean(axis=(2, 3), keepdims=True)
    left = scores - scores.mean(axis=3, keepdims=True) - scores.mean(axis=2, keepdims=True) + means
    residual = (left**2).sum(axis=(2, 3)) / ((seeds - 1) * (prompts - 1)) / prompts / seeds
    variance = np.maximum(over_prompts, over_prompts + over_seeds.sum(axis=1) - residual.sum(axis=1))
    df = variance**2 / (over_prompts**2 / (prompts - 1) + (over_seeds**2).sum(axis=1) / (seeds - 1))
    critical = stats.t.isf(0.025 / tests, np.maximum(df, min(seeds, prompts) - 1))
    return float(np.mean(np.abs(differences.mean(axis=-1)) > critical * np.sqrt(variance)))


@pytest.mark.parametrize(
    ("dz", "seed_noise", "seeds", "prompts", "tests"),
    [(0.2, 0.1, 3, 60, 1), (0.5, 0.1, 4, 60, 10), (0.3, 0.05, 5, 100, 3), (0.3, 0.1, 10, 60, 3), (0.3, 0.0, 3, 100, 3)],
)
def test_power_is_how_often_the_test_finds_the_difference(
    dz: float, seed_noise: float, seeds: int, prompts: int, tests: int
) -> None:
    found = power_between_methods(dz, seed_noise, seeds, prompts, tests)
    assert found == pytest.approx(simulated(dz, seed_noise, seeds, prompts, tests), abs=0.035)


def test_its_quantiles_and_tails_are_those_of_scipys_distributions() -> None:
    df, x = np.linspace(1, 3000, 500), np.linspace(-9, 9, 500)
    for alpha in (0.025, 0.025 / 61):
        assert np.array_equal(-stdtrit(df, alpha), stats.t.isf(alpha, df))
    assert np.array_equal(ndtr(-x), stats.norm.sf(x))


def test_three_seeds_find_little() -> None:
    """Two methods and the base, a seed noise of 0.1: a fifth of the differences of dz 0.2 are found."""
    assert power_between_methods(0.2, 0.1, 3, 200, 3) == pytest.approx(0.22, abs=0.01)


def test_the_seeds_needed_are_the_fewest_with_four_fifths() -> None:
    for dz, seed_noise, prompts, tests in ((0.2, 0.1, 1000, 1), (0.5, 0.1, 200, 10), (0.3, 0.05, 500, 3)):
        seeds = seeds_needed(dz, seed_noise, prompts, tests)
        assert seeds is not None
        enough, fewer = (power_between_methods(dz, seed_noise, own, prompts, tests) for own in (seeds, seeds - 1))
        assert enough is not None
        assert enough >= 0.8
        assert fewer is None or fewer < 0.8
    assert seeds_needed(5.0, 0.1, 200) == 3


def test_more_of_anything_but_noise_and_tests_finds_more() -> None:
    less = power_between_methods(0.2, 0.1, 4, 200, 3)
    assert less is not None
    for better in (
        power_between_methods(0.3, 0.1, 4, 200, 3),
        power_between_methods(0.2, 0.05, 4, 200, 3),
        power_between_methods(0.2, 0.1, 6, 200, 3),
        power_between_methods(0.2, 0.1, 4, 2000, 3),
        power_between_methods(0.2, 0.1, 4, 200, 1),
    ):
        assert better is not None
        assert better > less
    assert power_between_methods(-0.2, 0.1, 4, 200, 3) == less


def test_what_seeds_and_prompts_cannot_find_is_undefined() -> None:
    assert seeds_needed(0.1, 0.1, 200, 15) is None
    assert seeds_needed(0.1, 0.1, 1) is None
    for seeds, prompts, tests in ((2, 200, 1), (1, 200, 1), (3, 1, 1), (3, 200, 0)):
        assert power_between_methods(0.5, 0.1, seeds, prompts, tests) is None
