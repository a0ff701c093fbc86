"""Whether σ(margin) is the probability that the label agrees.

A pair has two orientations, and a judge that is asked for one answers the other: its probability that the first answer
is preferred turns into one less it. What does not depend on the order is how sure the judge is, its confidence
σ(|margin|), and whether the label agrees with it (½ for a tie); the reliability curve and its error are of these two,
which is what averaging over both orientations comes to.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from align_bench.metrics.accuracy import wins_of
from align_bench.metrics.clusters import Clusters, Codes, cluster_codes, clustered_mean
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.records import Estimate

BINS = 5
PAIRS_OF_A_BIN = 20
MIN_PROMPTS = 3
LARGEST_CONDITION = 1e10


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability curve: pairs of like confidence.

    Attributes:
        low, high: the least and the highest confidence in it.
        predicted: mean confidence.
        observed: share of its pairs whose label agrees with the judge; a tie counts as ½.
        n: pairs.
    """

    low: float
    high: float
    predicted: float
    observed: float
    n: int


@dataclass(frozen=True, slots=True)
class CalibrationTest:
    """A logistic regression of the label on the margin. Undefined is None.

    Attributes:
        slope: 1 of a calibrated judge; below 1 it is overconfident.
        intercept: 0 where the label prefers the longer answer as often as the margin says; log-odds.
        p: of the joint Wald test that the slope is 1 and the intercept 0.
    """

    slope: Estimate
    intercept: Estimate
    p: float | None


def brier(chosen: Numbers, rejected: Numbers, clusters: Clusters) -> Estimate:
    """Mean over pairs of (1 − σ(r_w − r_l))²; 0.25 is a coin's. The orientation of pairs does not matter to it.

    95% interval with the standard error clustered over prompts (`clusters`).
    """
    margins, codes = _margins(chosen, rejected, clusters)
    return clustered_mean((1 - _sigmoid(margins)) ** 2, codes)


def log_loss(chosen: Numbers, rejected: Numbers, clusters: Clusters) -> Estimate:
    """Mean over pairs of −log σ(r_w − r_l), nats; ln 2 is a coin's. 95% interval as of `brier`."""
    from scipy.special import log_expit

    margins, codes = _margins(chosen, rejected, clusters)
    return clustered_mean(-log_expit(margins), codes)


def reliability(chosen: Numbers, rejected: Numbers) -> list[Bin]:
    """The reliability curve: five bins of as many pairs, fewer where a bin would have less than 20.

    Bins of equal width leave some with too few pairs to know their variance. Pairs of equal confidence share a bin.
    """
    margins, _ = _margins(chosen, rejected, None)
    confidence, right = _sigmoid(np.abs(margins)), wins_of(margins)
    place = _places(confidence)
    return [
        Bin(
            float(confidence[here].min()),
            float(confidence[here].max()),
            float(confidence[here].mean()),
            float(right[here].mean()),
            int(here.sum()),
        )
        for number in np.unique(place)
        if (here := place == number).any()
    ]


def calibration_error(chosen: Numbers, rejected: Numbers, clusters: Clusters) -> Estimate:
    """Root of the debiased mean squared calibration error, √max(0, Σ n_b / n · ((observed_b − predicted_b)² − v_b)).

    Over the bins of `reliability`; v_b is the variance of the bin's gap, clustered over prompts. Without it the error
    of a sample is above 0 even for a calibrated judge: for 1,000 pairs 0.03 on average, against 0.009 (and 0 in more
    than half of the samples) with it. No interval: none covers where the error is near 0; `calibration_test` says
    whether it is.

    References:
        Kumar, Liang & Ma, "Verified uncertainty calibration" (2019), arXiv:1909.10155, section 5; Ferro & Fricker, "A
        bias-corrected decomposition of the Brier score" (2012).

    Args:
        chosen, rejected: the two scores of each pair.
        clusters: the prompt of each pair. None where a bin has pairs of one prompt only.
    """
    margins, codes = _margins(chosen, rejected, clusters)
    n = len(margins)
    if n == 0:
        return Estimate(None)
    confidence = _sigmoid(np.abs(margins))
    gaps, place = wins_of(margins) - confidence, _places(confidence)
    squared = 0.0
    for number in np.unique(place):
        own, prompts = gaps[place == number], np.unique(codes[place == number], return_inverse=True)[1]
        if (groups := int(prompts.max()) + 1) < 2:
            return Estimate(None, n=n)
        gap, size = float(own.mean()), len(own)
        variance = groups / (groups - 1) * float(np.sum(np.bincount(prompts, own - gap) ** 2)) / size**2
        squared += size / n * (gap**2 - variance)
    return Estimate(float(np.sqrt(max(0.0, squared))), n=n)


