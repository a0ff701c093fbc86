"""What the cells cost."""

from __future__ import annotations

import numpy as np

from align_bench.report.figures.base import Figure, Material
from align_bench.report.plots import bars


def cost(material: Material) -> Figure | None:
    """Wall time and peak memory of each cell."""
    spent = [(cell.name, cell.outcome.cost) for cell in material.shown if cell.outcome.cost]
    if not spent:
        return None
    seconds = [known.seconds for _, known in spent]
    memory = [known.peak_bytes / 2**20 for _, known in spent]
    named = [material.label(name) for name, _ in spent]
    slowest = named[int(np.argmax(seconds))]
    return Figure(
        name="cost",
        chapter="cost",
        title="What each cell cost",
        caption="Wall time of training, evaluation, generation and judging, and peak memory of the process; one run "
        f"each, so no interval and no test.{material.seeds}",
        alternative=f"Bar charts. The slowest cell is {slowest} with {max(seconds):.1f} seconds.",
        columns=("cell", "seconds", "tokens", "peak MiB"),
        rows=[(name, known.seconds, known.tokens, known.peak_bytes / 2**20) for name, known in spent],
        svg=bars(named, {"wall time, seconds": seconds, "peak memory, MiB": memory}),
    )
