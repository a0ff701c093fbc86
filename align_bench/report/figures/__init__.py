"""Every figure of a report, in the order of the page. Drawing takes long to import: what only shows tables does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from align_bench.records import CellId
from align_bench.report.figures import against, by_length, cost, distributions, judges, keywords, training
from align_bench.report.figures.base import Figure, Material


def all_figures(material: Material) -> list[Figure]:
    """Every figure that the report has data for, in the page's order."""
    made = (draw(material) for draw in DRAWN)
    return [figure for figure in made if figure is not None]


def comparison_figures(material: Material, pairs: Sequence[tuple[CellId, CellId]]) -> list[Figure]:
    """The figures of a comparison: prompt by prompt for each pair of cells, then those of the report."""
    first = against.prompt_differences(material, pairs)
    return [*([first] if first else []), *all_figures(material)]


DRAWN: Sequence[Callable[[Material], Figure | None]] = (
    against.differences,
    against.win_rates,
    training.losses,
    training.online,
    training.sweeps,
    training.trials,
    distributions.score_groups,
    distributions.chosen_and_rejected,
    distributions.judged,
    distributions.words,
    distributions.readability,
    by_length.length_and_reward,
    by_length.accuracy_by_length,
    judges.reliability,
    judges.agreement,
    against.frontier,
    keywords.keywords,
    cost.cost,
)
