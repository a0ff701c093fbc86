"""Which cell or method a number is of."""

from __future__ import annotations

from tests.recomputed.folder import Cell
from tests.recomputed.ledger import Ledger, Path, leaves


def cell_leaves(ledger: Ledger, path: Path, cell: Cell) -> None:
    """Which cell it is, as `results` has it."""
    for own, value in leaves(cell.identity).items():
        ledger.add((*path, *own), value)


def method_leaves(ledger: Ledger, path: Path, cell: Cell) -> None:
    """Which method it is: the cell without its seed."""
    for own, value in leaves({**cell.identity, "text": cell.method, "seed": None}).items():
        ledger.add((*path, *own), value)
