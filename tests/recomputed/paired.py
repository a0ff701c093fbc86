"""A paired test of two checkpoints on the same pairs or prompts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from tests.recomputed.arithmetic import (
    Column,
    alike,
    clustered,
    clustered_error,
    grouped,
    prompt_means,
    student,
)
from tests.recomputed.ledger import Leaf

TESTED = ("difference", "low", "high", "p", "p_wilcoxon", "effect", "margin", "p_tost", "df")


def number(value: Leaf) -> float | None:
    assert value is None or isinstance(value, float)
    return value


def paired(differences: Column, prompts: Sequence[Hashable], binary: bool, dz: float = 0.0) -> dict[str, Leaf]:
    """The test of the differences, with their prompts as clusters.

    Args:
        differences: of pairs or prompts.
        prompts: of each.
        binary: whether they are of right and wrong, so that McNemar's test applies where no prompt is repeated.
        dz: the margin of equivalence, in standard deviations of the differences.
    """
    n, own = len(differences), len(set(prompts))
    repeated = own < n
    mcnemar = binary and not repeated
    numbers: dict[str, Leaf] = dict.fromkeys(TESTED)
    numbers["test"] = "exact McNemar, paired t" if mcnemar else "clustered t" if repeated else "paired t"
    numbers |= {"n": n, "prompts": own}
    if n == 0:
        return numbers
    numbers["difference"] = float(differences.mean())
    spread = math.sqrt(float(((differences - differences.mean()) ** 2).sum() / (n - 1))) if n > 1 else 0.0
    if spread:
        numbers["margin"] = dz * spread
    if not binary:
        _, means = prompt_means(differences, prompts)
        if len(means) > 1 and means.any():
            numbers["p_wilcoxon"] = float(stats.wilcoxon(np.round(means, 12), zero_method="pratt").pvalue)
    constant = own < 2 or alike(np.array([values.mean() for values in grouped(differences, prompts).values()]))
    if not constant:
        interval = clustered(differences, prompts) if repeated else student(differences)
        centre, error, count = clustered_error(differences, prompts)
        t, margin = centre / error, dz * spread
        numbers |= {"low": interval.low, "high": interval.high, "p": float(2 * stats.t.sf(abs(t), count - 1))}
        above, below = (
            stats.t.sf((centre + margin) / error, count - 1),
            stats.t.cdf((centre - margin) / error, count - 1),
        )
        numbers["p_tost"] = float(max(above, below))
        if not mcnemar:
            numbers |= {"effect": centre / spread, "df": float(count - 1)}
    if mcnemar:
        _mcnemar(numbers, differences)
    return numbers


def _mcnemar(numbers: dict[str, Leaf], differences: Column) -> None:
    """The larger p of the exact test and the t, and the interval that holds those of both."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    if up + down == 0:
        numbers |= dict.fromkeys(("low", "high", "p"))
        return
    exact = min(1.0, float(2 * stats.binom.cdf(min(up, down), up + down, 0.5)))
    least = float(stats.beta.ppf(0.025, up, down + 1)) if up else 0.0
    most = float(stats.beta.ppf(0.975, up + 1, down)) if down else 1.0
    size = float(np.abs(differences).mean())
    bounds = [((2 * least - 1) * size, (2 * most - 1) * size)]
    p, low, high = (number(numbers[name]) for name in ("p", "low", "high"))
    if p is not None and low is not None and high is not None:
        bounds.append((low, high))
    numbers |= {"low": min(one for one, _ in bounds), "high": max(one for _, one in bounds)}
    opposite = (up - down) * float(differences.mean()) < 0
    numbers["p"] = 1.0 if opposite else max(exact, p if p is not None else 0.0)
