"""Log-probabilities of each answer's first tokens under the reference: as many as its pair's shorter one has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from align_bench.records import TokenRow, Update


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefixes(Reference):
    """`prefix_chosen` and `prefix_rejected`: `s` of the answers' first tokens under the reference, nats."""

    label: str = "log-probs of first tokens"
    kind = "prefixes"
    column = ""

    def measure(self, model: Any, rows: Sequence[TokenRow], update: Update) -> Mapping[str, Tensor]:
        """As of a `Reference`."""
        from align_bench.evaluate.preference import prefix_logps

        return prefix_logps(model, rows, max_tokens=self.max_tokens, update=update)
