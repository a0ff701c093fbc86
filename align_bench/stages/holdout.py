"""A part of the training rows, split by prompt: what trials train on, and what they are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from align_bench.stages.stage import Desk, Made, Stage
from align_bench.stages.tokens import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.store.store import Artefact


@dataclass(frozen=True, kw_only=True, eq=False)
class HoldoutSplit(Stage["TokenTable"]):
    """One part of the split.

    Attributes:
        part: `train`, what trials train on; `val`, the pairs that they are measured on.
        train, val: the tokenised tables; prompts of `val` are never held out.
        share: which share of the prompts is held out.
        seed: what picks them.
    """

    part: Literal["train", "val"]
    train: Stage[TokenTable]
    val: Stage[TokenTable]
    share: float
    seed: int
    kind = "tokens"
    libraries = ()
    fatal = True

    @property
    def label(self) -> str:
        return "rows for trials" if self.part == "train" else "held-out rows"

    def needs(self) -> tuple[Stage[object], ...]:
        return self.train, self.val

    def identity(self) -> dict[str, Json]:
        return {"part": self.part, "share": self.share, "seed": self.seed}

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.data.holdout import split_holdout
        from align_bench.data.token_rows import save_table
        from align_bench.records import TokenTable

        excluded = {row.prompt for row in desk.load(self.val).rows}
        kept, held = split_holdout(desk.load(self.train).rows, excluded, share=self.share, seed=self.seed)
        rows = kept if self.part == "train" else held
        save_table(folder / FILE, TokenTable(tuple(rows), {"kept": len(rows)}))
        return Made(facts={"rows": len(rows), "prompts": len({row.prompt for row in rows})})

    def load(self, artefact: Artefact) -> TokenTable:
        from align_bench.data.token_rows import load_table

        return load_table(artefact / FILE)
