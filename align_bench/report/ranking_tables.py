"""The tables of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align_bench.report.formatting import UNDEFINED, one_line, p_value
from align_bench.report.section import Column, Report, Section, detectable, text

TITLES = {"reward": "Ranks of reward models", "policy": "Ranks of policies"}


def ranking_tables(report: Report) -> list[Section]:
    """Reward models and policies by their rank on each measure."""
    return [_ranked(report, kind, title) for kind, title in TITLES.items()]


def _ranked(report: Report, kind: str, title: str) -> Section:
    found = [ranking for ranking in report.get("rankings", []) if ranking["kind"] == kind]
    if not any(len(ranking["methods"]) > 2 for ranking in found):  # two are compared, not ranked
        return Section(title, [], [], chapter="differences")
    names = list(dict.fromkeys(row["name"] for ranking in found for row in ranking["methods"]))
    columns = [text("method"), *(Column(one_line(ranking["metric"])) for ranking in found)]
    rows = [(one_line(name), *(_place(ranking, name) for ranking in found)) for name in names]
    captions = [*_captions(found), *detectable(report, "pairs", "prompts")]
    return Section(title, columns, rows, captions, chapter="differences")


def _place(ranking: Mapping[str, Any], name: str) -> str:
    place = next((row for row in ranking["methods"] if row["name"] == name), None)
    return UNDEFINED if place is None else f"{place['rank']:g} [{place['low']:g}, {place['high']:g}]"


def _captions(found: Sequence[Mapping[str, Any]]) -> list[str]:
    over = {
        "method": "seeds and prompts",
        "checkpoint": "prompts; these are ranks of checkpoints, not of methods",
    }
    levels = list(dict.fromkeys(ranking["level"] for ranking in found))
    friedman = ", ".join(f"{one_line(ranking['metric'])} {p_value(ranking['friedman']['p'])}" for ranking in found)
    return [
        *(f"1 is the highest mean; in brackets 95% over resampled {over[level]}." for level in levels),
        f"Friedman's test over prompts that none of these is ranked higher, p: {friedman}.",
    ]
