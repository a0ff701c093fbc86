"""What of an answer's form goes with a judge's score: length, readability, lists, headings, bold."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from align_bench.metrics.bold import bold_spans
from align_bench.metrics.finite import Numbers, finite
from align_bench.metrics.length import count_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.records import Estimate

_BULLET = re.compile(r"^[ \t]*[-*+][ \t]+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*\d{1,3}[.)][ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE)
FEATURES = ("words", "grade", "list_items", "headings", "bold")


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer.

    Attributes:
        words: as `metrics.length` counts them.
        grade: Flesch–Kincaid grade; None where undefined.
        list_items, headings, bold: counts of Markdown marks.
    """

    words: int
    grade: float | None
    list_items: int
    headings: int
    bold: int


def features(text: str) -> Form:
    """The form of a text.

    A single numbered line is no list: an answer may begin with a number and a full stop.

    >>> features("# Two\\n\\n- **one** is short\\n- 2").list_items, features("12. You are welcome.").list_items
    (2, 0)
    """
    numbered = len(_NUMBERED.findall(text))
    return Form(
        words=count_words(text),
        grade=flesch_kincaid(text),
        list_items=len(_BULLET.findall(text)) + (numbered if numbered > 1 else 0),
        headings=len(_HEADING.findall(text)),
        bold=sum(1 for line in text.split("\n") for _ in bold_spans(line)),
    )


def form_effects(
    scores: Numbers, chosen: Sequence[bool], columns: Mapping[str, Numbers], clusters: Sequence[Hashable]
) -> dict[str, Estimate]:
    """Effects of an answer's form on its score, all at once, given whether the label prefers it.

    Ordinary least squares (statsmodels) of the score, in units of its standard deviation, on a constant, the label,
    words and grade in units of theirs, and whether there are list items, headings and bold text at all (0 or 1).
    Standard errors are clustered over prompts; the 95% intervals are normal ones, as statsmodels gives them.

    Args:
        scores: one an answer, in any unit.
        chosen: whether the label prefers the answer.
        columns: the names of `FEATURES` → one value an answer. A grade that half of the answers or more lack
            (Chinese ones, say) is left out; else answers without one are.
        clusters: the prompt of each answer.

    Returns:
        Feature → effect, `n` answers. None for a feature that does not vary; all None for fewer than two prompts,
        scores that do not vary, features that determine each other, or no more answers than coefficients.
    """
    grade = np.asarray(columns["grade"], dtype=np.float64)
    used = [name for name in FEATURES if name != "grade" or 2 * np.isfinite(grade).sum() > len(grade)]
    codes = [float(code) for code in np.unique([str(cluster) for cluster in clusters], return_inverse=True)[1]]
    table = finite(scores, [float(flag) for flag in chosen], codes, *(columns[name] for name in used))
    outcome, label, groups, *values = table
    nothing = {name: Estimate(None, n=len(outcome)) for name in FEATURES}
    if len(np.unique(groups)) < 2 or np.ptp(outcome) == 0:
        return nothing
    scaled = {
        name: value / np.std(value, ddof=1) if name in ("words", "grade") and np.ptp(value) > 0 else value
        for name, value in zip(used, values, strict=True)
    }
    scaled |= {name: (scaled[name] > 0).astype(np.float64) for name in ("list_items", "headings", "bold")}
    varying = [name for name in used if np.ptp(scaled[name]) > 0]
    controls = [np.ones_like(outcome), *([label] if np.ptp(label) > 0 else [])]
    design = np.column_stack([*controls, *(scaled[name] for name in varying)])
    if np.linalg.matrix_rank(design) < design.shape[1] or len(outcome) <= design.shape[1]:
        return nothing
    from statsmodels.api import OLS

    fit = OLS(outcome / np.std(outcome, ddof=1), design).fit(
        cov_type="cluster", cov_kwds={"groups": groups.astype(np.int64)}
    )
    intervals = fit.conf_int()
    found = {
        name: Estimate(float(fit.params[place]), float(intervals[place][0]), float(intervals[place][1]), len(outcome))
        for place, name in enumerate(varying, start=len(controls))
    }
    return nothing | found