def longer_first(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, seed: int = 0
) -> tuple[Column, Column]:
    """Margins first − second with the longer answer of each pair first, and the labels.

    Pairs are stored with the preferred answer first, by which every label would be 1. Answers of equal or unknown
    length are put in an order drawn from `seed`.

    Returns:
        Margins, and 1 where the label prefers the first answer, else 0; both NaN where a score is missing.
    """
    draw = random.Random(f"orientation/{seed}")
    with np.errstate(invalid="ignore"):  # infinity less infinity is no margin
        margins = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    longer = np.asarray(chosen_words, dtype=np.float64) - np.asarray(rejected_words, dtype=np.float64)
    drawn = np.array([float(draw.random() < 0.5) for _ in margins], dtype=np.float64)
    first = np.where(longer > 0, 1.0, np.where(longer < 0, 0.0, drawn))
    return np.where(first == 1, margins, -margins), np.where(np.isfinite(margins), first, np.nan)


def calibration_test(margins: Numbers, labels: Numbers, clusters: Clusters) -> CalibrationTest:
    """Logistic regression (statsmodels) of the label on the margin, tested for a slope of 1 and an intercept of 0.

    Which way round a pair stands matters to the intercept: with the longer answer first it is what the label's
    preference for length has beyond the score, above 0 where the judge gives length too little, below where too much.
    The covariance is the jackknife's over prompts (CR3) in its one-step form, intervals and test Student's t and F with
    G − 1 degrees of freedom for G prompts; with the sandwich's usual correction they cover 93% where 65 prompts have
    unequal numbers of pairs, with the jackknife's 94%. Undefined for fewer than three prompts, margins that are all the
    same, and where a threshold of the margin separates the labels.

    References:
        Cox, "Two further applications of a model for binary regression" (1958); MacKinnon, Nielsen & Webb, "Fast and
        reliable jackknife and bootstrap methods for cluster-robust inference" (2023).

    Args:
        margins, labels: from `longer_first`.
        clusters: the prompt of each pair.
    """
    known, label, codes = _known(margins, labels, clusters)
    n, groups = len(known), len(np.unique(codes))
    if groups < MIN_PROMPTS or np.ptp(known) == 0 or _thresholded(known, label):
        return CalibrationTest(Estimate(None, n=n), Estimate(None, n=n), None)
    from scipy import stats

    scale = float(np.sqrt(np.mean(known**2)))
    design = np.column_stack([np.ones(n), known / scale])
    parameters = _logit(label, design).params
    covariance = _jackknife(design, _sigmoid(design @ parameters), label, np.unique(codes, return_inverse=True)[1])
    if covariance is None:
        return CalibrationTest(Estimate(float(parameters[1] / scale), n=n), Estimate(float(parameters[0]), n=n), None)
    off = parameters - np.array([0.0, scale])
    wald = float(off @ np.linalg.solve(covariance, off)) / 2
    halves = stats.t.ppf(0.975, groups - 1) * np.sqrt(np.diag(covariance))
    intercept, slope = (
        Estimate(float(value / unit), float((value - half) / unit), float((value + half) / unit), n)
        for value, half, unit in zip(parameters, halves, (1.0, scale), strict=True)
    )
    return CalibrationTest(slope, intercept, float(stats.f.sf(wald, 2, groups - 1)))


