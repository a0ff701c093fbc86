"""What `align-bench clean` shows: what no suite needs, of which kind, and how much of it there is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from align_bench.store.clean import Leftover

_WHAT = {
    "stored": "",
    "writing": "unfinished: run was killed",
    "partial": "checkpoint",
    "damaged": "damaged",
    "failed": "failure",
}


def leftovers_table(found: Sequence[Leftover], without: Sequence[str] = ()) -> RenderableType:
    """A row for everything that would be deleted, the largest first.

    Args:
        found: what no suite needs.
        without: suites whose needs were not counted.
    """
    beside = f", {', '.join(without)} not counted" if without else ""
    if not found:
        return Text(f"nothing to delete: every stored result is needed by a suite{beside}")
    table = Table(title=Text(f"Needed by no suite{beside}"), title_justify="left", show_footer=True)
    table.add_column("kind", footer=Text(f"{len(found)} in all"))
    table.add_column("of", overflow="fold")
    table.add_column("what", footer="")
    table.add_column("last used", footer="")
    table.add_column("MB", justify="right", footer=f"{sum(one.size_bytes for one in found) / 1e6:,.1f}")
    for one in sorted(found, key=lambda one: -one.size_bytes):
        used = datetime.fromtimestamp(one.used).astimezone()
        size = f"{one.size_bytes / 1e6:,.1f}"
        table.add_row(escape(one.kind), escape(one.label), _WHAT[one.state], f"{used:%Y-%m-%d %H:%M}", size)
    return table
