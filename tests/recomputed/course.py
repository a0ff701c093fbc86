"""`course` and `keywords`, from `scores.parquet`, `pairs.parquet` and `generations.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tests.recomputed import texts
from tests.recomputed.arithmetic import Column, alike, known
from tests.recomputed.cells import cell_leaves
from tests.recomputed.folder import Cell, Folder, Row
from tests.recomputed.ledger import Leaf, Ledger, Path

Favoured = list[tuple[Row, str]]


def enter(folder: Folder, ledger: Ledger) -> None:
    models = [cell for cell in folder.cells if cell.kind == "reward" and cell.scores]
    for place, cell in enumerate(models):
        _groups(cell, ledger, ("course", "scores", place))
    rows = list({row["pair"]: row for cell in folder.cells for row in cell.scores}.values())
    favoured: list[tuple[str, Favoured]] = [("label", [(row, "chosen") for row in rows])] if rows else []
    favoured += [(cell.text, _favoured(cell)) for cell in models]
    place = 0
    for by, own in favoured:
        for side in ("favoured", "unfavoured"):
            path: Path = ("course", "answers", place)
            ledger.record(path, {"by": by, "side": side})
            sides = [(row, which if side == "favoured" else _other(which)) for row, which in own]
            for name in ("words", "grade"):
                _distribution([row[f"{which}_{name}"] for row, which in sides], ledger, (*path, name))
            place += 1
    _keywords(folder, models, ledger)


def _other(side: str) -> str:
    return "rejected" if side == "chosen" else "chosen"


def _favoured(cell: Cell) -> Favoured:
    found = []
    for row in cell.scores:
        left, other = row["chosen_reward"], row["rejected_reward"]
        if left is not None and other is not None and left != other and not math.isnan(left - other):
            found.append((row, "chosen" if left > other else "rejected"))
    return found


def _groups(cell: Cell, ledger: Ledger, path: Path) -> None:
    left, other = known(cell.column("chosen_reward"), cell.column("rejected_reward"))
    correct, wrong = left[left > other], other[other > left]
    cell_leaves(ledger, (*path, "cell"), cell)
    ledger.add((*path, "ties"), int((left == other).sum()))
    _distribution(list(correct), ledger, (*path, "correct"))
    _distribution(list(wrong), ledger, (*path, "wrong"))
    for name, value in _welch(correct, wrong).items():
        if name == "p":
            ledger.p((*path, "test", "p"), value)
        else:
            ledger.add((*path, "test", name), value)


def _distribution(values: Sequence[float | None], ledger: Ledger, path: Path) -> None:
    (kept,) = known(values)
    found: dict[str, Leaf] = {"n": len(values), "n_valid": len(kept)}
    found |= dict.fromkeys(("mean", "std", "q1", "median", "q3"))
    if len(kept):
        found["mean"] = float(kept.sum() / len(kept))
        for share, name in ((0.25, "q1"), (0.5, "median"), (0.75, "q3")):
            place = share * (len(kept) - 1)
            low, high = np.sort(kept)[[math.floor(place), math.ceil(place)]]
            found[name] = float(low + (place - math.floor(place)) * (high - low))
        if len(kept) > 1:
            found["std"] = math.sqrt(((kept - kept.mean()) ** 2).sum() / (len(kept) - 1))
    ledger.record(path, found)


def _welch(a: Column, b: Column) -> dict[str, float | None]:
    found: dict[str, float | None] = dict.fromkeys(("difference", "low", "high", "t", "df", "p"))
    if not len(a) or not len(b):
        return found
    difference = float(a.mean() - b.mean())
    found["difference"] = difference
    if min(len(a), len(b)) < 2 or (alike(a) and alike(b)):
        return found
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    df = float((va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)))
    t = difference / math.sqrt(va + vb)
    reach = float(stats.t.ppf(0.975, df)) * math.sqrt(va + vb)
    p = float(2 * stats.t.sf(abs(t), df))
    return {"difference": difference, "low": difference - reach, "high": difference + reach, "t": t, "df": df, "p": p}


def _keywords(folder: Folder, models: Sequence[Cell], ledger: Ledger) -> None:
    pairs = {row["pair"]: row for row in folder.pairs}
    lists = [("label", "favoured", [row["chosen"] for row in folder.pairs])] if folder.pairs else []
    for cell in models:
        own = [pairs[row["pair"]][side] for row, side in _favoured(cell) if row["pair"] in pairs]
        lists.append((cell.text, "favoured", own))
    for cell in folder.cells:
        if cell.generations:
            lists.append((cell.text, "generated", [row["text"] for row in cell.generations]))
    for place, (of, kind, written) in enumerate(lists):
        _keyword_list(of, kind, written, ledger, ("keywords", "lists", place))
    if folder.texts:
        _keyword_list("train", "favoured", [row["chosen"] for row in folder.texts], ledger, ("training_keywords",))


def _keyword_list(of: str, kind: str, written: Sequence[str], ledger: Ledger, path: Path) -> None:
    ledger.record(path, {"of": of, "kind": kind, "texts": len(written)})
    for number, (term, weight) in enumerate(texts.keywords(written)):
        ledger.record((*path, "keywords", number), {"term": term, "weight": weight})
