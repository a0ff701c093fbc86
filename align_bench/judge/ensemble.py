"""Several reward models as one judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from align_bench.suite.models import Ensemble


def combine(members: Sequence[Sequence[float]], ensemble: Ensemble | None) -> list[float]:
    """One score per answer from those of all members (Coste et al. 2024, arXiv:2310.02743, section 3).

    Scores are combined as they are: members differ by their seed alone, so that their scales are alike.

    Args:
        members: each member's scores, in the same order of answers.
        ensemble: how to combine them: `mean`; `worst`, the least; or `variance_penalised`, the mean less `penalty`
            times the variance (over the members, not unbiased). None for a single judge.
    """
    scores = np.asarray(members, dtype=np.float64)
    combined = scores.mean(axis=0)
    if ensemble is not None and ensemble.combine == "worst":
        combined = scores.min(axis=0)
    elif ensemble is not None and ensemble.combine == "variance_penalised":
        combined = combined - ensemble.penalty * scores.var(axis=0)
    result: list[float] = combined.tolist()
    return result
