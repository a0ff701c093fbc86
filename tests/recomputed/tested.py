"""`tested`, from `test_scores.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tests.recomputed.arithmetic import accuracy, holm, of_pairs, with_prompts
from tests.recomputed.cells import cell_leaves
from tests.recomputed.folder import Cell, Folder, Row, prompt_of
from tests.recomputed.ledger import Leaf, Ledger, Path
from tests.recomputed.paired import number, paired
from tests.recomputed.results import log_ratio, logp_mean, sides, spread

OF_BASE: dict[str, Leaf] = {"difference": None, "low": None, "high": None, "test": None, "p": None, "n": 0}


def enter(folder: Folder, ledger: Ledger) -> None:
    cells = [cell for cell in (replace(cell, scores=_rows(folder, cell)) for cell in folder.cells) if cell.scores]
    base = next((cell for cell in cells if cell.kind == "base"), None)
    against = [OF_BASE if base is None or cell is base else _less(cell, base) for cell in cells]
    adjusted = holm([number(one["p"]) for one in against])
    for place, (cell, own, p_holm) in enumerate(zip(cells, against, adjusted, strict=True)):
        path: Path = ("tested", place)
        cell_leaves(ledger, (*path, "cell"), cell)
        _measures(cell, ledger, path)
        ledger.record(path, {name: own[name] for name in OF_BASE if name != "p"})
        ledger.p((*path, "p"), number(own["p"]))
        ledger.p((*path, "p_holm"), p_holm)


def _rows(folder: Folder, cell: Cell) -> Sequence[Row]:
    return sorted((row for row in folder.tested if row["cell"] == cell.text), key=lambda row: row["pair"])


def _measures(cell: Cell, ledger: Ledger, path: Path) -> None:
    prompts = [prompt_of(row) for row in cell.scores]
    rewards = cell.column("chosen_reward"), cell.column("rejected_reward")
    ledger.estimate((*path, "accuracy"), accuracy(*rewards, prompts))
    ledger.estimate((*path, "accuracy_logp_mean"), accuracy(*sides(cell.scores, logp_mean), prompts))
    if cell.kind == "policy":
        ledger.estimate((*path, "accuracy_logratio"), accuracy(*sides(cell.scores, log_ratio), prompts))
    else:
        ledger.record((*path, "accuracy_logratio"), {"value": None, "low": None, "high": None, "n": 0, "wanted": None})
    left, other, own = with_prompts(prompts, *rewards)
    ledger.estimate((*path, "reward_mean"), of_pairs((left + other) / 2, own))
    ledger.estimate((*path, "reward_std"), spread([left, other], own))


def _less(cell: Cell, base: Cell) -> dict[str, Leaf]:
    """Whether each prefers the chosen answer, token for token, on the pairs that both were measured on."""
    right: list[dict[int, float]] = []
    for one in (cell, base):
        chosen, rejected = sides(one.scores, logp_mean)
        both = zip(one.scores, chosen, rejected, strict=True)
        right.append({row["pair"]: _win(a, b) for row, a, b in both if a is not None and b is not None})
    ours, theirs = right
    rows = [row for row in cell.scores if row["pair"] in ours and row["pair"] in theirs]
    differences = np.array([ours[row["pair"]] - theirs[row["pair"]] for row in rows])
    return paired(differences, [prompt_of(row) for row in rows], binary=True)


def _win(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)
