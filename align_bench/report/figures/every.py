"""Every figure of a report, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from align_bench.report.figures.against import differences, frontier, prompt_differences, win_rates
from align_bench.report.figures.by_length import accuracy_by_length, length_and_reward
from align_bench.report.figures.contents import cost, keywords
from align_bench.report.figures.distributions import chosen_and_rejected, judged, readability, score_groups, words
from align_bench.report.figures.judges import agreement, reliability
from align_bench.report.figures.material import Figure, Material
from align_bench.report.figures.training import losses, online, sweeps


def figures(material: Material) -> list[Figure]:
    """Every figure that the report has data for, in the page's order."""
    made = (draw(material) for draw in DRAWN)
    return [figure for figure in made if figure is not None]


def comparison_figures(material: Material, pairs: Sequence[tuple[str, str]]) -> list[Figure]:
    """The figures of a comparison: prompt by prompt for each pair of cells, then those of the report."""
    first = prompt_differences(material, pairs)
    return [*([first] if first else []), *figures(material)]


DRAWN: Sequence[Callable[[Material], Figure | None]] = (
    differences,
    win_rates,
    losses,
    online,
    sweeps,
    score_groups,
    chosen_and_rejected,
    judged,
    words,
    readability,
    length_and_reward,
    accuracy_by_length,
    reliability,
    agreement,
    frontier,
    keywords,
    cost,
)
