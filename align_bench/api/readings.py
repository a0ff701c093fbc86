"""What a loss reads, told by the annotated type of its first argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import cache
from typing import Literal, TypeAlias, get_args

from align_bench.api.auxiliaries import Adversary, Auxiliary, BiasExpert, LengthHead
from align_bench.api.batches import (
    AdversaryScores,
    Batch,
    BatchPairLogps,
    BatchUnpairedLogps,
    BiasExpertScores,
    ChosenLogps,
    ConfidencePairLogps,
    LengthHeadScores,
    MarginPairLogps,
    MarginPairScores,
    MatchedUnpairedLogps,
    MismatchedPairLogps,
    PairLogps,
    PairScores,
    PrefixPairLogps,
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
        mismatched: whether it holds log-probabilities of other rows' answers.
        prefix: whether it holds log-probabilities of each answer's first tokens.
        confidence: whether it holds the policy's confidence in each answer.
        batch: whether it holds the whole effective batch.
    """

    data: OfflineData
    reference: bool = False
    auxiliary: type[Auxiliary] | None = None
    margin: bool = False
    mismatched: bool = False
    prefix: bool = False
    confidence: bool = False
    batch: bool = False

    def __or__(self, other: Reading) -> Reading:
        """What either holds, of this one's kind of data."""
        told = {each.name: getattr(self, each.name) or getattr(other, each.name) for each in fields(self)}
        return Reading(**{**told, "data": self.data})

    def within(self, other: Reading) -> bool:
        """Whether the other one holds all that this one does."""
        return self.data == other.data and (other | self) == other

    @property
    def of_rows(self) -> Reading:
        """The same without the whole batch."""
        return replace(self, batch=False)


READINGS: Mapping[type[Batch], Reading] = {
    PairLogps: Reading("pairs"),
    ReferencedPairLogps: Reading("pairs", reference=True),
    MarginPairLogps: Reading("pairs", margin=True),
    ReferencedMarginPairLogps: Reading("pairs", reference=True, margin=True),
    MismatchedPairLogps: Reading("pairs", reference=True, mismatched=True),
    PrefixPairLogps: Reading("pairs", reference=True, prefix=True),
    ConfidencePairLogps: Reading("pairs", reference=True, confidence=True),
    BatchPairLogps: Reading("pairs", reference=True, batch=True),
    ChosenLogps: Reading("chosen"),
    ReferencedChosenLogps: Reading("chosen", reference=True),
    UnpairedLogps: Reading("unpaired"),
    MatchedUnpairedLogps: Reading("unpaired", reference=True),
    ReferencedUnpairedLogps: Reading("unpaired", reference=True, mismatched=True),
    BatchUnpairedLogps: Reading("unpaired", reference=True, batch=True),
    PairScores: Reading("scores"),
    MarginPairScores: Reading("scores", margin=True),
    BiasExpertScores: Reading("scores", auxiliary=BiasExpert),
    AdversaryScores: Reading("scores", auxiliary=Adversary),
    LengthHeadScores: Reading("scores", auxiliary=LengthHead),
}


@cache
def record_of(reading: Reading) -> Callable[..., Batch]:
    """The class of records that hold just that; where none is written, such as for a sum, it is made up of some."""
    for kind, each in READINGS.items():
        if each == reading:
            return kind
    parts = [kind for kind, each in READINGS.items() if each.within(reading)]
    base, *others = sorted(parts, key=lambda kind: -len(fields(kind)))
    known = {field.name for field in fields(base)}
    more = {field.name: field.type for kind in others for field in fields(kind) if field.name not in known}
    made: Callable[..., Batch] = make_dataclass(
        f"{base.__name__}AndMore", more.items(), bases=(base,), frozen=True, slots=True
    )
    return made


def as_record(reading: Reading, values: Mapping[str, object]) -> Batch:
    """The record that holds just that, from the values of its fields; further ones are left out."""
    kind = record_of(reading)
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]


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
