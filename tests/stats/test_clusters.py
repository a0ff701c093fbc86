"""Several pairs of one prompt: the paired t, Wilcoxon's test, BCa and TOST take prompts, not pairs, for independent."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from scipy.stats import t as student

from align_bench.stats.bootstrap import bca_means
from align_bench.stats.equivalence import prompt_spread, tost_paired
from align_bench.stats.paired import Difference, paired_t, wilcoxon_p
from align_bench.stats.power import detectable_between_seeds
from align_bench.stats.ranking import friedman, ranks

# Five pairs of three prompts.
DIFFERENCES, PROMPTS = [1.0, 3.0, -1.0, 2.0, 5.0], ["p", "p", "q", "q", "r"]


def lopsided(seed: int = 1) -> tuple[list[float], list[float], list[int]]:
    rng = random.Random(seed)
    prompts = [prompt for prompt in range(12) for _ in range(1 + prompt % 4)]
    shared = {prompt: rng.gauss(0, 1) for prompt in prompts}
    a = [0.4 + shared[prompt] + rng.gauss(0, 0.2) for prompt in prompts]
    return a, [rng.gauss(0, 0.2) for _ in prompts], prompts


def clustered_error(differences: list[float], prompts: Sequence[Hashable]) -> float:
    """√(G/(G−1) · Σ_g (Σ_i∈g e_i)²) / N, from its definition (the factor (N−1)/(N−K) is 1 for a mean)."""
    centre = statistics.mean(differences)
    sums: defaultdict[Hashable, float] = defaultdict(float)
    for value, prompt in zip(differences, prompts, strict=True):
        sums[prompt] += value - centre
    groups = len(sums)
    return math.sqrt(groups / (groups - 1) * sum(own**2 for own in sums.values())) / len(differences)


def test_clustered_t_by_its_definition() -> None:
    a, b, prompts = lopsided()
    differences = [left - right for left, right in zip(a, b, strict=True)]
    error, freedom = clustered_error(differences, prompts), 11
    found = paired_t(a, b, prompts)
    assert found.difference == pytest.approx(statistics.mean(differences))
    assert found.p == pytest.approx(2 * student.sf(abs(statistics.mean(differences)) / error, freedom), rel=1e-10)
    assert found.low == pytest.approx(statistics.mean(differences) - student.ppf(0.975, freedom) * error, rel=1e-10)
    naive = paired_t(a, b)
    assert (found.high or 0) - (found.low or 0) > 1.3 * ((naive.high or 0) - (naive.low or 0))


def test_clustered_t_by_hand() -> None:
    # Mean 2; sums of the residuals −1 + 1 = 0, −3 + 0 = −3, 3: variance 3/2 · 18 / 25 = 1.08; t_2 at 97.5% is 4.302653.
    found = paired_t(DIFFERENCES, [0.0] * 5, PROMPTS)
    assert found.difference == 2.0
    assert found.high == pytest.approx(2 + 4.30265273 * math.sqrt(1.08))
    assert found.effect == pytest.approx(2 / statistics.stdev(DIFFERENCES))
    assert found.n == 5


def test_prompts_with_the_same_mean_difference_allow_no_test() -> None:
    # 2 on either prompt: the clustered standard error is 0, which is no certainty.
    differences, prompts = [1.0, 3.0, 3.0, 1.0], ["p", "p", "q", "q"]
    assert paired_t(differences, [0.0] * 4, prompts) == Difference(2.0, None, None, None, None, 4)
    assert tost_paired(differences, [0.0] * 4, 5.0, prompts) is None
    assert paired_t(differences, [0.0] * 4).p is not None


def test_one_pair_a_prompt_needs_no_clusters() -> None:
    a, b, _ = lopsided()
    assert paired_t(a, b, list(range(len(a)))) == paired_t(a, b)
    one_prompt = paired_t(a, b, [0] * len(a))
    assert (one_prompt.low, one_prompt.p) == (None, None)
    with pytest.raises(ValueError, match="clusters"):
        paired_t(a, b, [0])


def test_wilcoxon_by_enumeration() -> None:
    # |d| ranks 2, 4, 1, 3: the negative one holds rank 1; 2 of 16 sign patterns have a sum of negative ranks ≤ 1.
    assert wilcoxon_p([2.0, 4.0, -1.0, 3.0], [0.0] * 4) == pytest.approx(4 / 16)
    assert wilcoxon_p([1.0, 2.0], [1.0, 2.0]) is None
    assert wilcoxon_p([1.0], [0.0]) is wilcoxon_p([], []) is None
    assert wilcoxon_p([1.0, 2.0], [0.0, 0.0]) == pytest.approx(2 / 4)
    # Three pairs of one prompt have a mean of 1, below the 2 of another one: 3 of 16 patterns have a sum ≤ 2.
    averaged = wilcoxon_p([1.0, 1.0, 1.0, -2.0, 3.0, 4.0], [0.0] * 6, ["p", "p", "p", "q", "r", "s"])
    assert averaged == pytest.approx(6 / 16)


def test_wilcoxon_takes_the_mean_of_a_prompt() -> None:
    a, b, prompts = lopsided()
    means = [
        statistics.mean(x - y for x, y, own in zip(a, b, prompts, strict=True) if own == prompt)
        for prompt in dict.fromkeys(prompts)
    ]
    assert wilcoxon_p(a, b, prompts) == pytest.approx(wilcoxon_p(means, [0.0] * len(means)))


def test_pratts_zeros_keep_their_ranks() -> None:
    """Pratt ranks zeros and then drops them; Wilcoxon's own treatment would drop them first."""
    differences = [0.0, 0.0, 0.0, 1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0]
    # The others have the ranks 4 to 10, of which −3 has 6: 4 of 128 sign patterns have a sum of negative ranks ≤ 6.
    assert wilcoxon_p(differences, [0.0] * 10) == pytest.approx(8 / 128)


