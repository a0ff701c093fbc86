"""Where a formula turns: smallest samples, unequal clusters, units below 1. Each was a change that no test noticed."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from align_bench.metrics.agreement import Scores, kendall_tau, preference_agreement
from align_bench.metrics.calibration import (
    calibration_error,
    calibration_test,
    log_loss,
    longer_first,
    reliability,
    temperature,
)
from align_bench.metrics.clusters import clustered_mean, is_clustered
from align_bench.metrics.counterfactual import flip_rate, mean_shift
from align_bench.metrics.finite import is_constant
from align_bench.metrics.format_effects import form_effects
from align_bench.metrics.length_bias import length_correlation, score_by_length
from align_bench.metrics.mean import cluster_means, mean
from align_bench.metrics.pareto import pareto
from align_bench.metrics.readability import flesch_kincaid, mean_grade, strip_markdown
from align_bench.metrics.reward import reward_std
from align_bench.metrics.score_groups import welch_test
from align_bench.records import Estimate


def test_grades_of_one_prompt_are_averaged_first() -> None:
    texts = ["It was happy.", "The understanding of everything was necessary.", "He ran."]
    first, second, third = (flesch_kincaid(text) or math.nan for text in texts)
    found = mean_grade(texts, [0, 0, 1])
    assert found.value == pytest.approx(((first + second) / 2 + third) / 2)
    assert found.n == 2


def test_shift_is_defined_from_two_scores_on_and_in_any_unit() -> None:
    # The spread of 0 and 0.5 is 0.5 / √2, below 1.
    found = mean_shift([0.0, 0.5], [0.25, 0.25], [0, 1])
    assert found.value == pytest.approx(0.0)
    assert mean_shift([0.0, 0.5], [0.25, 1.0], [0, 1]).value == pytest.approx(0.375 / statistics.stdev([0.0, 0.5]))
    assert mean_shift([math.inf, 0.0, 0.5], [math.inf, 0.25, 0.25], [0, 1, 2]) == found  # no shift, and no warning
    assert mean_shift([0.5], [0.75], [0]) == Estimate(None)
    assert mean_shift([], [], []) == Estimate(None)


def test_flips_weigh_the_same_whatever_their_prompt() -> None:
    found = flip_rate([1, 1, 1], [-1, 1, -2], ["a", "a", "b"])
    assert found.value == pytest.approx(2 / 3)
    assert found.n == 3
    assert flip_rate([1.0, 0.0, 2.0], [0.0, -1.0, None], [0, 1, 2]).value == 0.0  # a tie is no turn
    with pytest.raises(ValueError, match="shorter"):
        flip_rate([1, 2], [1], [0, 1])


def test_agreement_counts_prompts_that_both_judges_scored_twice() -> None:
    a: Scores = {"dpo": {1: 2.0, 2: 1.0, 3: 4.0, 4: 1.0}, "base": {1: 1.0, 2: 2.0, 4: 0.0}}
    b: Scores = {"dpo": {1: 5.0, 2: 9.0, 3: 0.0}, "base": {1: 1.0, 2: 4.0, 3: 1.0, 4: 7.0}}
    # Prompt 1 agrees, 2 does not; 3 lacks a's base, 4 lacks b's dpo.
    found = preference_agreement(a, b)
    assert (found.value, found.n) == (0.5, 2)
    three: Scores = {name: {1: score} for name, score in (("x", 1.0), ("y", 2.0), ("z", 3.0))}
    turned: Scores = {name: {1: score} for name, score in (("x", 2.0), ("y", 1.0), ("z", 3.0))}
    assert preference_agreement(three, turned).value == pytest.approx(2 / 3)
    assert preference_agreement(three, {"w": {1: 1.0}}).value is None


def test_agreement_is_of_the_signs_of_differences() -> None:
    rng = random.Random(0)
    judges: list[Scores] = [
        {name: {prompt: float(rng.randrange(3)) for prompt in range(50)} for name in "xyz"} for _ in range(2)
    ]
    a, b = judges
    gaps = [
        [np.sign(judge[one][prompt] - judge[other][prompt]) for judge in (a, b)]
        for one, other in ("xy", "xz", "yz")
        for prompt in range(50)
    ]
    expected = mean([float(left == right) if left and right else None for left, right in gaps], [*range(50)] * 3)
    assert preference_agreement(a, b) == expected


def test_an_interval_of_few_prompts_that_agree_stays_a_share() -> None:
    a: Scores = {"dpo": dict.fromkeys(range(5), 1.0), "base": dict.fromkeys(range(5), 0.0)}
    b: Scores = {"dpo": {prompt: float(prompt > 0) for prompt in range(5)}, "base": {0: 1.0, 1: 0, 2: 0, 3: 0, 4: 0}}
    found = preference_agreement(a, b)  # 4 of 5: the t interval alone would end at 1.36
    assert found.value == pytest.approx(0.8)
    assert found.high == 1.0
    assert found.low is not None
    assert 0 <= found.low < 0.8


def test_tau_by_hand_and_where_it_is_undefined() -> None:
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 2], [2, 1]) == -1
    assert kendall_tau([1], [1]) is None
    assert kendall_tau([1, 1], [1, 2]) is None
    assert kendall_tau([1, 2], [1, 1]) is None


def test_columns_of_different_lengths_have_no_pareto_set() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pareto([1.0, 2.0], [1.0])


def test_two_values_have_an_interval() -> None:
    # Student's 97.5% quantile with one degree of freedom is 12.706.
    found = mean([1.0, 3.0])
    assert (found.low, found.high) == pytest.approx((2 - 12.7062047364, 2 + 12.7062047364))
    with pytest.raises(ValueError, match="3 values, but 2 clusters"):
        cluster_means([1.0, 2.0, 3.0], [0, 1])


def test_two_clusters_have_an_interval_and_one_has_none() -> None:
    values, codes = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    found = clustered_mean(values, codes)
    # Residuals −2 −1 3 sum to −3 and 3 by cluster; with the correction 2/1 · 2/2 the variance is 2 · 18 / 9.
    assert (found.value, found.n) == (3.0, 3)
    assert (found.low, found.high) == pytest.approx((3 - 2 * 12.7062047364, 3 + 2 * 12.7062047364))
    one = clustered_mean(values, np.zeros(3))
    assert (one.value, one.low, one.n) == (3.0, None, 3)
    scaled = clustered_mean(values / 2**40, codes)
    assert (scaled.low, scaled.high) == pytest.approx(((found.low or 0) / 2**40, (found.high or 0) / 2**40))
    zeros, alike = clustered_mean(np.zeros(3), codes), clustered_mean(np.array([1.0, 3.0, 2.0]), codes)
    assert (zeros, alike) == (Estimate(0.0, n=3), Estimate(2.0, n=3))  # 2 on either prompt
    large = clustered_mean(np.array([1e6, 1e6, 1e6 + 2e-10]), codes)
    assert (large.low, large.high) == (None, None)  # rounding
    constant = clustered_mean(np.full(3, 0.1), codes)
    assert constant.value == pytest.approx(0.1)
    assert (constant.low, constant.n) == (None, 3)
    assert clustered_mean(np.array([]), np.array([])) == Estimate(None)


def test_pairs_of_one_prompt_are_a_cluster_only_where_there_are_some() -> None:
    assert not is_clustered(np.array([]))
    assert not is_clustered(np.array([3]))
    assert not is_clustered(np.array([0, 1]))
    assert is_clustered(np.array([0, 0]))


def test_what_a_reader_sees_of_markdown() -> None:
    assert strip_markdown("a **b** <i>c</i> [d](e.html)") == "a b  c  d"
    assert strip_markdown("see https://a.example/x now") == "see   now"
    assert strip_markdown("> quoted\n> again  ") == "quoted\nagain  "
    assert strip_markdown("> X marks") == "X marks"
    assert strip_markdown("`x` ~y~ snake_case _z_") == "x y snake_case z"
    assert flesch_kincaid("Éé èê àâ. Ôô îï!") is not None  # Latin, though no letter of it is ASCII


@pytest.mark.parametrize(("text", "defined"), [("abc 爱我", True), ("ab 爱我", False), ("ab 爱我你", False)])
def test_a_grade_needs_more_than_half_of_the_letters_in_latin(text: str, defined: bool) -> None:
    assert (flesch_kincaid(text) is not None) == defined


def test_letters_without_a_name_are_not_latin() -> None:
    assert flesch_kincaid("\U00017000") is None  # Tangut: Python knows its ideographs as letters, but not their names


MARGINS = [2.0, -1.0, 0.5, 1.5, -2.5, 3.0, -0.5, 1.0]
LABELS = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("clusters", [[0, 0, 1, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 1, 1, 1]])
def test_temperature_and_its_interval_by_hand(clusters: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Newton's method on the log-loss, and the sandwich of its slope's variance over clusters."""
    groups = len(set(clusters))
    margins, labels = np.array(MARGINS), np.array(LABELS)
    slope = 0.0
    for _ in range(50):
        rate = 1 / (1 + np.exp(-slope * margins))
        information = float(np.sum(margins**2 * rate * (1 - rate)))
        slope += float(np.sum(margins * (labels - rate))) / information
    scores = margins * (labels - rate)
    by_cluster = [sum(scores[place] for place in range(8) if clusters[place] == own) for own in range(groups)]
    correction = groups / (groups - 1) * 7 / 7  # G / (G − 1) · (n − 1) / (n − 1 parameter)
    error = math.sqrt(correction * sum(one**2 for one in by_cluster)) / information
    found = temperature(MARGINS, LABELS, clusters)
    assert found.value == pytest.approx(1 / slope, rel=1e-6)
    low, high = slope - 1.959963985 * error, slope + 1.959963985 * error
    assert low > 0
    assert (found.low, found.high) == pytest.approx((1 / high, 1 / low), rel=1e-6)
    assert found.n == 8
    assert temperature(MARGINS, LABELS, [0] * 8) == Estimate(found.value, n=8)  # one prompt has no interval
    assert capsys.readouterr().out == ""


