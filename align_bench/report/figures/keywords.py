"""What the answers speak of."""

from __future__ import annotations

from align_bench.report.figures.base import MAX_PANELS, Figure, Material, span
from align_bench.report.formatting import one_line
from align_bench.report.plots import ladders

KEYWORDS = 8


def keywords(material: Material) -> Figure | None:
    """The strongest keywords of each list."""
    found = [own for own in material.report.keywords.lists if own.keywords]
    found = sorted(found, key=lambda own: own.kind)[:MAX_PANELS]
    if not found:
        return None
    lists = {f"{material.label(own.of)}, {own.kind}": own.keywords for own in found}
    told = "; ".join(f"{name}: {', '.join(each.term for each in terms[:3])}" for name, terms in lists.items())
    return Figure(
        name="keywords",
        chapter="keywords",
        title="Keywords",
        caption=f"The {KEYWORDS} terms of the largest mean TF-IDF weight: of the answers that the label or a model "
        f"favours, and of each policy's own (n = {span(sorted(own.texts for own in found))} texts). No test.",
        alternative=f"Bar charts. {one_line(told)}.",
        columns=("list", "term", "weight"),
        rows=[(name, each.term, each.weight) for name, terms in lists.items() for each in terms],
        svg=ladders({name: [(each.term, each.weight) for each in terms[:KEYWORDS]] for name, terms in lists.items()}),
    )
