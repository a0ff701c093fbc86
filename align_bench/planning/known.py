"""What planning may ask of earlier work: facts of finished stages, and failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from align_bench.stages.stage import Stage
    from align_bench.store.store import Failure


class Known(Protocol):
    """Results that later parts of a graph rest on."""

    def facts(self, stage: Stage[Any]) -> Mapping[str, Any] | None:
        """The facts of what a stage made; None when it is not stored."""

    def failure(self, stage: Stage[Any]) -> Failure | None:
        """Why a stage has ended without a result; None when it has not, or will be tried again."""


class Nothing:
    """A `Known` before any work."""

    def facts(self, stage: Stage[Any]) -> Mapping[str, Any] | None:
        """None."""

    def failure(self, stage: Stage[Any]) -> Failure | None:
        """None."""
