"""What a loss reads, told by the annotated type of its first argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from align_bench.api.auxiliaries import Adversary, Auxiliary, BiasExpert, LengthHead
from align_bench.api.batches import (
    AdversaryScores,
    BiasExpertScores,
    ChosenLogps,
    LengthHeadScores,
    MarginPairLogps,
    MarginPairScores,
    PairLogps,
    PairScores,
    ReferencedChosenLogps,
    ReferencedMarginPairLogps,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    UnpairedLogps,
)
from align_bench.api.signatures import hints_of
from align_bench.errors import PluginError

OfflineData: TypeAlias = Literal["pairs", "chosen", "unpaired", "scores"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record stands for.

    Attributes:
        data: the kind of data.
        reference: whether it holds reference log-probabilities.
        auxiliary: what stands beside the reward model; None for nothing.
        margin: whether it holds the data's margin.
    """

    data: OfflineData
    reference: bool = False
    auxiliary: type[Auxiliary] | None = None
    margin: bool = False


READINGS: Mapping[type, Reading] = {
    PairLogps: Reading("pairs"),
    ReferencedPairLogps: Reading("pairs", reference=True),
    MarginPairLogps: Reading("pairs", margin=True),
    ReferencedMarginPairLogps: Reading("pairs", reference=True, margin=True),
    ChosenLogps: Reading("chosen"),
    ReferencedChosenLogps: Reading("chosen", reference=True),
    UnpairedLogps: Reading("unpaired"),
    ReferencedUnpairedLogps: Reading("unpaired", reference=True),
    PairScores: Reading("scores"),
    MarginPairScores: Reading("scores", margin=True),
    BiasExpertScores: Reading("scores", auxiliary=BiasExpert),
    AdversaryScores: Reading("scores", auxiliary=Adversary),
    LengthHeadScores: Reading("scores", auxiliary=LengthHead),
}


def batch_type(function: Callable[..., object]) -> object:
    """The annotated type of a function's first argument; None where there is none."""
    first = next(iter(inspect.signature(function).parameters), None)
    return None if first is None else hints_of(function).get(first)


def names_a_record(annotation: object) -> bool:
    """Whether an annotation is a record of the API, or holds one, such as `PairLogps | None`."""
    parts = (annotation, *get_args(annotation))
    return any(isinstance(part, type) and part.__module__.startswith("align_bench.api.") for part in parts)


def agreed(name: str, batch: object, *, known: str, what: str, read: object, said: object) -> None:
    """Hold what a declaration says to what the batch's type says.

    Raises:
        PluginError: when they differ; names both.
    """
    if said is not None and said != read:
        raise PluginError(
            f"{name}: {what}={said!r}, but its batch is {getattr(batch, '__name__', batch)}, which is {what}={read!r}",
            fix=f"annotate {known}, or leave {what}= out",
        )
