"""How many of a judge's training rows are also the policies'."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from align_bench.stages.stage import Desk, Made, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Facts, Json, TokenTable
    from align_bench.store.store import Artefact


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap(Stage["dict[str, int]"]):
    """`rows`, `same_rows` and `same_prompts`, as facts; see `judge.overlap`.

    Attributes:
        judge: the judge's training rows.
        train: those of the policies.
        name: the judge's, for the warning.
    """

    judge: Stage[TokenTable]
    train: Stage[TokenTable]
    name: str
    kind = "overlap"
    label = "rows shared with train"
    libraries = ()
    counted_in_cost = False

    @property
    def optional(self) -> bool:
        return True

    def needs(self) -> tuple[Stage[object], ...]:
        return self.judge, self.train

    def identity(self) -> dict[str, Json]:
        return {}

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.judge.overlap import overlap

        found = overlap(desk.load(self.judge).rows, desk.load(self.train).rows)
        desk.update(1, 1)
        return Made(facts=asdict(found))

    def remark(self, facts: Facts) -> str | None:
        """A warning where rows are shared."""
        from align_bench.judge.overlap import Overlap as Found
        from align_bench.judge.overlap import describe

        return describe(self.name, Found(**cast("dict[str, int]", facts)))

    def load(self, artefact: Artefact) -> dict[str, int]:
        return dict(cast("dict[str, int]", artefact.facts))
