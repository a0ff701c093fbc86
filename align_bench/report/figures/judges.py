"""The judges' calibration and agreement."""

from __future__ import annotations

from align_bench.report.figures.base import CORRECT, MAX_PANELS, Figure, Material, span
from align_bench.report.formatting import number, one_line
from align_bench.report.plots import Panel, Series, curves, heatmap


def reliability(material: Material) -> Figure | None:
    """Reliability diagram of each audited judge and reward model."""
    audited = [found for found in material.report.get("audit") or () if found["reliability"]][:MAX_PANELS]
    panels, said = [], []
    for found in audited:
        bins = found["reliability"]
        drawn = Series("", [one["predicted"] for one in bins], [one["observed"] for one in bins], CORRECT, "line")
        dots = Series("", drawn.x, drawn.y, CORRECT, "points")
        panels.append(Panel(found["scorer"], "predicted", "observed", [drawn, dots], diagonal=True))
        error = (found["metrics"].get("calibration_error") or {}).get("value")
        said.append(f"{found['scorer']} {number(error)}, n = {sum(one['n'] for one in bins)}")
    if not panels:
        return None
    return Figure(
        "reliability",
        "audit",
        "Is the margin a probability?",
        "σ(margin) of the validation pairs, each put in an order drawn at random, in ten bins of equal width: "
        "predicted against observed share of labels that prefer the first answer; dashed: perfect calibration. "
        f"Expected calibration error: {'; '.join(said)} pairs. No test.",
        f"Reliability curves. Expected calibration error: {'; '.join(said)}.",
        ("scorer", "from", "to", "predicted", "observed", "n"),
        [
            (found["scorer"], *(one[key] for key in ("low", "high", "predicted", "observed", "n")))
            for found in audited
            for one in found["reliability"]
        ],
        curves(panels, height=2.3),
    )


def agreement(material: Material) -> Figure | None:
    """Heat map of how often two judges prefer the same of two answers."""
    found = [one for one in material.report.get("agreement") or () if one["agreement"]["value"] is not None]
    names = list(dict.fromkeys(name for one in found for name in (one["a"], one["b"])))
    if not found:
        return None
    known = {frozenset((one["a"], one["b"])): one for one in found}
    values = [
        [known[pair]["agreement"]["value"] if (pair := frozenset((a, b))) in known else None for b in names]
        for a in names
    ]
    said = "; ".join(
        f"{one_line(one['a'])} and {one_line(one['b'])} {one['agreement']['value']:.0%}, Kendall's τ over methods "
        f"{number(one['kendall_tau'])}"
        for one in found
    )
    return Figure(
        "agreement",
        "audit",
        "Do the judges agree?",
        "Share of pairs of answers to one prompt of which two judges prefer the same one. "
        f"{said}; n = {span(sorted(one['agreement']['n'] for one in found))}. The tables hold the intervals; no test.",
        f"Heat map. {said}.",
        ("a", "b", "agreement", "low", "high", "n", "Kendall's tau"),
        [
            (one["a"], one["b"], *(one["agreement"][key] for key in ("value", "low", "high", "n")), one["kendall_tau"])
            for one in found
        ],
        heatmap(names, names, values, text=lambda value: f"{value:.0%}", middle=0.5, span=0.5),
    )