def bca_by_definition(values: list[float], drawn: np.ndarray) -> tuple[float, float]:
    """Efron 1987: bias z0 from the share below the mean, acceleration from the jackknife."""
    normal = statistics.NormalDist()
    mean, n = statistics.mean(values), len(values)
    z0 = normal.inv_cdf(float((np.mean(drawn < mean) + np.mean(drawn <= mean)) / 2))
    left_out = [(sum(values) - value) / (n - 1) for value in values]
    gaps = [statistics.mean(left_out) - value for value in left_out]
    acceleration = sum(gap**3 for gap in gaps) / (6 * sum(gap**2 for gap in gaps) ** 1.5)
    shares = [
        normal.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
        for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975))
    ]
    low, high = np.quantile(drawn, shares)
    return float(low), float(high)


def test_bca_by_its_definition() -> None:
    rng = np.random.default_rng(4)
    skewed = np.stack([rng.exponential(size=60), -rng.exponential(size=60)], axis=1)
    found = bca_means(skewed)
    drawn = np.random.default_rng(9).choice(skewed[:, 0], size=(20_000, 60)).mean(axis=1)
    assert found[0].tolist() == pytest.approx(bca_by_definition(skewed[:, 0].tolist(), drawn), abs=0.02)
    # the longer tail gets the longer arm
    assert found[0, 1] - skewed[:, 0].mean() > skewed[:, 0].mean() - found[0, 0]
    assert found[1, 1] - skewed[:, 1].mean() < skewed[:, 1].mean() - found[1, 0]


def test_bca_equals_scipys_for_a_single_column() -> None:
    from scipy.stats import bootstrap, norm

    values = np.random.default_rng(0).normal(size=40)
    level = 1 - 2 * norm.sf(math.sqrt(40 / 39) * student.ppf(0.975, 39))  # expanded for few
    interval = bootstrap(
        (values,), np.mean, n_resamples=9_999, method="BCa", confidence_level=level, rng=np.random.default_rng(0)
    ).confidence_interval
    assert bca_means(values[:, None])[0].tolist() == pytest.approx([interval.low, interval.high], rel=1e-12)


def test_bca_resamples_whole_prompts() -> None:
    a, b, prompts = lopsided()
    differences = np.subtract(a, b)[:, None]
    wide, narrow = bca_means(differences, prompts)[0], bca_means(differences)[0]
    assert np.ptp(wide) > 1.2 * np.ptp(narrow)
    assert np.ptp(wide) / 2 == pytest.approx(1.96 * clustered_error(differences[:, 0].tolist(), prompts), rel=0.25)


