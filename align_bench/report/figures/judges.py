"""The judges' calibration and agreement."""

from __future__ import annotations

from align_bench.report.figures.base import CORRECT, MAX_PANELS, Figure, Material, span
from align_bench.report.formatting import number, one_line
from align_bench.report.plots import Panel, Series, Shares, curves, heatmap


def reliability(material: Material) -> Figure | None:
    """Reliability diagram of each audited judge and reward model."""
    audited = [audit for audit in material.report.audit if audit.reliability][:MAX_PANELS]
    panels, said = [], []
    for audit in audited:
        predicted, observed = zip(*((each.predicted, each.observed) for each in audit.reliability), strict=True)
        line = Series("", predicted, observed, CORRECT, "line")
        dots = Series("", predicted, observed, CORRECT, "points")
        panels.append(Panel(material.label(audit.scorer), "confidence", "agreement", [line, dots], diagonal=True))
        error = number(audit.metrics.calibration_error.value)
        said.append(f"{material.label(audit.scorer)} {error}, n = {sum(each.n for each in audit.reliability)}")
    if not panels:
        return None
    return Figure(
        name="reliability",
        chapter="audit",
        title="Is the margin a probability?",
        caption="Confidence σ(|margin|) in the validation pairs, in bins of equal size, against the share of them "
        "whose label agrees (a tie counts as ½); dashed: perfect calibration. Debiased calibration error: "
        f"{'; '.join(said)} pairs. The table of calibration holds the test.",
        alternative=f"Reliability curves. Debiased calibration error: {'; '.join(said)}.",
        columns=("scorer", "from", "to", "confidence", "agreement", "n"),
        rows=[
            (audit.scorer, each.low, each.high, each.predicted, each.observed, each.n)
            for audit in audited
            for each in audit.reliability
        ],
        svg=curves(panels, height=2.3),
    )


def agreement(material: Material) -> Figure | None:
    """Heat map of how often two judges prefer the same of two answers."""
    found = [pair for pair in material.report.agreement if pair.agreement.value is not None]
    if not found:
        return None
    names = list(dict.fromkeys(name for pair in found for name in (pair.a, pair.b)))
    shares = {frozenset((pair.a, pair.b)): pair.agreement.value for pair in found}
    said = "; ".join(
        f"{one_line(pair.a)} and {one_line(pair.b)} {pair.agreement.value:.0%}, Kendall's τ over methods "
        f"{number(pair.kendall_tau)}"
        for pair in found
    )
    return Figure(
        name="agreement",
        chapter="audit",
        title="Do the judges agree?",
        caption="Share of pairs of answers to one prompt of which two judges prefer the same one. "
        f"{said}; n = {span(sorted(pair.agreement.n for pair in found))}. The tables hold the intervals; no test.",
        alternative=f"Heat map. {said}.",
        columns=("a", "b", "agreement", "low", "high", "n", "Kendall's tau"),
        rows=[
            (pair.a, pair.b, own.value, own.low, own.high, own.n, pair.kendall_tau)
            for pair, own in ((pair, pair.agreement) for pair in found)
        ],
        svg=heatmap(Shares(names, [[shares.get(frozenset((a, b))) for b in names] for a in names])),
    )
