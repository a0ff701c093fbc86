"""`alarms`: which numbers are beyond which thresholds, each threshold written down once more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tests.recomputed.folder import Cell, Folder
from tests.recomputed.ledger import Leaf, Ledger

FEWEST = 20


@dataclass(frozen=True)
class Raised:
    """An alarm, without its words."""

    kind: str
    about: str
    found: Leaf
    threshold: Leaf


def enter(folder: Folder, ledger: Ledger) -> None:
    """After all that it rests on: every number here is one that was found from rows, or a given fact."""
    for place, one in enumerate(_raised(folder, ledger)):
        ledger.record(
            ("alarms", place),
            {"kind": one.kind, "about": one.about, "found": one.found, "threshold": one.threshold},
        )


def _raised(folder: Folder, ledger: Ledger) -> Iterator[Raised]:
    done = [cell for cell in folder.cells if cell.done]
    policies = [cell for cell in done if cell.kind == "policy"]
    for split, facts in folder.facts["data"].items():
        yield from _of_data(split, facts)
    if folder.base is not None and folder.facts["vocabulary"]:
        mean = _metric(ledger, folder.base, "reward_mean")
        share = None if mean is None else -mean / math.log(folder.facts["vocabulary"])
        if share is not None and share > 0.7:
            yield Raised("shifted tokens", "base", share, 0.7)
    for failed in folder.facts["failed_checks"]:
        kind = {"signs": "flipped sign", "rewards": "wrong rewards", "extremes": "not finite"}[failed["check"]]
        yield Raised(kind, failed["cell"]["text"], None, None)
    yield from _of_judges(ledger)
    for cell in done:
        pairs = _count(ledger, folder.base, "reward_mean") if folder.base is not None else 0
        if cell.kind == "reward" and pairs >= FEWEST:
            share = (pairs - _count(ledger, cell, "tie_rate")) / pairs
            if share > 0.01:
                yield Raised("missing scores", cell.text, share, 0.01)
    for cell in done:
        tied = _metric(ledger, cell, "tie_rate")
        if cell.kind == "reward" and _count(ledger, cell, "tie_rate") >= FEWEST and tied is not None and tied > 0.99:
            yield Raised("equal scores", cell.text, tied, 0.99)
    for cell in policies:
        yield from _of_policy(folder, ledger, cell)
    bases = [folder.base] if folder.base is not None and policies else []
    for cell in (*bases, *policies):
        share = _metric(ledger, cell, "unfinished_share")
        if share is not None and _count(ledger, cell, "unfinished_share") >= FEWEST and share > 0.1:
            yield Raised("cut-off answers", cell.text, share, 0.1)


def _of_data(split: str, facts: dict[str, dict[str, float | None]]) -> Iterator[Raised]:
    checked = facts.get("checked") or {}
    labels, first, rows = checked.get("labels"), checked.get("labels_first"), facts["tokens"].get("kept")
    if labels is not None and first is not None and labels >= FEWEST:
        larger = max(first, labels - first) / labels
        if larger > 0.95:
            yield Raised("one-sided labels", split, larger, 0.95)
    examined = facts.get("examined") or {}
    if (rows_read := examined.get("rows")) is not None and rows_read >= FEWEST:
        for kind, name, most in (
            ("contradictory rows", "contradictions", 0.02),
            ("duplicate rows", "duplicates", 0.1),
        ):
            if (count := examined[name]) is not None and count / rows_read > most:
                yield Raised(kind, split, count / rows_read, most)
    shared = checked.get("prompts_in_train")
    if not split.startswith("judge") and shared and rows and shared / rows > 0.01:
        yield Raised("validation in training", split, shared / rows, 0.01)
    distance, chance = checked.get("distance"), checked.get("distance_by_chance")
    if split.startswith("judge") and distance is not None and distance - (chance or 0) > 0.2:
        yield Raised("other data", split, distance - (chance or 0), 0.2)


def _of_judges(ledger: Ledger) -> Iterator[Raised]:
    place = 0
    while ("against_longer", place, "scorer") in ledger.numbers:
        of = {
            name: ledger.numbers["against_longer", place, name].value for name in ("scorer", "difference", "decision")
        }
        value, low = (ledger.numbers["against_longer", place, "accuracy", name].value for name in ("value", "low"))
        place += 1
        if value is None:
            continue
        assert isinstance(value, float)
        assert low is None or isinstance(low, float)
        if value <= 0.5 or (low is not None and low <= 0.5):
            yield Raised("judge at chance", str(of["scorer"]), value, 0.5)
        elif of["difference"] is not None and of["decision"] != "above":
            longer = ledger.numbers["against_longer", place - 1, "longer_wins", "value"].value
            yield Raised("judge by length", str(of["scorer"]), value, longer)


def _of_policy(folder: Folder, ledger: Ledger, cell: Cell) -> Iterator[Raised]:
    facts = folder.facts["results"][cell.place]
    moved = _metric(ledger, cell, "kl_from_start_per_token" if facts["chain"] else "kl_per_token")
    if moved is not None and moved < 1e-4 and facts["trainable"]:
        yield Raised("nothing learned", cell.text, moved, 1e-4)
    moved = _metric(ledger, cell, "kl_per_token")
    if moved is not None and moved > 0.5:
        yield Raised("drifted away", cell.text, moved, 0.5)
    if folder.base is None:
        return
    own, before = (_metric(ledger, one, "repetition") for one in (cell, folder.base))
    if own is not None and _count(ledger, cell, "repetition") >= FEWEST and own - (before or 0.0) > 0.2:
        yield Raised("repeats itself", cell.text, own - (before or 0.0), 0.2)
    own, before = (_metric(ledger, one, "unfinished_share") for one in (cell, folder.base))
    enough = _count(ledger, cell, "unfinished_share") >= FEWEST
    if own is not None and before is not None and enough and own >= 0.9 and before <= 0.1:
        yield Raised("never ends", cell.text, own, 0.9)


def _metric(ledger: Ledger, cell: Cell, name: str) -> float | None:
    found = ledger.numbers["results", cell.place, "metrics", name, "value"].value
    assert found is None or isinstance(found, float)
    return found


def _count(ledger: Ledger, cell: Cell, name: str) -> int:
    found = ledger.numbers["results", cell.place, "metrics", name, "n"].value
    assert isinstance(found, int)
    return found
