"""Methods by their rank on each measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_bench.records import CellId, Kind
from align_bench.report.formatting import UNDEFINED, one_line, p_value
from align_bench.report.tables.section import Column, Section, observed, text

if TYPE_CHECKING:
    from align_bench.report.schema import Ranking, Report

CHAPTER = "differences"
OF = {"method": "", "checkpoint": " These are ranks of checkpoints, not of methods."}


def reward_model_ranks(report: Report) -> Section:
    """Reward models by their rank on each measure."""
    return _ranked(report, "reward", "Ranks of reward models")


def policy_ranks(report: Report) -> Section:
    """Policies by their rank on each measure."""
    return _ranked(report, "policy", "Ranks of policies")


def _ranked(report: Report, kind: Kind, title: str) -> Section:
    found = [ranking for ranking in report.rankings if ranking.kind == kind]
    if not any(len(ranking.methods) > 2 for ranking in found):  # two are compared, not ranked
        return Section(title, [], [], chapter=CHAPTER)
    methods = list(dict.fromkeys(row.method for ranking in found for row in ranking.methods))
    columns = [text("method"), *(Column(one_line(ranking.metric)) for ranking in found)]
    rows = [(one_line(method), *(_place(ranking, method) for ranking in found)) for method in methods]
    captions = [*_captions(found), *observed(report, "pairs", "prompts")]
    return Section(title, columns, rows, captions, chapter=CHAPTER)


def _place(ranking: Ranking, method: CellId) -> str:
    place = next((row for row in ranking.methods if row.method == method), None)
    if place is None:
        return UNDEFINED
    bounded = place.low is not None and place.high is not None
    return f"{place.rank:g} [{place.low:g}, {place.high:g}]" if bounded else f"{place.rank:g}"


def _captions(found: Sequence[Ranking]) -> list[str]:
    levels = dict.fromkeys(ranking.level for ranking in found)
    friedman = ", ".join(f"{one_line(ranking.metric)} {p_value(ranking.friedman.p)}" for ranking in found)
    return [
        *(
            "1 is the highest mean; in brackets the ranks that the tests leave: above all that were shown lower, below "
            f"all that were shown higher.{OF[level]}"
            for level in levels
        ),
        f"Friedman's test over prompts (null hypothesis: all rank equally), p: {friedman}.",
    ]
