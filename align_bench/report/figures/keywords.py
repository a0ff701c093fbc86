"""What the answers speak of."""

from __future__ import annotations

from align_bench.report.figures.base import MAX_PANELS, Figure, Material, span
from align_bench.report.formatting import one_line
from align_bench.report.plots import ladders

KEYWORDS = 8


def keywords(material: Material) -> Figure | None:
    """The strongest keywords of each list."""
    block = material.report.get("keywords") or {}
    found = [one for one in block.get("lists", ()) if one["keywords"]]
    found = sorted(found, key=lambda one: one["kind"])[:MAX_PANELS]
    if not found:
        return None
    lists = {f"{one['of']}, {one['kind']}": one["keywords"] for one in found}
    told = "; ".join(f"{name}: {', '.join(one['term'] for one in terms[:3])}" for name, terms in lists.items())
    return Figure(
        "keywords",
        "keywords",
        "Keywords",
        f"The {KEYWORDS} terms of the largest mean TF-IDF weight: of the answers that the label or a model favours, "
        f"and of each policy's own (n = {span(sorted(one['texts'] for one in found))} texts). No test.",
        f"Bar charts. {one_line(told)}.",
        ("list", "term", "weight"),
        [(name, one["term"], one["weight"]) for name, terms in lists.items() for one in terms],
        ladders({name: [(one["term"], one["weight"]) for one in terms[:KEYWORDS]] for name, terms in lists.items()}),
    )
