"""How far a policy has moved from the base, on its own answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from align_bench.stages.answers import Answers, sequences, tokens_in, work_on
from align_bench.stages.models import ModelKey, Policy
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json
    from align_bench.store.store import Artefact

FILE = "drift.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift(Stage["list[Mapping[str, float]]"]):
    """`logp`, `ref_logp` and `kl` of each answer, nats; see `evaluate.drift`.

    Attributes:
        answers: the policy's answers.
        policy: the policy.
        max_tokens: padded tokens that one pass may hold.
    """

    answers: Answers
    policy: Policy
    max_tokens: int
    kind = "drift"
    label = "drift"
    column = "drift"

    def needs(self) -> tuple[Stage[object], ...]:
        return self.answers.table, self.answers, *self.policy.needs()

    def identity(self) -> dict[str, Json]:
        return {}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.policy,)

    def estimate(self, sizes: Sizes) -> Work:
        """Once under the policy, once under the base."""
        return work_on(self.answers, sizes, passes=2)

    def run(self, desk: Desk, folder: Path) -> Made:
        """The base is the policy with its adapter off."""
        from align_bench.evaluate.drift import answer_drift

        answers = sequences(desk.load(self.answers), desk.load(self.answers.table))
        drift = answer_drift(desk.model(self.policy), answers, max_tokens=self.max_tokens, update=desk.update)
        (folder / FILE).write_text(json.dumps([asdict(one) for one in drift]), encoding="utf-8")
        return Made(2 * tokens_in(answers))

    def load(self, artefact: Artefact) -> list[Mapping[str, float]]:
        found: list[Mapping[str, float]] = json.loads((artefact / FILE).read_text(encoding="utf-8"))
        return found
