"""How good a judge is where length gives nothing away."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.bootstrap import cluster_interval
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.records import Estimate

TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A logistic regression of the label on a judge's margin and the difference in length.

    Attributes:
        accuracy: how often the label would agree with the judge if both answers were equally long: the mean over pairs
            of σ(a · |Δr|).
        margin: a, the log-odds that one standard deviation of Δr brings.
        length: b, the log-odds that tanh(Δlength / sd) brings, Δr given.
    """

    accuracy: Estimate
    margin: Estimate
    length: Estimate


def length_matched(chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers) -> Estimate:
    """Accuracy on pairs whose lengths differ by less than 10% of the longer one; Wilson's 95% interval, ties ½."""
    left, right, longer, shorter = finite(chosen, rejected, chosen_words, rejected_words)
    alike = np.abs(longer - shorter) < TOLERANCE * np.maximum(longer, shorter)
    return accuracy(left[alike], right[alike])


def length_controlled(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, clusters: Sequence[Hashable]
) -> LengthControlled:
    """logit P(first is preferred) = a · Δr / sd(Δr) + b · tanh(Δlength / sd(Δlength)), read at Δlength = 0.

    Fitted by statsmodels, without a constant, since which answer stands first means nothing; sd is the root mean
    square of the differences, for the same reason. The 95% intervals are a percentile bootstrap of the whole fit over
    prompts. After Dubois et al. 2024, "Length-Controlled AlpacaEval", arXiv:2404.04475, section 3.

    Args:
        chosen, rejected: scores, in any unit.
        chosen_words, rejected_words: lengths in words.
        clusters: the prompt of each pair.

    Returns:
        Estimates; None without variation, or where the labels are separated, so that nothing finite fits best.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (chosen, rejected, chosen_words, rejected_words)]
    kept = np.all(np.isfinite(columns), axis=0)
    margins, lengths = columns[0][kept] - columns[1][kept], columns[2][kept] - columns[3][kept]
    groups = [cluster for cluster, known in zip(clusters, kept.tolist(), strict=True) if known]
    n = len(margins)
    found = _fit(margins, lengths)
    if not np.isfinite(found).any():
        nothing = Estimate(None, n=n)
        return LengthControlled(nothing, nothing, nothing)
    low, high = cluster_interval(_fit, (margins, lengths), groups)
    estimates = [
        Estimate(float(value), low and low[place], high and high[place], n)
        if np.isfinite(value)
        else Estimate(None, n=n)
        for place, value in enumerate(found)
    ]
    return LengthControlled(*estimates)


def _fit(margins: Column, lengths: Column) -> npt.NDArray[np.float64]:
    """Accuracy at Δlength = 0, a, b; NaN where undefined."""
    undefined = np.full(3, np.nan)
    if not np.any(margins):
        return undefined
    from statsmodels.discrete.discrete_model import Logit

    scaled = [margins / _root_mean_square(margins)]
    if np.any(lengths):
        scaled.append(np.tanh(lengths / _root_mean_square(lengths)))
    # Every other pair is turned round, so that labels vary; turning one changes nothing in a fit without a constant.
    label = np.arange(len(margins)) % 2
    design = np.column_stack(scaled) * (2 * label - 1)[:, None]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return undefined
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = Logit(label, design).fit(disp=0)
        except (Warning, np.linalg.LinAlgError):  # separated, or not converged
            return undefined
    a, b = float(fit.params[0]), float(fit.params[1]) if len(scaled) > 1 else np.nan
    from scipy.special import expit

    return np.array([float(np.mean(expit(a * np.abs(scaled[0])))), a, b])


def _root_mean_square(values: Column) -> float:
    return float(np.sqrt(np.mean(values**2)))
