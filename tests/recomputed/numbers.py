"""Every number of `report.json`, found anew from the other files of its folder, and the list of those that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path as FilePath

from tests.recomputed import alarms, audits, claims, comparisons, course, leaderboard, policies, results, tested
from tests.recomputed.folder import Folder
from tests.recomputed.ledger import Leaf, Ledger, Number, Path, leaves, pattern

# What no row says, each with the reason. A `*` stands for the rest of the path.
GIVEN = {
    "version": "the format's",
    "command": "what was typed",
    "made": "the day on which it was made",
    "suite.*": "what was asked for",
    "base.*": "the base model's files",
    "data.*": "counts of the data as it was read and tokenised, before any row was made",
    "judges[].*": "the panel, and how much its training rows share with the policies'",
    "environment.*": "the machine and the libraries",
    "failed_checks*": "what methods failed before their first step",
    "alarms[].sentence": "words, and rounded numbers of the other blocks",
    "alarms[].cure": "words",
    "tuning*": "trials leave no rows",
    "results[].cell.*": "which cells there are; every other mention of one is held against it",
    "results[].name": "the same",
    "results[].algorithm": "the same",
    "results[].kind": "the same",
    "results[].seed": "the same",
    "results[].parameters.*": "what was asked for",
    "results[].status": "how the run ended",
    "results[].reason": "how the run ended",
    "results[].reward": "the reward's definition, in words",
    "results[].cost*": "measured while it ran",
    "results[].trainable": "counted while it ran",
    "results[].adapter": "where what was trained lies",
    "results[].start*": "what was asked for",
    "results[].chain*": "what was asked for",
    "results[].warnings[]": "words",
    "results[].remarks[]": "words",
    "keywords.segmentation": "words",
    "summary[]": "words and rounded numbers of the findings, held against them in tests/report",
    "verdict[]": "words and rounded numbers of the claims, held against them in tests/report",
    "notes[]": "words and rounded numbers of the other blocks",
}
ABSENT = "(absent)"


@dataclass(frozen=True)
class Checked:
    """A place in `report.json`: what stands there, and what its rows say."""

    path: Path
    there: Leaf
    found: Number

    @property
    def agrees(self) -> bool:
        return self.found.agrees(self.there)


def found_in(folder: FilePath) -> Ledger:
    """Every number that the rows of a report's folder say."""
    rows, ledger = Folder.read(folder), Ledger()
    results.enter(rows, ledger)
    audits.enter(rows, ledger)
    audits.enter_against_longer(rows, ledger)
    compared = comparisons.compared(rows)
    comparisons.enter(rows, compared, ledger)
    claims.enter(rows, compared, ledger)
    policies.enter(rows, compared, ledger)
    policies.enter_rankings(rows, compared, ledger)
    course.enter(rows, ledger)
    leaderboard.enter(rows, compared, ledger)
    alarms.enter(rows, ledger)
    tested.enter(rows, ledger)
    return ledger


def recomputed(folder: FilePath, found: Ledger | None = None) -> Iterator[Checked]:
    """Each number that the rows say, beside the one in `report.json`.

    Args:
        folder: a report's folder.
        found: what its rows say, where that is known already.
    """
    there = _written(folder)
    for place, number in (found or found_in(folder)).numbers.items():
        yield Checked(place, there.get(place, ABSENT), number)


def unchecked(folder: FilePath, found: Ledger) -> list[Path]:
    """The leaves of `report.json` that neither the rows say nor `GIVEN` names."""
    return [
        place
        for place in _written(folder)
        if place not in found.numbers and not any(fnmatchcase(pattern(place), given) for given in _escaped())
    ]


def unused(folder: FilePath) -> set[str]:
    """The entries of `GIVEN` that name nothing."""
    there = {pattern(place) for place in _written(folder)}
    return {
        given
        for given, escaped in zip(GIVEN, _escaped(), strict=True)
        if not any(fnmatchcase(place, escaped) for place in there)
    }


def _escaped() -> list[str]:
    return [given.replace("[]", "[[]]") for given in GIVEN]


def _written(folder: FilePath) -> dict[Path, Leaf]:
    return leaves(json.loads((folder / "report.json").read_text(encoding="utf-8")))
