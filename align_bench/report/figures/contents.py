"""What the answers speak of, and what the cells cost."""

from __future__ import annotations

import numpy as np

from align_bench.report.figures.material import MAX_PANELS, Figure, Material, span
from align_bench.report.numerals import one_line
from align_bench.report.plots import bars, ladders

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


def cost(material: Material) -> Figure | None:
    """Wall time and peak memory of each cell."""
    spent = [(cell.name, cell.outcome.cost) for cell in material.shown if cell.outcome.cost]
    if not spent:
        return None
    seconds = [known.seconds for _, known in spent]
    memory = [known.peak_bytes / 2**20 for _, known in spent]
    slowest = spent[int(np.argmax(seconds))][0]
    return Figure(
        "cost",
        "cost",
        "What each cell cost",
        "Wall time of training, evaluation, generation and judging, and peak memory of the process; one run each, so "
        f"no interval and no test.{material.seeds}",
        f"Bar charts. The slowest cell is {slowest} with {max(seconds):.1f} seconds.",
        ("cell", "seconds", "tokens", "peak MiB"),
        [(name, known.seconds, known.tokens, known.peak_bytes / 2**20) for name, known in spent],
        bars([name for name, _ in spent], {"wall time, seconds": seconds, "peak memory, MiB": memory}),
    )
