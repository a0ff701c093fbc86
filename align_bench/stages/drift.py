"""How far a policy has moved from the base, or from its start, on its own answers."""

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
        reference: what it has moved from; None for the policy with its adapter off.
        from_start: whether that is the policy's start, and not the base.
    """

    answers: Answers
    policy: Policy
    max_tokens: int
    reference: Policy | None = None
    from_start: bool = False
    kind = "drift"
    column = "drift"

    @property
    def label(self) -> str:
        return "drift from start" if self.from_start else "drift"

    def needs(self) -> tuple[Stage[object], ...]:
        reference = self.reference.needs() if self.reference else ()
        return self.answers.table, self.answers, *self.policy.needs(), *reference

    def identity(self) -> dict[str, Json]:
        return {} if self.reference is None else {"reference": self.reference.identity()}

    def models(self) -> tuple[ModelKey, ...]:
        return (self.policy,)

    def estimate(self, sizes: Sizes) -> Work:
        """Once under the policy, once under what it has moved from."""
        return work_on(self.answers, sizes, passes=2)

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.evaluate.drift import answer_drift, answer_logps, drift_between

        answers = sequences(desk.load(self.answers), desk.load(self.answers.table))
        if self.reference is None:
            drift = answer_drift(desk.model(self.policy), answers, max_tokens=self.max_tokens, update=desk.update)
        else:  # one model is held at a time
            own, other = (
                answer_logps(desk.model(model), answers, max_tokens=self.max_tokens, update=desk.update)
                for model in (self.policy, self.reference)
            )
            drift = drift_between(own, other)
        (folder / FILE).write_text(json.dumps([asdict(one) for one in drift]), encoding="utf-8")
        return Made(2 * tokens_in(answers))

    def load(self, artefact: Artefact) -> list[Mapping[str, float]]:
        found: list[Mapping[str, float]] = json.loads((artefact / FILE).read_text(encoding="utf-8"))
        return found
