"""The metrics of a judge's audit, each against a naive re-derivation and a value computed by hand."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.optimize import minimize, minimize_scalar

from align_bench.data.preferences import DataSource, read
from align_bench.judge.gold import gold_score
from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.agreement import Scores, kendall_tau, preference_agreement
from align_bench.metrics.calibration import (
    brier,
    calibration_error,
    calibration_test,
    log_loss,
    longer_first,
    reliability,
    temperature,
)
from align_bench.metrics.counterfactual import flip_rate, mean_shift
from align_bench.metrics.finite import Column
from align_bench.metrics.format_effects import FEATURES, Form, features, form_effects
from align_bench.metrics.length import count_words
from align_bench.metrics.length_bias import score_by_length
from align_bench.metrics.length_control import length_controlled, length_matched
from align_bench.records import Estimate

RNG = random.Random(5)
N = 120
WORDS = [float(RNG.randint(1, 60)) for _ in range(N)], [float(RNG.randint(1, 60)) for _ in range(N)]
# Labels that follow the score; scores that follow length.
SCORES = (
    [0.05 * words + RNG.gauss(0.8, 1) for words in WORDS[0]],
    [0.05 * words + RNG.gauss(0, 1) for words in WORDS[1]],
)
OWN = list(range(N))
SHARED = [number // 3 for number in range(N)]
NONE = Estimate(None)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def interval(found: Estimate) -> tuple[float, float, float]:
    """Lower bound, value and upper bound, none of which may be undefined."""
    assert found.low is not None
    assert found.value is not None
    assert found.high is not None
    return found.low, found.value, found.high


# -- agreement ---------------------------------------------------------------------------------------------------------


def test_tau_counts_pairs() -> None:
    a, b = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    agree = sum(1 if (a[i] - a[j]) * (b[i] - b[j]) > 0 else -1 for i, j in combinations(range(4), 2))
    assert kendall_tau(a, b) == pytest.approx(agree / 6) == pytest.approx(4 / 6)
    assert kendall_tau(a, a[::-1]) == pytest.approx(-1)
    assert kendall_tau([1.0], [2.0]) is None
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None


def test_agreement_is_the_share_of_preferences_both_have() -> None:
    first: Scores = {"x": {1: 2.0, 2: 0.0, 3: 1.0}, "y": {1: 1.0, 2: 1.0, 3: 1.0}, "z": {1: 0.0, 2: 2.0}}
    second: Scores = {"x": {1: 5.0, 2: 5.0, 3: 1.0}, "y": {1: 1.0, 2: 4.0, 3: 0.0}, "z": {1: 2.0, 2: 4.0}}
    # Prompt 1: x>y both, x>z both, y>z against; prompt 2: x<y and x<z against, y and z a tie for one; 3: a tie.
    found = preference_agreement(first, second)
    assert found.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.n == 2
    assert preference_agreement({"x": {1: 1.0}}, {"x": {1: 2.0}}).value is None


SIDES = ("chosen", "rejected")


def embedded_pairs(bias: str) -> list[list[str]]:
    """Chosen and rejected answers of the embedded validation pairs."""
    rows = read(DataSource("embedded/planted", split="val", bias=bias)).rows
    both = [row for row in rows if row.chosen is not None and row.rejected is not None]
    return [[getattr(row, side) for row in both] for side in SIDES]


# -- length ------------------------------------------------------------------------------------------------------------


def test_matched_pairs_differ_by_less_than_a_tenth_of_the_longer() -> None:
    found = length_matched([1, 0, 1, 1], [0, 1, 0, 1], [100, 100, 10, 91], [91, 90, 20, 100])
    assert (found.value, found.n) == (0.75, 2)  # 91 of 100 is in, 90 of 100 is out; the last one is a tie


def test_length_controlled_weighs_both_sides_of_a_bin_alike() -> None:
    # Δ = 0: one of two right; |Δ| = 5: chosen longer thrice, all right, and shorter once, wrong; |Δ| = 9: one-sided.
    chosen, rejected = [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    words = [7.0, 7.0, 10.0, 10.0, 10.0, 5.0, 19.0], [7.0, 7.0, 5.0, 5.0, 5.0, 10.0, 10.0]
    found = length_controlled(chosen, rejected, words[0], words[1], range(7))
    assert found.accuracy.value == pytest.approx((2 * 0.5 + 4 * 0.5 * (1 + 0)) / 6)
    assert found.accuracy.n == 6
    assert found.one_sided.value == pytest.approx(1 / 7)


@pytest.mark.parametrize("bias", ["default", "none", "strong"])
def test_a_judge_that_only_counts_words_gets_one_half(bias: str) -> None:
    """However it counts them. By regression the word count got 0.73, its logarithm 0.36."""
    pairs = embedded_pairs(bias)
    words = [[float(count_words(text)) for text in side] for side in pairs]
    prompts = range(len(words[0]))
    for counted in (float, math.log, lambda count: count**2):
        scores = [[counted(count) for count in side] for side in words]
        assert length_controlled(scores[0], scores[1], words[0], words[1], prompts).accuracy.value == pytest.approx(
            0.5, abs=1e-12
        )
    draw = np.random.default_rng(0)
    noisy = [np.array(side) + draw.normal(0, 8, (20, len(side))) for side in words]
    found = [
        length_controlled(one, other, words[0], words[1], prompts).accuracy.value
        for one, other in zip(*noisy, strict=True)
    ]
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(0.5, abs=0.01)


def test_controlling_for_length_changes_nothing_where_length_tells_nothing() -> None:
    """A judge that knows the right answer, on labels without bias."""
    rows = [row for row in read(DataSource("embedded/planted", split="val", bias="none")).rows if row.chosen]
    scores = [[gold_score(row, getattr(row, side) or "") for row in rows] for side in SIDES]
    words = [[float(count_words(getattr(row, side) or "")) for row in rows] for side in SIDES]
    plain = accuracy(scores[0], scores[1]).value
    low, value, high = interval(length_controlled(scores[0], scores[1], words[0], words[1], range(len(rows))).accuracy)
    assert low < (plain or 0) < high
    assert value == pytest.approx(plain, abs=0.01)


def test_length_controlled_is_undefined_where_every_bin_is_one_sided() -> None:
    found = length_controlled([2, 3, 4], [1, 1, 1], [3, 4, 9], [1, 3, 2], OWN[:3])
    assert found.accuracy == Estimate(None, n=0)
    assert found.one_sided.value == 1
    assert length_controlled([], [], [], [], []).accuracy == Estimate(None)
    equal = length_controlled([1, 0, 1], [0, 1, 1], [2, 2, 2], [2, 2, 2], OWN[:3])
    assert (equal.accuracy.value, equal.one_sided.value) == (0.5, 0)


def test_the_interval_of_length_controlled_is_over_prompts() -> None:
    draw = random.Random(3)
    scores = [float(draw.random() < 0.7) for _ in range(80)]
    words = [[float(draw.randint(1, 9)) for _ in range(80)] for _ in SIDES]
    plain = length_controlled(scores, [0.5] * 80, words[0], words[1], range(80))
    twice = length_controlled(2 * scores, [0.5] * 160, 2 * words[0], 2 * words[1], [*range(80), *range(80)])
    assert twice.accuracy.value == pytest.approx(plain.accuracy.value)
    assert interval(twice.accuracy) == pytest.approx(interval(plain.accuracy), abs=0.02)


def test_correlations_by_hand_and_by_scipy() -> None:
    found = score_by_length(*SCORES, *WORDS, OWN)
    pooled = [[*SCORES[0], *SCORES[1]], [*WORDS[0], *WORDS[1]]]
    assert found["spearman"].value == pytest.approx(stats.spearmanr(*pooled).statistic)
    centred = [
        [value - (a + b) / 2 for a, b in zip(*columns, strict=True) for value in (a, b)] for columns in (SCORES, WORDS)
    ]
    assert found["spearman_within"].value == pytest.approx(stats.spearmanr(*centred).statistic)
    labels = [1.0] * N + [0.0] * N
    rest = [
        np.array(one) - np.array([statistics.fmean(np.array(one)[np.array(labels) == label]) for label in labels])
        for one in pooled
    ]
    assert found["partial"].value == pytest.approx(stats.pearsonr(*rest).statistic)
    gaps = [np.subtract(*columns) for columns in (SCORES, WORDS)]
    assert found["partial_within"].value == pytest.approx(stats.pearsonr(*gaps).statistic)
    assert all(low < value < high for low, value, high in map(interval, found.values()))
    by_hand = score_by_length([1, 2], [3, 4], [10, 20], [30, 40], [0, 1])
    assert by_hand["spearman"].value == pytest.approx(1)


def test_correlations_are_undefined_without_variation() -> None:
    assert {one.value for one in score_by_length([1, 1], [1, 1], [1, 2], [3, 4], [0, 1]).values()} == {None}
    assert {one.value for one in score_by_length([], [], [], [], []).values()} == {None}


# -- form --------------------------------------------------------------------------------------------------------------


def test_features_count_marks() -> None:
    text = "# Head\n\nSome **bold words** here.\n\n1. one\n2. two\n- three\n"
    assert replace(features(text), grade=0) == Form(words=10, grade=0, list_items=3, headings=1, bold=1)
    assert features("36. Thank you for asking.").list_items == 0
    assert features("Two:\n1) a\n2) b").list_items == 2
    assert features("今天天气好").words == 5
    assert features("今天天气好").grade is None


def test_effects_are_a_regression_with_errors_clustered_over_prompts() -> None:
    rng = np.random.default_rng(0)
    n, groups = 90, np.repeat(np.arange(30), 3)
    chosen = rng.random(n) < 0.5
    columns = {
        "words": rng.integers(5, 80, n).astype(float),
        "grade": rng.normal(8, 2, n),
        "list_items": rng.integers(0, 3, n).astype(float),
        "headings": np.zeros(n),
        "bold": rng.integers(0, 2, n).astype(float),
    }
    scores = (
        0.02 * columns["words"]
        + 0.7 * (columns["list_items"] > 0)
        + rng.normal(0, 1, n)
        + np.repeat(rng.normal(0, 1, 30), 3)
    )
    found = form_effects(scores, chosen.tolist(), columns, groups.tolist())
    design = np.column_stack(
        [
            np.ones(n),
            chosen,
            columns["words"] / np.std(columns["words"], ddof=1),
            columns["grade"] / np.std(columns["grade"], ddof=1),
            columns["list_items"] > 0,
            columns["bold"] > 0,
        ]
    ).astype(float)
    outcome = scores / np.std(scores, ddof=1)
    slopes = np.linalg.solve(design.T @ design, design.T @ outcome)
    assert [found[name].value for name in ("words", "grade", "list_items", "bold")] == pytest.approx(slopes[2:])
    # Liang and Zeger's sandwich, with the usual correction for few clusters.
    bread, errors = np.linalg.inv(design.T @ design), outcome - design @ slopes
    sums = np.array([design[groups == group].T @ errors[groups == group] for group in range(30)])
    variance = bread @ (sums.T @ sums) @ bread * 30 / 29 * (n - 1) / (n - design.shape[1])
    half = 1.959963984540054 * np.sqrt(variance[4, 4])
    assert (found["list_items"].low, found["list_items"].high) == pytest.approx((slopes[4] - half, slopes[4] + half))
    assert found["headings"].value is None
    assert found["words"].n == n


def test_effects_leave_out_a_grade_that_most_lack() -> None:
    rng = np.random.default_rng(1)
    nothing = [0.0] * 8
    words = [1.0, 5, 2, 8, 3, 9, 4, 4]
    grades = [None] * 7 + [3.0]
    columns: dict[str, Sequence[float | None]] = {
        "words": words, "grade": grades, "list_items": nothing, "headings": nothing, "bold": nothing,
    }  # fmt: skip
    found = form_effects(rng.normal(size=8), [True, False] * 4, columns, [0, 0, 1, 1, 2, 2, 3, 3])
    assert found["grade"].value is None
    assert found["words"].n == 8
    assert {one.value for one in form_effects([1.0] * 8, [True, False] * 4, columns, OWN[:8]).values()} == {None}
    assert tuple(found) == FEATURES


# -- edits -------------------------------------------------------------------------------------------------------------


def test_a_shift_is_in_units_of_the_spread_before() -> None:
    before, after = [0.0, 2.0, 4.0, 6.0], [1.0, None, 6.0, 9.0]
    spread = statistics.stdev(before)
    found = mean_shift(before, after, ["a", "a", "b", "b"])
    assert found.value == pytest.approx((1 + 2 + 3) / spread / 3)  # answers weigh the same
    assert found.n == 3
    assert mean_shift([1.0, 1.0], [2.0, 2.0], [0, 1]) == NONE


def test_a_flip_is_a_preference_that_turns() -> None:
    found = flip_rate([1.0, -1.0, 2.0, 0.0, 3.0], [-0.5, -2.0, 1.0, 4.0, None], OWN[:5])
    assert (found.value, found.n) == (0.25, 4)


# -- calibration -------------------------------------------------------------------------------------------------------


def test_proper_scores_are_means_over_pairs() -> None:
    chances = [sigmoid(a - b) for a, b in zip(*SCORES, strict=True)]
    assert brier(*SCORES, OWN).value == pytest.approx(statistics.fmean((1 - p) ** 2 for p in chances))
    assert log_loss(*SCORES, OWN).value == pytest.approx(statistics.fmean(-math.log(p) for p in chances))
    assert brier([0.0], [0.0], [0]).value == 0.25
    assert log_loss([0.0, 800.0], [0.0, 0.0], [0, 1]).value == pytest.approx(math.log(2) / 2)
    assert log_loss([0.0], [800.0], [0]).value == 800
    whole, few = brier(*SCORES, OWN), brier(*SCORES, SHARED)
    assert (whole.value, whole.n) == (few.value, few.n) == (whole.value, N)
    assert interval(whole)[0] != interval(few)[0]


def test_the_longer_answer_is_first() -> None:
    margins, labels = longer_first(*SCORES, *WORDS, seed=3)
    for margin, label, a, b, long, short in zip(margins, labels, *SCORES, *WORDS, strict=True):
        assert margin == (a - b if label == 1 else b - a)
        if long != short:
            assert label == (long > short)
    same: list[float | None] = [None, *([7.0] * (N - 1))]
    drawn = longer_first(*SCORES, same, same, seed=3)[1]
    assert 0.35 < drawn.mean() < 0.65
    assert (longer_first(*SCORES, same, same, seed=3)[1] == drawn).all()
    assert (longer_first(*SCORES, same, same, seed=4)[1] != drawn).any()
    assert (longer_first(*SCORES, *WORDS)[1] == longer_first(*SCORES, *WORDS, seed=4)[1]).mean() > 0.9


def test_the_curve_holds_every_pair_once_and_no_orientation() -> None:
    """With both orientations of each pair, a bin's gap is that of the mirrored bin with its sign turned."""
    bins = reliability(*SCORES)
    assert [one.n for one in bins] == [N // 5] * 5
    margins = [a - b for a, b in zip(*SCORES, strict=True)]
    squared = 0.0
    for one in bins:
        both = [(p, y) for m in margins for p, y in ((sigmoid(m), 1), (sigmoid(-m), 0)) if one.low <= p <= one.high]
        assert len(both) == one.n
        assert one.predicted == pytest.approx(statistics.fmean(p for p, _ in both))
        assert one.observed == pytest.approx(statistics.fmean(y for _, y in both))
        gaps = [y - p for p, y in both]
        squared += one.n / N * (statistics.fmean(gaps) ** 2 - statistics.variance(gaps) / one.n)
    found = calibration_error(*SCORES, OWN)
    assert interval_free(found) == pytest.approx(math.sqrt(max(0.0, squared)))
    assert found.n == N
    assert calibration_error(SCORES[1], SCORES[0], OWN).value != found.value  # a judge that is wrong as often
    assert calibration_error([], [], []) == NONE


def test_pairs_of_equal_confidence_share_a_bin_and_a_tie_is_calibrated() -> None:
    bins = reliability([1.0] * 50 + [-1.0] * 30 + [0.0] * 20, [0.0] * 100)
    assert [(one.n, one.predicted, one.observed) for one in bins] == [
        (20, 0.5, 0.5),
        (80, pytest.approx(sigmoid(1)), 50 / 80),
    ]


def judged(rng: np.random.Generator, slope: float, prompts: int, pairs: int) -> tuple[Column, list[int]]:
    """Margins chosen − rejected of a judge whose log-odds are off by the slope, the pairs of a prompt alike."""
    margins = rng.normal(0, 1.2, (prompts, 1)) * 0.6 + rng.normal(0, 1.2, (prompts, pairs)) * 0.8
    noise = stats.norm.cdf(rng.normal(0, 1, (prompts, 1)) * 0.6 + rng.normal(0, 1, (prompts, pairs)) * 0.8)
    first = noise < 1 / (1 + np.exp(-slope * margins))
    return np.where(first, margins, -margins).ravel(), np.repeat(np.arange(prompts), pairs).tolist()


def test_a_calibrated_judge_has_about_no_calibration_error_and_others_have_theirs() -> None:
    """Of 1,000 pairs the plug-in error prints 0.03 for a judge that is perfectly calibrated."""
    rng = np.random.default_rng(7)
    for pairs, slope, low, high in ((1, 1.0, 0, 0.012), (4, 1.0, 0, 0.012), (1, 0.5, 0.09, 0.10), (4, 2.0, 0.10, 0.12)):
        found = []
        for _ in range(150):
            margins, prompts = judged(rng, slope, 1000 // pairs, pairs)
            found.append(interval_free(calibration_error(margins, np.zeros(1000), prompts)))
        assert low <= statistics.fmean(found) < high
        if slope == 1:
            assert statistics.median(found) < 0.005
            curve = reliability(margins, np.zeros(1000))
            assert sum(one.n * abs(one.observed - one.predicted) for one in curve) / 1000 > statistics.fmean(found)


def interval_free(found: Estimate) -> float:
    """The value of an estimate that has no interval."""
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    return found.value


def test_the_test_of_calibration_covers_and_rejects_as_it_says() -> None:
    """400 samples: 95% ± 2.2 (two standard errors); 5% of calibrated judges are rejected, and most others."""
    rng = np.random.default_rng(1)
    for slope, prompts, pairs in ((1.0, 150, 1), (1.0, 60, 4), (0.6, 60, 4)):
        covered = rejected = 0
        for _ in range(400):
            margins, clusters = judged(rng, slope, prompts, pairs)
            drawn = longer_first(margins, np.zeros(len(margins)), [None] * len(margins), [None] * len(margins))
            found = calibration_test(*drawn, clusters)
            low, _, high = interval(found.slope)
            assert found.p is not None
            covered += low < slope < high
            rejected += found.p < 0.05
        assert 0.925 < covered / 400 < 0.98
        assert rejected / 400 < 0.075 if slope == 1 else rejected / 400 > 0.4


def test_the_intercept_is_what_labels_have_of_length_beyond_the_score() -> None:
    """Labels prefer the longer answer by 0.8 in log-odds, which the scores know nothing of."""
    rng = np.random.default_rng(2)
    margins = rng.normal(0, 1, 2000)
    longer_is_chosen = rng.random(2000) < 1 / (1 + np.exp(-0.8 - margins))
    chosen = np.where(longer_is_chosen, margins, -margins)
    words = np.where(longer_is_chosen, 9.0, 5.0), np.where(longer_is_chosen, 5.0, 9.0)
    found = calibration_test(*longer_first(chosen, np.zeros(2000), *words), range(2000))
    low, _, high = interval(found.intercept)
    assert 0.6 < low < 0.8 < high < 1.0
    assert found.p is not None
    assert found.p < 1e-9
    mirrored = calibration_test(*longer_first(chosen, np.zeros(2000), words[1], words[0]), range(2000))
    assert mirrored.intercept.value == pytest.approx(-interval(found.intercept)[1])
    assert mirrored.slope.value == pytest.approx(interval(found.slope)[1])


def test_the_test_of_calibration_leaves_out_prompt_by_prompt() -> None:
    """The one-step jackknife is near the one that fits again without each prompt; p is of both parameters."""
    margins, labels = longer_first(*SCORES, *WORDS)

    def fitted(kept: npt.NDArray[np.bool_]) -> Column:
        def loss(line: Column) -> float:
            signs = 2 * labels[kept] - 1
            return float(np.logaddexp(0, -signs * (line[0] + line[1] * margins[kept])).sum())

        best: Column = minimize(loss, np.array([0.0, 1.0]), tol=1e-10).x
        return best

    prompts = np.array(SHARED, dtype=np.float64)
    found = calibration_test(margins, labels, SHARED)
    best = fitted(prompts >= 0)
    assert (interval(found.intercept)[1], interval(found.slope)[1]) == pytest.approx(tuple(best), rel=1e-4)
    groups = N // 3
    moved = np.array([fitted(prompts != prompt) - best for prompt in range(groups)])
    covariance = (groups - 1) / groups * moved.T @ moved
    low, _, high = interval(found.slope)
    half = stats.t.ppf(0.975, groups - 1) * math.sqrt(covariance[1, 1])
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    off = best - np.array([0.0, 1.0])
    p = stats.f.sf(off @ np.linalg.solve(covariance, off) / 2, 2, groups - 1)
    assert found.p == pytest.approx(p, rel=0.2)


def test_temperature_has_the_least_log_loss() -> None:
    margins, labels = longer_first(*SCORES, *WORDS)
    signed = margins * (2 * labels - 1)
    best = minimize_scalar(lambda t: np.mean(np.logaddexp(0, -signed / t)), bounds=(0.05, 50), method="bounded")
    found = temperature(margins, labels, OWN)
    assert found.value == pytest.approx(best.x, rel=1e-4)
    low, value, high = interval(found)
    assert low < value < high
    assert temperature(10 * margins, labels, OWN).value == pytest.approx(10 * value)


def test_temperature_of_margins_that_do_not_vary_by_hand() -> None:
    """Three of four labels agree with a margin of 1: σ(1 / T) = ¾, so 1 / T = ln 3."""
    found = temperature([1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0, 1, 2, 3])
    assert found.value == pytest.approx(1 / math.log(3))


def test_temperature_is_undefined_for_a_judge_that_is_never_wrong_or_worse_than_chance() -> None:
    assert temperature([1.0, -2.0], [1.0, 0.0], [0, 1]).value is None
    assert temperature([0.0, 0.0], [1.0, 0.0], [0, 1]).value is None
    assert temperature([1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [0, 1, 2]).value is None
    assert temperature([], [], []) == NONE
