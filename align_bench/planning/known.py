"""What planning reads of earlier work: facts of finished stages, and failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from align_bench.records import Facts
    from align_bench.stages.stage import Stage
    from align_bench.store.failures import Failure


class Known(Protocol):
    """Results that later parts of a graph rest on."""

    def facts(self, stage: Stage[object]) -> Facts | None:
        """The facts of what a stage made; None when it is not stored."""

    def failure(self, stage: Stage[object]) -> Failure | None:
        """Why a stage has ended without a result; None when it has not, or will be tried again."""


class NothingKnown:
    """A `Known` before any work."""

    def facts(self, stage: Stage[object]) -> Facts | None:
        """None."""

    def failure(self, stage: Stage[object]) -> Failure | None:
        """None."""
