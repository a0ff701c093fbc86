"""Log-probabilities of other rows' answers to each prompt under the reference: what a KL estimate is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from align_bench.records import TokenRow, Update


@dataclass(frozen=True, kw_only=True, eq=False)
class Mismatched(Reference):
    """`mismatched_chosen` and `mismatched_rejected`: `s` of the fixed partners' answers under the reference, nats."""

    label: str = "mismatched log-probs"
    kind = "mismatched"
    column = ""

    def measure(self, model: Any, rows: Sequence[TokenRow], update: Update) -> Mapping[str, Tensor]:
        """As of a `Reference`."""
        from align_bench.evaluate.preference import mismatched_logps

        return mismatched_logps(model, rows, max_tokens=self.max_tokens, update=update)
