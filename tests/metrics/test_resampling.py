"""The one engine of intervals: scipy's BCa, from one matrix of counts; its shortcuts against plain resampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from align_bench.metrics import resampling
from align_bench.metrics.clusters import clustered_mean
from align_bench.metrics.length_bias import _rank_correlation, partial_correlation
from align_bench.metrics.length_control import _in_bins
from align_bench.metrics.mean import mean
from align_bench.metrics.resampling import Matrix, OfSums, by_cluster, estimates, resampled
from align_bench.records import Estimate

SKEWED = np.random.default_rng(1).exponential(size=40)


def mean_of(values: Matrix) -> Callable[[Matrix], Matrix]:
    return lambda counts: (counts @ values / counts.sum(-1))[..., None]


def ratio_of(sums: Matrix) -> Callable[[Matrix], Matrix]:
    return lambda counts: (counts @ sums[:, 0] / (counts @ sums[:, 1]))[..., None]


def interval(found: Estimate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def scipys(statistic: Callable[..., float], *columns: Matrix) -> tuple[float, float]:
    """scipy's interval, at the level whose normal quantile is Student's times √(n / (n − 1))."""
    prompts = len(columns[0])
    expanded = math.sqrt(prompts / (prompts - 1)) * stats.t.ppf(0.975, prompts - 1)
    found = stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=9_999,
        method="BCa",
        confidence_level=1 - 2 * stats.norm.sf(expanded),
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def test_it_is_scipys_bca_of_the_same_resamples() -> None:
    (found,) = estimates(mean_of(SKEWED), 40)
    assert found.value == pytest.approx(SKEWED.mean(), rel=1e-12)
    assert interval(found) == pytest.approx(scipys(np.mean, SKEWED), rel=1e-12)
    weights = np.random.default_rng(2).uniform(1, 5, 40)
    sums = np.stack([SKEWED, weights, SKEWED**2], axis=1)

    def both(counts: Matrix) -> Matrix:
        total, weight, squares = np.moveaxis(counts @ sums, -1, 0)
        return np.stack([total / weight, squares / total], axis=-1)

    ratio, other = estimates(both, 40)
    assert interval(ratio) == pytest.approx(scipys(lambda x, w: x.sum() / w.sum(), SKEWED, weights), rel=1e-12)
    assert interval(other) == pytest.approx(scipys(lambda x: (x**2).sum() / x.sum(), SKEWED), rel=1e-12)


@pytest.mark.parametrize("prompts", [8, 400])  # resamples of 400 prompts come in 31 batches
def test_a_statistic_of_sums_is_the_same_one_batch_by_batch(prompts: int) -> None:
    table = np.random.default_rng(3).exponential(size=(prompts, 2))

    def ratio(sums: Matrix) -> Matrix:
        return np.stack([sums[..., 0] / sums[..., 1], sums[..., 1] / sums[..., 0]], axis=-1)

    assert estimates(OfSums(table, ratio), prompts) == estimates(lambda counts: ratio(counts @ table), prompts)


def test_clusters_are_drawn_whole() -> None:
    codes = np.repeat(np.arange(12), np.arange(12) % 4 + 1)
    values = np.random.default_rng(3).exponential(size=len(codes)) + codes / 5
    sums = by_cluster([np.ones(len(codes)), values], codes)
    (found,) = estimates(lambda counts: (counts @ sums[:, 1] / (counts @ sums[:, 0]))[..., None], 12, len(codes))

    def of_rows(prompts: Matrix) -> float:
        return float(np.concatenate([values[codes == prompt] for prompt in prompts]).mean())

    assert found.value == pytest.approx(values.mean())
    assert interval(found) == pytest.approx(scipys(of_rows, np.arange(12.0)), rel=1e-12)
    assert found.n == len(codes)


def test_one_matrix_of_counts_for_each_number_of_prompts() -> None:
    counts = resampling._counts(30)
    assert resampling._counts(30) is counts
    assert counts.shape == (9_999, 30)
    assert counts.dtype == np.uint8
    assert (counts.sum(axis=1, dtype=int) == 30).all()
    rows = np.random.default_rng(0).integers(0, 30, (9_999, 30))
    assert (counts[[0, 5_000, 9_998]] == [np.bincount(rows[at], minlength=30) for at in (0, 5_000, 9_998)]).all()


def test_what_has_no_interval() -> None:
    assert estimates(mean_of(np.full(9, 0.1)), 9)[0].low is None
    assert estimates(mean_of(np.array([3.0])), 1) == [Estimate(3.0, n=1)]
    assert estimates(mean_of(np.array([])), 0) == [Estimate(None, n=0)]
    assert estimates(mean_of(np.array([1.0, math.nan])), 2, 7) == [Estimate(None, n=7)]
    # The least of a resample is never below that of all: there is no bias to correct.
    least = estimates(lambda counts: np.where(counts > 0, SKEWED, np.inf).min(-1)[..., None], 40)[0]
    assert least.value == SKEWED.min()
    nothing_below = estimates(lambda counts: (counts > 1).sum(-1)[..., None].astype(float), 40)[0]
    assert nothing_below == Estimate(0.0, n=40)


@pytest.mark.parametrize(("prompts", "defined"), [(2, False), (3, True)])
def test_an_interval_needs_nineteen_resamples_in_twenty(prompts: int, defined: bool) -> None:
    """One prompt has nothing: of two, one resample in four is undefined, of three one in 27."""
    known = np.arange(prompts) > 0
    values = np.where(known, np.arange(prompts) ** 2.0, 0)
    (found,) = estimates(lambda counts: (counts @ values / (counts @ known))[..., None], prompts)
    assert found.value == pytest.approx(values[1:].mean())
    assert (found.low is not None) == defined


def test_above_so_many_prompts_it_is_the_t_interval_of_the_jackknife(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MOST_PROMPTS", 39)
    (each,) = estimates(mean_of(SKEWED), 40)  # groups of one prompt
    assert interval(each) == pytest.approx(interval(mean(SKEWED)), rel=1e-9)
    assert each.wanted == mean(SKEWED).wanted
    values = np.random.default_rng(5).normal(size=30_000)
    (grouped,) = estimates(mean_of(values), 30_000)
    assert interval(grouped) == pytest.approx(interval(mean(values)), abs=0.001)
    monkeypatch.setattr(resampling, "_counts", None)
    assert estimates(mean_of(np.full(40, 0.1)), 40)[0].low is None


def test_few_prompts_are_covered_too_and_fewer_than_eight_say_so() -> None:
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(100):
        pairs = rng.integers(1, 6, 8).astype(float)
        right = rng.binomial(pairs.astype(int), 0.7)
        sums = np.stack([right, pairs], axis=1)
        (found,) = estimates(ratio_of(sums), 8, 24)
        low, high = interval(found)
        covered.append(low <= 0.7 <= high)
    assert np.mean(covered) >= 0.9  # 0.86 without the expansion
    shares = [estimates(mean_of(np.arange(prompts) / 7), prompts, 3 * prompts)[0].wanted for prompts in (7, 8)]
    assert shares == [24, None]


def test_skewed_values_want_more_prompts() -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, 100)
    (found,) = estimates(mean_of(values), 100)
    assert found.wanted == mean(values).wanted
    assert (found.wanted or 0) > 100
    assert estimates(mean_of(np.random.default_rng(0).normal(size=100)), 100)[0].wanted is None
    codes = np.repeat(np.arange(50), 2)
    by_prompt = mean(values, codes.tolist())
    assert (clustered_mean(values, codes).wanted or 0) / 2 == pytest.approx(by_prompt.wanted, abs=1)  # 2 pairs a prompt


# -- each shortcut, against the plain statistic of really resampled rows -----------------------------------------------

CODES = np.repeat(np.arange(15), np.arange(15) % 3 + 1)
PAIRS = len(CODES)
DRAW = np.random.default_rng(8)
WORDS = [DRAW.integers(1, 9, PAIRS).astype(float) for _ in range(2)]  # with ties
SCORES = [np.round(0.2 * words + DRAW.normal(size=PAIRS), 1) for words in WORDS]


def rows_of(counts: Matrix) -> list[int]:
    return [row for prompt, count in enumerate(counts) for row in np.flatnonzero(prompt == CODES).tolist() * int(count)]


def check(statistic: Callable[[Matrix], Matrix], plain: Callable[[list[int]], float]) -> None:
    drawn = resampled(statistic, 15)[:, 0]
    for at in range(0, 9_999, 1_111):
        assert drawn[at] == pytest.approx(plain(rows_of(resampling._counts(15)[at])), rel=1e-10)


def test_partial_correlation_of_resampled_rows() -> None:
    def plain(rows: list[int]) -> float:
        scores, words = ([side[rows] - side[rows].mean() for side in sides] for sides in (SCORES, WORDS))
        return float(stats.pearsonr(np.concatenate(scores), np.concatenate(words)).statistic)

    check(partial_correlation(SCORES[0], SCORES[1], WORDS[0], WORDS[1], CODES), plain)


def test_rank_correlation_of_resampled_rows() -> None:
    both = np.concatenate([CODES, CODES])
    scores, words = np.concatenate(SCORES), np.concatenate(WORDS)

    def plain(rows: list[int]) -> float:
        twice = [*rows, *(row + PAIRS for row in rows)]
        return float(stats.spearmanr(scores[twice], words[twice]).statistic)

    check(_rank_correlation(scores, words, both), plain)


def test_length_controlled_accuracy_of_resampled_rows() -> None:
    right = (np.sign(SCORES[0] - SCORES[1]) + 1) / 2
    longer, bins = np.sign(WORDS[0] - WORDS[1]), np.ceil(np.abs(WORDS[0] - WORDS[1]) / 2)

    def plain(rows: list[int]) -> float:
        total, pairs = 0.0, 0
        for number in set(bins[rows].tolist()):
            here = [row for row in rows if bins[row] == number]
            sides = [[right[row] for row in here if longer[row] == side] for side in (-1, 1)]
            if number == 0:
                total, pairs = total + sum(right[here]), pairs + len(here)
            elif all(sides):
                total += len(here) * sum(np.mean(side) for side in sides) / 2
                pairs += len(here)
        return total / pairs

    check(_in_bins(right, longer, bins, CODES), plain)
