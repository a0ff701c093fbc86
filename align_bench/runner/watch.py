"""Where a run shows what it does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from align_bench.records import Tick, silent


class Watch(Protocol):
    """Where a run shows what it does."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Tick]:
        """A stage of a cell begins; its tick reports progress until the context ends."""

    def say(self, text: str) -> None:
        """One line that stays."""


class Quiet:
    """A `Watch` that shows nothing."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Tick]:
        """Nothing is shown."""
        return nullcontext(silent)

    def say(self, text: str) -> None:
        """Nothing is said."""
