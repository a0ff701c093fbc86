"""The results of a method's trials: accuracies and losses on the held-out pairs, and the setting that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from align_bench.records import Estimate
from align_bench.stages.stage import Desk, Made, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Facts, Json, TokenTable
    from align_bench.stages.columns import Columns, Measured
    from align_bench.store.store import Artefact


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials(Stage["TrialResults"]):
    """`accuracies` and `losses` (per trial, null for one that failed), `kept`, `base` and `held_out`, as facts.

    Attributes:
        measured: each trial's measurement of the held-out pairs, in order; None for one that failed.
        base: the base's, beside policies; None beside reward models.
        table: the held-out rows.
        scalar: whether the method trains a reward model.
        choose_by: what decides which is kept: the highest accuracy, or the lowest loss.
    """

    measured: tuple[Measured | None, ...]
    base: Measured | None
    table: Stage[TokenTable]
    scalar: bool
    choose_by: Literal["accuracy", "loss"] = "accuracy"
    kind = "trials"
    label = "choice among trials"
    libraries = ("numpy", "scipy")
    counted_in_cost = False

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *(one for one in (*self.measured, self.base) if one is not None)

    def identity(self) -> dict[str, Json]:
        ended: list[Json] = [one is not None for one in self.measured]
        return {"ended": ended, "scalar": self.scalar, "choose_by": self.choose_by}

    def run(self, desk: Desk, folder: Path) -> Made:
        rows = desk.load(self.table).rows
        columns = [None if one is None else desk.load(one) for one in self.measured]
        found = [None if one is None else _accuracy(one, rows, self.scalar) for one in columns]
        losses = [None if one is None or not self.scalar else _loss(one) for one in columns]
        scores = losses if self.choose_by == "loss" else found
        sign = -1 if self.choose_by == "loss" else 1
        return Made(
            facts={
                "accuracies": [None if one is None else asdict(one) for one in found],
                "losses": [None if one is None else asdict(one) for one in losses],
                "kept": best([None if one is None or one.value is None else sign * one.value for one in scores]),
                "base": None if self.base is None else asdict(_accuracy(desk.load(self.base), rows, self.scalar)),
                "held_out": {"pairs": len(rows), "prompts": len({row.prompt for row in rows})},
            }
        )

    def load(self, artefact: Artefact) -> TrialResults:
        return trial_results(artefact.facts)


@dataclass(frozen=True, slots=True)
class TrialResults:
    """Which of a method's trials is kept, and what they were measured to be.

    Attributes:
        accuracies: of each trial on the held-out pairs; None for one that failed.
        kept: number of the trial whose setting is kept.
        base: accuracy of the base on these pairs, by the measure of policies; None for reward models.
        held_out: `pairs` and `prompts` that trials are measured on.
        losses: mean Bradley–Terry loss of each trial of a reward model; None for a policy and for one that failed.
    """

    accuracies: tuple[Estimate | None, ...]
    kept: int
    base: Estimate | None
    held_out: Mapping[str, int]
    losses: tuple[Estimate | None, ...] = ()


def trial_results(facts: Facts) -> TrialResults:
    """The choice that an artefact's facts hold."""
    from pydantic import TypeAdapter

    return TypeAdapter(TrialResults).validate_python(facts)


def _accuracy(columns: Columns, rows: Any, scalar: bool) -> Estimate:
    """Accuracy on the held-out pairs; the same measure for all of a kind.

    A reward model is right where `r_w > r_l`; a policy, and the base, where `s̄_w > s̄_l`: where it would itself prefer
    the chosen answer, token for token. Ties count ½. No scale of the method's own enters. The log-ratio to the base
    would not do: its sign is as right after one small step as after many, so a policy that hardly learnt may win.
    """
    from align_bench.metrics.accuracy import accuracy

    chosen, rejected = columns["chosen"].tolist(), columns["rejected"].tolist()
    if not scalar:
        chosen = [logp / len(row.chosen or ()) for logp, row in zip(chosen, rows, strict=True)]
        rejected = [logp / len(row.rejected or ()) for logp, row in zip(rejected, rows, strict=True)]
    return accuracy(chosen, rejected)


def _loss(columns: Columns) -> Estimate:
    """Mean of −log σ(r_w − r_l) over the held-out pairs, nats: the same whatever a method adds to its own loss."""
    import numpy as np

    from align_bench.metrics.mean import mean

    margins = columns["chosen"].astype(np.float64) - columns["rejected"]
    return mean(np.logaddexp(0.0, -margins).tolist())


def best(scores: Sequence[float | None]) -> int:
    """The number of the highest score, the earlier one of equals; 0 when none is defined."""
    defined = [(score, -number) for number, score in enumerate(scores) if score is not None]
    return -max(defined)[1] if defined else 0
