"""How far a reward model or judge can be trusted: its scores of validation pairs with changed texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from align_bench.stages.classifier import Classifier
from align_bench.stages.models import ModelKey, RewardModel
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work
from align_bench.stages.tokens import distinct_tokens_in

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.stages.rows import Rows
    from align_bench.store.store import Artefact

FILE = "audit.jsonl"


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit(Stage["dict[tuple[int, str], Mapping[str, float | None]]"]):
    """(pair, side) → version of the texts → score; see `judge.audit`. An audit that fails takes nothing from the run.

    Attributes:
        judge: the reward model or judge.
        table: the validation rows.
        texts: the same as texts.
        pairs: at least this many are scored, of prompts drawn at random; see `judge.audit.drawn`.
        seed: of the drawn prompts, and of the shuffled ones.
        max_tokens: padded tokens that one pass may hold.
    """

    judge: RewardModel | Classifier
    table: Stage[TokenTable]
    texts: Rows
    pairs: int
    seed: int
    max_tokens: int
    kind = "audit"
    label = "audit"
    column = "audit"
    counted_in_cost = False

    @property
    def optional(self) -> bool:
        return True

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.judge.needs()

    def identity(self) -> dict[str, Json]:
        return {"judge": self.judge.identity(), "pairs": self.pairs, "seed": self.seed}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.judge,)

    def estimate(self, sizes: Sizes) -> Work:
        from align_bench.judge.audit import expected
        from align_bench.metrics.counterfactual import VERSIONS

        size = sizes(self.table)
        pairs = expected(self.pairs, size.rows, size.prompts)
        return Work(len(VERSIONS) * size.tokens * pairs // max(1, size.rows))

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.judge.audit import audit, drawn
        from align_bench.metrics.counterfactual import VERSIONS
        from align_bench.records import TokenTable

        table = desk.load(self.table)
        whole = [row for row in table.rows if row.chosen is not None and row.rejected is not None]
        rows = [whole[place] for place in drawn([row.prompt for row in whole], self.pairs, self.seed)]
        preferences = {preference.pair: preference for preference in desk.preferences(self.texts).rows}
        pairs = [preferences[row.pair] for row in rows]
        found = audit(self._scorer(desk), pairs, seed=self.seed, max_tokens=self.max_tokens, update=desk.update)
        lines = [json.dumps(asdict(answer)) + "\n" for answer in found]
        (folder / FILE).write_text("".join(lines), encoding="utf-8")
        prompts = len({row.prompt for row in rows})
        return Made(
            distinct_tokens_in(TokenTable(tuple(rows), {})) * len(VERSIONS), {"pairs": len(rows), "prompts": prompts}
        )

    def _scorer(self, desk: Desk) -> Any:
        """What scores texts."""
        model = desk.model(self.judge)
        if isinstance(self.judge, Classifier):
            return model
        from align_bench.judge.reward_model import RewardModel as Scorer

        return Scorer(model, desk.tokenizer(self.judge.frozen), self.judge.max_length)

    def load(self, artefact: Artefact) -> dict[tuple[int, str], Mapping[str, float | None]]:
        lines = (artefact / FILE).read_text(encoding="utf-8").splitlines()
        return {(line["pair"], line["side"]): line["scores"] for line in map(json.loads, lines)}
