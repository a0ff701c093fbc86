"""What every way of training is given, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from align_bench.api import Algorithm
from align_bench.models.micro_batches import training_tokens
from align_bench.records import LogStep, TokenRow, no_update, unlogged

if TYPE_CHECKING:
    from align_bench.records import Parameters, Update
    from align_bench.suite.models import Train


def silent(text: str) -> None:
    """Nobody watches."""


A = TypeVar("A", bound=Algorithm, covariant=True)

# From rows of the training table and the ids of an answer to each to one number each, in the reward's unit.
Reward: TypeAlias = Callable[[Sequence[TokenRow], Sequence[Sequence[int]]], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob(Generic[A]):
    """One training of one method.

    Attributes:
        model: a frozen base with a trainable adapter, which is trained in place.
        rows: the tokenised training rows.
        algorithm: the method.
        parameters: its hyper-parameters, resolved.
        learning_rate: peak learning rate of AdamW.
        settings: batch size, schedule and the like.
        seed: seed of row order, of dropout and of sampling.
        checkpoint: file to go on from after a kill; written every `settings.checkpoint_minutes`, removed by the caller.
            None where a killed training starts again.
        reference: folder of the adapter that is the reference of online training; None where that is the model with its
            adapter off.
        update: progress, once per optimizer step.
        log: takes the log entry of each optimizer step, for trackers.
        say: takes a line for whoever watches.
    """

    model: Any
    rows: Sequence[TokenRow]
    algorithm: A
    parameters: Parameters
    learning_rate: float
    settings: Train
    seed: int
    checkpoint: Path | None = None
    reference: Path | None = None
    update: Update = no_update
    log: LogStep = unlogged
    say: Callable[[str], None] = silent

    @property
    def pass_tokens(self) -> int:
        """What one pass may hold, in tokens, padding included."""
        return training_tokens(self.settings.micro_batch_tokens, self.model.device.type)


@dataclass(frozen=True, slots=True)
class TrainLog:
    """What a training did.

    Attributes:
        steps: a mapping for each optimizer step: `step`, `loss`, `learning_rate`, `gradient_norm`, `seconds`, and the
            batch means of rewards and of the method's own metrics, and the correlations that it names.
        tokens: tokens of prompts and answers that training examples brought (padding excluded).
    """

    steps: tuple[Mapping[str, float], ...]
    tokens: int
