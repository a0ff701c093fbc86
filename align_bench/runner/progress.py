"""Where a run shows what it does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from align_bench.records import Update, no_update


class Progress(Protocol):
    """Where a run shows what it does."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Update]:
        """A stage of a cell runs while the context lasts; it is given an `Update` to report its progress with."""

    def log(self, text: str) -> None:
        """Show a line that stays."""


class NoProgress:
    """A `Progress` that shows nothing."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Update]:
        """Nothing is shown."""
        return nullcontext(no_update)

    def log(self, text: str) -> None:
        """Nothing is shown."""
