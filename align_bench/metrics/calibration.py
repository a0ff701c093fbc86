"""Whether σ(margin) is the probability that the label agrees."""

from __future__ import annotations

import random
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align_bench.metrics.bootstrap import cluster_interval
from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.metrics.mean import mean
from align_bench.records import Estimate

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability curve: pairs whose predicted probability is in [low, high).

    Attributes:
        low, high: its bounds; the last one holds 1 too.
        predicted: mean predicted probability that the first answer is preferred.
        observed: share of pairs whose label prefers the first answer.
        n: pairs.
    """

    low: float
    high: float
    predicted: float
    observed: float
    n: int


def brier(chosen: Numbers, rejected: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """Mean of (1 − σ(r_w − r_l))²; 0.25 is a coin's. The orientation of pairs does not matter to it.

    Student's 95% interval over prompts (`clusters`).
    """
    return mean((1 - _probability(chosen, rejected)) ** 2, clusters)


def log_loss(chosen: Numbers, rejected: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """Mean of −log σ(r_w − r_l), nats; ln 2 is a coin's. Student's 95% interval over prompts (`clusters`)."""
    from scipy.special import log_expit

    return mean(-log_expit(_margins(chosen, rejected)), clusters)


def oriented(chosen: Numbers, rejected: Numbers, seed: int = 0) -> tuple[Column, Column]:
    """Margins first − second after each pair's two sides were put in an order drawn from `seed`, and the labels.

    Pairs are stored with the preferred answer first, by which every label would be 1.

    Returns:
        Margins, and 1 where the label prefers the first answer, else 0; both NaN where a score is missing.
    """
    draw = random.Random(f"orientation/{seed}")
    margins = _margins(chosen, rejected)
    first = np.array([float(draw.random() < 0.5) for _ in margins], dtype=np.float64)
    return np.where(first == 1, margins, -margins), np.where(np.isfinite(margins), first, np.nan)


def reliability(margins: Numbers, labels: Numbers) -> list[Bin]:
    """The reliability curve of σ(margin): its ten bins of equal width, without the empty ones.

    Args:
        margins, labels: from `oriented`.
    """
    known, label = finite(margins, labels)
    predicted = 1 / (1 + np.exp(-known))
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return [
        Bin(
            number / BINS,
            (number + 1) / BINS,
            float(predicted[here].mean()),
            float(label[here].mean()),
            int(here.sum()),
        )
        for number in range(BINS)
        if (here := place == number).any()
    ]


def calibration_error(margins: Numbers, labels: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """Expected calibration error: Σ n_b / n · |observed_b − predicted_b| over the bins of `reliability`.

    Of a sample it is above 0 even for a calibrated judge. The 95% interval is a percentile bootstrap over prompts.

    Args:
        margins, labels: from `oriented`.
        clusters: the prompt of each pair.
    """
    columns, groups = _known(margins, labels, clusters)
    n = len(columns[0])
    if n == 0:
        return Estimate(None)
    return Estimate(_error(*columns), *cluster_interval(_error, columns, groups), n)


def temperature(margins: Numbers, labels: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """The T > 0 for which σ(margin / T) has the least log-loss: above 1, the judge is too sure.

    1 / T is the slope of a logistic regression without a constant (statsmodels); its 95% interval, with errors
    clustered over prompts, is turned round: none for a single prompt, or one that reaches 0. None where the slope is
    not above 0, or not finite (no label is ever against the judge).

    Args:
        margins, labels: from `oriented`.
        clusters: the prompt of each pair.
    """
    (known, label), groups = _known(margins, labels, clusters)
    n = len(known)
    if _separated(known, label):
        return Estimate(None, n=n)
    from statsmodels.discrete.discrete_model import Logit

    scale = float(np.sqrt(np.mean(known**2)))
    codes = cluster_codes(groups, n)
    clustered: dict[str, Any] = {"cov_type": "cluster", "cov_kwds": {"groups": codes}} if codes.max() else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = Logit(label, known[:, None] / scale).fit(disp=0, **clustered)
    slope, (low, high) = float(fit.params[0]), map(float, fit.conf_int()[0])
    if not (np.isfinite(slope) and slope > 0):
        return Estimate(None, n=n)
    if not clustered or not low > 0:
        return Estimate(scale / slope, n=n)
    return Estimate(scale / slope, scale / high, scale / low, n)


def _separated(margins: Column, labels: Column) -> bool:
    """Whether the judge is never wrong, or never right (as without any margin), so that no finite slope fits best."""
    signs = margins * (2 * labels - 1)
    return bool((signs >= 0).all() or (signs <= 0).all())


def _error(margins: Column, labels: Column) -> float:
    bins = reliability(margins, labels)
    return sum(one.n * abs(one.observed - one.predicted) for one in bins) / sum(one.n for one in bins)


def _known(
    margins: Numbers, labels: Numbers, clusters: Sequence[Hashable]
) -> tuple[tuple[Column, ...], list[Hashable]]:
    kept = np.isfinite(np.asarray(margins, dtype=np.float64))
    return finite(margins, labels), [cluster for cluster, known in zip(clusters, kept, strict=True) if known]


def _margins(chosen: Numbers, rejected: Numbers) -> Column:
    with np.errstate(invalid="ignore"):  # infinity less infinity is no margin
        return np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)


def _probability(chosen: Numbers, rejected: Numbers) -> Column:
    from scipy.special import expit

    found: Column = expit(_margins(chosen, rejected))
    return found