def temperature(margins: Numbers, labels: Numbers, clusters: Clusters) -> Estimate:
    """The T > 0 for which σ(margin / T) has the least log-loss: above 1, the judge is overconfident.

    1 / T is the slope of a logistic regression without a constant (statsmodels), on which the orientation of pairs has
    no bearing; its 95% interval, with errors clustered over prompts, is turned round: none for a single prompt, or one
    that reaches 0. None where the slope is not above 0, or not finite (no label is ever against the judge).

    Args:
        margins, labels: from `longer_first`.
        clusters: the prompt of each pair.
    """
    known, label, codes = _known(margins, labels, clusters)
    n = len(known)
    if _separated(known, label):
        return Estimate(None, n=n)
    scale = float(np.sqrt(np.mean(known**2)))
    clustered: dict[str, Any] = {"cov_type": "cluster", "cov_kwds": {"groups": codes}} if np.ptp(codes) else {}
    fit = _logit(label, known[:, None] / scale, **clustered)
    slope, (low, high) = float(fit.params[0]), map(float, fit.conf_int()[0])
    if not (np.isfinite(slope) and slope > 0):
        return Estimate(None, n=n)
    if not clustered or not low > 0:
        return Estimate(scale / slope, n=n)
    return Estimate(scale / slope, scale / high, scale / low, n)


def _logit(labels: Column, design: Column, **clustered: Any) -> Any:
    from statsmodels.discrete.discrete_model import Logit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Logit(labels, design).fit(disp=0, **clustered)


def _jackknife(design: Column, predicted: Column, labels: Column, codes: Codes) -> Column | None:
    """Covariance of a logistic regression's parameters, by leaving out each cluster in one Newton step.

    None where what is left without some cluster does not determine them, as margins that are all the same.

    Args:
        design: shape [pairs, parameters].
        predicted, labels: shape [pairs].
        codes: the cluster of each pair, as numbers from 0 without a gap.
    """
    groups = int(codes.max()) + 1
    weighted = design * (predicted * (1 - predicted))[:, None]
    gradients = np.zeros((groups, design.shape[1]))
    np.add.at(gradients, codes, design * (labels - predicted)[:, None])
    information = np.zeros((groups, design.shape[1], design.shape[1]))
    np.add.at(information, codes, weighted[:, :, None] * design[:, None, :])
    left = information.sum(axis=0) - information
    if np.linalg.cond(left).max() > LARGEST_CONDITION:
        return None
    steps = np.linalg.solve(left, gradients[..., None])[..., 0]
    found: Column = (groups - 1) / groups * steps.T @ steps
    return found


def _places(confidence: Column) -> Codes:
    """The bin of each pair, by the quantiles of confidence."""
    bins = max(1, min(BINS, len(confidence) // PAIRS_OF_A_BIN))
    edges = np.quantile(confidence, np.arange(1, bins) / bins) if len(confidence) else np.array([])
    return np.searchsorted(edges, confidence, side="right")


def _separated(margins: Column, labels: Column) -> bool:
    """Whether the judge is never wrong, or never right (as without any margin), so that no finite slope fits best."""
    signs = margins * (2 * labels - 1)
    return bool((signs >= 0).all() or (signs <= 0).all())


def _thresholded(margins: Column, labels: Column) -> bool:
    """Whether all margins of one label are at least those of the other, so that no finite line fits best."""
    zero, one = margins[labels == 0], margins[labels == 1]
    return not len(zero) or not len(one) or bool(zero.max() <= one.min() or one.max() <= zero.min())


def _known(margins: Numbers, labels: Numbers, clusters: Clusters) -> tuple[Column, Column, Codes]:
    known, label, codes = finite(margins, labels, cluster_codes(clusters, len(margins)))
    return known, label, codes.astype(np.intp)


def _margins(chosen: Numbers, rejected: Numbers, clusters: Clusters | None) -> tuple[Column, Codes]:
    """The finite margins chosen − rejected, and their clusters as numbers."""
    with np.errstate(invalid="ignore"):  # infinity less infinity is no margin
        margins = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    known, codes = finite(margins, cluster_codes(clusters, len(margins)))
    return known, codes.astype(np.intp)


def _sigmoid(values: Column) -> Column:
    from scipy.special import expit

    found: Column = expit(values)
    return found