def test_bca_is_undefined_where_nothing_varies() -> None:
    found = bca_means(np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    assert np.isnan(bca_means(np.zeros((0, 2)))).all()
    assert np.isnan(bca_means(np.array([[1.0], [2.0]]), ["p", "p"])).all()
    assert bca_means(np.array([[1.0], [3.0]])).tolist() == [[1.0, 3.0]]  # two prompts: 1, 2 or 3


def test_bca_has_the_unit_of_its_values() -> None:
    values = np.random.default_rng(3).normal(size=(30, 1))
    assert bca_means(values / 1024) * 1024 == pytest.approx(bca_means(values), rel=1e-12)


def one_sided(differences: list[float], margin: float, error: float, freedom: int) -> float:
    mean = statistics.mean(differences)
    return float(max(student.sf((mean + margin) / error, freedom), student.cdf((mean - margin) / error, freedom)))


def test_tost_by_its_definition() -> None:
    a, b, prompts = lopsided()
    differences = [left - right for left, right in zip(a, b, strict=True)]
    plain = statistics.stdev(differences) / math.sqrt(len(differences))
    clustered = clustered_error(differences, prompts)
    for margin in (0.2, 1.0, 3.0):
        expected = one_sided(differences, margin, plain, len(differences) - 1)
        assert tost_paired(a, b, margin) == pytest.approx(expected, rel=1e-9)
        expected = one_sided(differences, margin, clustered, 11)
        assert tost_paired(a, b, margin, prompts) == pytest.approx(expected, rel=1e-9)
        turned = one_sided([-gap for gap in differences], margin, clustered, 11)
        assert tost_paired(b, a, margin, prompts) == pytest.approx(turned, rel=1e-9)


def test_tost_by_hand() -> None:
    # Differences 0, 1, −1, standard error 1/√3, margin √3: t = 3 with 2 degrees of freedom; P(T > 3) = ½(1 − 3/√11).
    assert tost_paired([0.0, 1.0, -1.0], [0.0] * 3, math.sqrt(3)) == pytest.approx(0.5 * (1 - 3 / math.sqrt(11)))
    # Two prompts with 1 and 3: t = (2 − 5) / 1 with one degree of freedom, whose distribution is Cauchy's.
    assert tost_paired([1.0, 3.0], [0.0, 0.0], 5.0) == pytest.approx(0.5 - math.atan(3) / math.pi)
    # Clustered, with a standard error of √1.08 and 2 degrees of freedom: P(T < −x) = ½(1 − x / √(2 + x²)).
    below = 0.5 / math.sqrt(1.08)
    expected = 0.5 * (1 - below / math.sqrt(2 + below**2))
    assert tost_paired(DIFFERENCES, [0.0] * 5, 2.5, PROMPTS) == pytest.approx(expected)
    turned = [-difference for difference in DIFFERENCES]
    assert tost_paired(turned, [0.0] * 5, 2.5, PROMPTS) == pytest.approx(expected)
    assert tost_paired([1.0, 1.0], [0.0, 0.0], 2.0) is tost_paired([], [], 2.0) is None


def test_prompt_spread_pools_every_pair_of_seeds() -> None:
    a, b = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]]), np.array([[1.0, 1.0, 1.0]])
    assert prompt_spread(a, b) == pytest.approx(math.sqrt((statistics.variance([0, 1, 3]) + 3) / 2))
    assert prompt_spread(a[:, :1], b[:, :1]) is None


def test_ranks_by_hand() -> None:
    higher = np.zeros((4, 4), dtype=bool)
    higher[0, 3] = higher[1, 3] = higher[0, 2] = True  # the first is above two, the last below two
    found = ranks([3.0, 2.0, 2.0, 1.0], higher)
    assert [(place.rank, place.low, place.high) for place in found] == [(1, 1, 2), (2.5, 1, 3), (2.5, 2, 4), (4, 3, 4)]
    assert [(place.rank, place.low) for place in ranks([1.0, 2.0], None)] == [(2, None), (1, None)]


def test_bounds_hold_the_rank_of_the_means() -> None:
    """Two models may be told apart on pairs that the others lack, against the means over what all have."""
    higher = np.array([[False, True], [False, False]])
    assert [(place.rank, place.low, place.high) for place in ranks([1.0, 2.0], higher)] == [(2, 1, 2), (1, 1, 2)]


def test_friedman_by_its_formula() -> None:
    columns = [[1.0, 2.0, 3.0, 9.0], [2.0, 3.0, 4.0, 8.0], [3.0, 4.0, 5.0, 7.0]]
    # Rank sums 1+1+1+3, 2·4, 3+3+3+1; χ² = 12/(4·3·4)·Σ R² − 3·4·4 = 2; P(χ²_2 > 2) = 1/e.
    assert friedman(columns) == pytest.approx(math.exp(-1))
    assert friedman(columns[:2]) is None
    assert friedman([[1.0, 2.0]] * 3) is None
    doubled = [[value for value in column for _ in range(2)] for column in columns]
    assert friedman(doubled, [0, 0, 1, 1, 2, 2, 3, 3]) == pytest.approx(math.exp(-1))


def test_detectable_between_seeds_has_its_power() -> None:
    """With 80% power, four in five simulated comparisons of that size are found."""
    size = detectable_between_seeds(4)
    assert size is not None
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20_000, 4)) + size, rng.normal(size=(20_000, 4))
    pooled = np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / 2 * 2 / 4)
    found = np.abs(a.mean(1) - b.mean(1)) / pooled > student.ppf(0.975, 6)
    assert found.mean() == pytest.approx(0.8, abs=0.015)
    assert detectable_between_seeds(1) is None
    assert detectable_between_seeds(3, 0) is None