def test_temperature_is_undefined_without_a_finite_slope() -> None:
    unsure = temperature([1.0, 1.0, -1.0], [1.0, 0.0, 0.0], [0, 1, 2])
    assert unsure.value == pytest.approx(1 / math.log(2))  # two of three labels agree, so that σ(1 / T) is 2/3
    assert (unsure.low, unsure.high, unsure.n) == (None, None, 3)
    # Again two of three agree, and whoever stands first is always right about the second.
    assert temperature([1.0, -1.0, -1.0], [1.0, 1.0, 0.0], [0, 1, 2]).value == pytest.approx(1 / math.log(2))
    for margins, labels in (
        ([2.0, -0.5], [1.0, 0.0]),  # never wrong
        ([-2.0, 0.5], [1.0, 0.0]),  # never right
        ([2.0, 0.0], [1.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([2.0, -0.3, 0.2], [0.0, 0.0, 1.0]),  # more wrong than right
    ):
        found = temperature(margins, labels, range(len(margins)))
        assert (found.value, found.n) == (None, len(margins))


def test_losses_weigh_pairs_equally() -> None:
    losses = [math.log1p(math.exp(-margin)) for margin in (1.0, 2.0, -1.0)]
    found = log_loss([1.0, 2.0, 0.0], [0.0, 0.0, 1.0], ["a", "a", "b"])
    assert found.value == pytest.approx(statistics.fmean(losses))
    assert found.n == 3
    assert log_loss([None, 2.0], [0.0, 0.0], ["a", "b"]).n == 1


def test_calibration_of_few_pairs() -> None:
    """Eight pairs are one bin, and one prompt's pairs have no variance."""
    rejected = [0.0] * 8
    (curve,) = reliability(MARGINS, rejected)
    confidences = [1 / (1 + math.exp(-abs(margin))) for margin in MARGINS]
    right = [float(margin > 0) for margin in MARGINS]
    assert (curve.low, curve.high, curve.n) == pytest.approx((min(confidences), max(confidences), 8))
    assert (curve.predicted, curve.observed) == pytest.approx((statistics.fmean(confidences), statistics.fmean(right)))
    gaps = [one - confidence for one, confidence in zip(right, confidences, strict=True)]
    gap, variance = statistics.fmean(gaps), statistics.variance(gaps) / 8
    found = calibration_error(MARGINS, rejected, range(8))
    assert found.value == pytest.approx(math.sqrt(max(0.0, gap**2 - variance)))
    assert found == Estimate(found.value, n=8)
    assert calibration_error(MARGINS, rejected, [0] * 8) == Estimate(None, n=8)


@pytest.mark.parametrize(
    ("margins", "labels", "prompts"),
    [
        (MARGINS, LABELS, [0, 0, 0, 0, 1, 1, 1, 1]),  # two prompts
        ([1.0] * 8, LABELS, range(8)),
        ([-2.0, -1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0], range(5)),  # a threshold separates the labels
        ([-2.0, -1.0, 0.5, 0.7, 1.0], [1.0, 1.0, 0.0, 0.0, 0.0], range(5)),
        ([-2.0, -1.0, 0.5], [1.0, 1.0, 1.0], range(3)),
    ],
)
def test_calibration_is_not_tested_without_a_slope(
    margins: list[float], labels: list[float], prompts: Sequence[int]
) -> None:
    found = calibration_test(margins, labels, prompts)
    nothing = Estimate(None, n=len(margins))
    assert (found.slope, found.intercept, found.p) == (nothing, nothing, None)


def test_a_slope_that_one_prompt_decides_has_no_interval() -> None:
    margins, labels = [1.0, 1.0, 1.0, 2.0, 0.0, 2.0, 0.0], [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    found = calibration_test(margins, labels, [0, 1, 2, 3, 3, 3, 3])
    assert found.slope.value is not None
    assert (found.slope.low, found.slope.high, found.intercept.low, found.p) == (None, None, None, None)


def test_spread_of_few_scores_and_its_interval() -> None:
    pair = reward_std([1.0], [3.0])
    assert pair.value == pytest.approx(math.sqrt(2))
    assert pair == Estimate(pair.value, None, None, 1)
    assert reward_std([1.0]) == Estimate(None, None, None, 1)
    assert (reward_std([2.0, 2.0], [2.0, 2.0]).value, reward_std([2.0, 2.0], [2.0, 2.0]).n) == (0.0, 2)
    # Two rows: half of the resamples hold one of them alone, and say nothing of how rows differ.
    found = reward_std([0.0, 4.0], [1.0, 2.0])
    assert found == Estimate(statistics.stdev([0, 4, 1, 2]), n=2)
    assert reward_std([0.0, 4.0, 3.0, 1.0, 9.0], [1.0, 2.0, 2.0, 5.0, 3.0]).low is not None


@pytest.mark.parametrize("prompts", [2, 3, 4])
def test_spread_of_fewer_than_five_prompts_has_no_interval(prompts: int) -> None:
    for seed in range(30):  # of some a bound was beyond the largest float
        chosen, rejected = np.random.default_rng(seed).normal(size=(2, prompts)).tolist()
        found = reward_std(chosen, rejected)
        assert found.value == pytest.approx(statistics.stdev([*chosen, *rejected]))
        assert (found.low, found.high, found.n) == (None, None, prompts)


def test_bias_by_length_counts_pairs_even_where_it_is_undefined() -> None:
    words, same = ([3.0, 9.0, 4.0], [5.0, 2.0, 8.0]), ([1.0] * 3, [1.0] * 3)
    scores = [1.0, 2.0, 0.5], [0.0, 1.5, 2.5]
    assert {one.n for one in score_by_length(*scores, *words, range(3)).values()} == {3}
    flat = score_by_length(*same, *words, range(3))
    assert {(one.value, one.n) for one in flat.values()} == {(None, 3)}
    assert {one.n for one in score_by_length([1.0], [2.0], [3.0], [4.0], [0]).values()} == {1}
    assert length_correlation([1.0], [0.0], [2.0], [3.0]) == Estimate(None, n=1)
    assert length_correlation([1.0, 2.0], [0.0, 0.5], [2.0, 4.0], [3.0, 9.0]).value is not None
    one_prompt = score_by_length(*scores, *words, [0, 0, 0])
    assert one_prompt["partial"].value == length_correlation(*scores, *words).value
    assert {(one.low, one.high, one.n) for one in one_prompt.values()} == {(None, None, 3)}


def test_scores_too_small_to_square_have_no_correlation() -> None:
    scores, words = ([1e-200, 2e-200, 5e-200], [0.0, 0.0, 0.0]), ([3.0, 9.0, 4.0], [5.0, 2.0, 8.0])
    assert length_correlation(*scores, *words) == Estimate(None, n=3)
    assert score_by_length(*scores, *words, range(3))["partial_within"] == Estimate(None, n=3)


def test_pairs_of_equal_length_are_put_in_an_order_of_their_own() -> None:
    draw = random.Random("orientation/0")
    expected = [float(draw.random() < 0.5) for _ in range(40)]
    assert longer_first([1.0] * 40, [0.0] * 40, [3.0] * 40, [3.0] * 40)[1].tolist() == expected


def test_infinity_less_infinity_is_no_margin() -> None:
    assert log_loss([math.inf, 1.0], [math.inf, 1.0], [0, 1]) == Estimate(math.log(2), n=1)


def test_constant_is_a_matter_of_rounding_in_any_unit() -> None:
    assert is_constant(np.zeros(3))
    assert is_constant(np.array([1e6, 1e6 + 2e-10]))
    assert not is_constant(np.array([1e-9, 2e-9]))
    assert welch_test([0.0, 0.0], [0.0, 0.0]).p is None


# -- effects of form ---------------------------------------------------------------------------------------------------

N = 24
PROMPTS = [place // 2 for place in range(N)]


def form(**columns: Sequence[float | None]) -> dict[str, Sequence[float | None]]:
    """Columns of answers that vary in nothing but what is given."""
    plain: dict[str, Sequence[float | None]] = dict.fromkeys(
        ("words", "grade", "list_items", "headings", "bold"), [0.0] * N
    )
    return plain | columns


def drawn(seed: int) -> list[float]:
    values: list[float] = np.random.default_rng(seed).normal(size=N).tolist()
    return values


def slope_of(column: list[float], label: list[bool], outcome: list[float]) -> float:
    """Of the standardised score on one column, with a constant and the label, by the normal equations."""
    design = np.column_stack([np.ones(N), label, column]).astype(float)
    return float(np.linalg.solve(design.T @ design, design.T @ np.array(outcome))[2]) / statistics.stdev(outcome)


LABEL = [place % 3 == 0 for place in range(N)]


def test_effects_are_of_standard_deviations_even_where_these_are_small() -> None:
    grades = (0.1 * np.array(drawn(1))).tolist()
    found = form_effects(drawn(0), LABEL, form(words=[7.0] * N, grade=grades), PROMPTS)
    per_unit = slope_of(grades, LABEL, drawn(0))
    assert found["grade"].value == pytest.approx(per_unit * statistics.stdev(grades))
    assert found["words"] == Estimate(None, n=N)  # 7 each


def test_effects_without_a_second_label_or_a_third_prompt() -> None:
    words, halves = drawn(2), [place // 12 for place in range(N)]
    found = form_effects(drawn(0), [True] * N, form(words=words), PROMPTS)
    assert found["words"].value == pytest.approx(statistics.correlation(words, drawn(0)))
    assert form_effects(drawn(0), LABEL, form(words=words), halves)["words"].low is not None
    alone = form_effects(drawn(0), LABEL, form(words=words), [0] * N)
    assert set(alone.values()) == {Estimate(None, n=N)}


@pytest.mark.parametrize(("known", "used"), [(9, False), (12, False), (13, True)])
def test_a_grade_that_half_of_the_answers_lack_is_left_out(known: int, used: bool) -> None:
    grades = [*drawn(3)[:known], *[None] * (N - known)]
    found = form_effects(drawn(0), LABEL, form(words=drawn(2), grade=grades), PROMPTS)
    assert (found["grade"].value is not None) == used
    assert found["words"].n == (known if used else N)


def test_effects_that_cannot_be_told_apart_are_undefined() -> None:
    marks = [float(place % 2) for place in range(N)]
    both = form_effects(drawn(0), LABEL, form(words=drawn(2), list_items=marks, bold=marks), PROMPTS)
    assert {one.value for one in both.values()} == {None}
    # Three answers and as many coefficients leave no error to estimate.
    few = {name: column[:3] for name, column in form(words=drawn(2)).items()}
    assert {one.value for one in form_effects(drawn(0)[:3], LABEL[:3], few, [0, 1, 2]).values()} == {None}
    assert {one.value for one in form_effects(drawn(0), LABEL, form(), PROMPTS).values()} == {None}
