"""What each kind of loss reads: from token rows and stored reference log-probs to the records of `api`.

A feed knows its examples by number. The loop tells it of a whole effective batch first (`begin`), then asks for its
micro-batches (`record`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch
from torch import Tensor

from align_bench.api import ChosenLogps, PairLogps, PairScores, ReferencedChosenLogps
from align_bench.api.batches import fields_of
from align_bench.api.readings import Reading, as_record
from align_bench.data.batches import mismatched
from align_bench.data.token_rows import TokenRows
from align_bench.errors import DataError
from align_bench.models.logprobs import response_logps, response_parts, scores
from align_bench.models.positions import positions_of, within
from align_bench.models.transfer import on_device
from align_bench.train.auxiliary import companion_of, pair_scores
from align_bench.train.group import ALONE, Group
from align_bench.train.moving_reference import MovingFeed, MovingReference
from align_bench.train.plugin_code import plugin_code
from align_bench.train.whole_batch import of_whole_batch

if TYPE_CHECKING:
    from align_bench.api import Batch, OfflineAlgorithm, Running
    from align_bench.models.layout import Sequences
    from align_bench.records import Parameters, TokenRow

Reference = Mapping[str, Tensor]


class Feed(Protocol):
    """The examples of one kind of loss.

    Attributes:
        lengths: padded tokens that each example costs, prompt and answers together.
        tokens: tokens that each example brings, without padding.
    """

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def tokens(self) -> Sequence[int]: ...

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """Prepare what the loss needs of the whole effective batch."""

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        """The loss's input for one micro-batch, of shape [len(examples)]."""


class PairFeed:
    """Pairs of answers as the record that the loss reads, without the data's margin and the whole batch."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None, reading: Reading | None = None) -> None:
        self.rows = _PairedRows(rows)
        self.reference = reference
        self.reading = reading or Reading("pairs", reference=reference is not None)
        self.lengths: Sequence[int] = _pair_lengths(self.rows)
        self.tokens: Sequence[int] = _pair_tokens(self.rows)
        self._single = UnpairedFeed(rows, reference) if self.reading.mismatched else None

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """Log-probs of mismatched answers, where they are read, as of both answers of each pair by itself."""
        if self._single is not None:
            self._single.begin(model, [2 * row + side for row in batch for side in (0, 1)], max_tokens, group)

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        rows = [self.rows[example] for example in examples]
        sequences = _sequences(rows)
        values: dict[str, Tensor] = {}
        if self.reading.prefix or self.reading.confidence:
            shorter = [min(len(row.chosen), len(row.rejected)) for row in rows]
            parts = response_parts(model, sequences, [*shorter, *shorter], confidence=self.reading.confidence)
            both = parts.logps
            values["prefix_chosen"], values["prefix_rejected"] = parts.prefix.tensor_split(2)
            if parts.confidence is not None:
                values["confidence_chosen"], values["confidence_rejected"] = parts.confidence.tensor_split(2)
        else:
            both = response_logps(model, sequences)
        chosen, rejected = both[: len(rows)], both[len(rows) :]
        values |= {
            "chosen": chosen,
            "rejected": rejected,
            "chosen_tokens": on_device([len(row.chosen) for row in rows], chosen.device),
            "rejected_tokens": on_device([len(row.rejected) for row in rows], chosen.device),
        }
        if self.reading.reference:
            assert self.reference is not None, "the method reads one"
            prefixes = ("", "prefix_") if self.reading.prefix else ("",)
            for name in [prefix + side for prefix in prefixes for side in ("chosen", "rejected")]:
                values[f"ref_{name}"] = on_device(self.reference[name][list(examples)], chosen.device, chosen.dtype)
        if self._single is not None:
            values |= self._single.of_the_batch(chosen)
        return as_record(self.reading, values)


class ScoreFeed:
    """Pairs of answers as `PairScores`, or as the record that the model's companion brings."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None, reading: Reading | None = None) -> None:
        self.rows = _PairedRows(rows)
        self.lengths: Sequence[int] = _pair_lengths(self.rows)
        self.tokens: Sequence[int] = _pair_tokens(self.rows)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """What the companion needs of the whole batch."""
        if (companion := companion_of(model)) is not None:
            companion.begin(model, _sequences([self.rows[example] for example in batch]), max_tokens, group)

    def record(self, model: Any, examples: Sequence[int]) -> PairScores:
        sequences = _sequences([self.rows[example] for example in examples])
        if (companion := companion_of(model)) is not None:
            return companion.record(model, sequences)
        return pair_scores(scores(model, sequences), sequences)


class ChosenFeed:
    """The chosen (desirable) answers as `ChosenLogps`, or with a reference as `ReferencedChosenLogps`."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None, reading: Reading | None = None) -> None:
        lengths = [len(row.prompt) + len(row.chosen) if row.chosen is not None else None for row in rows]
        self.rows = rows
        self.examples = [index for index, length in enumerate(lengths) if length is not None]
        if not self.examples:
            raise DataError(f"none of the {len(rows)} rows has a chosen answer", fix="use data with desirable answers")
        self.reference = reference
        self.lengths: Sequence[int] = [length for length in lengths if length is not None]
        self.tokens: Sequence[int] = self.lengths

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """Nothing is shared by a batch of single answers."""

    def record(self, model: Any, examples: Sequence[int]) -> ChosenLogps:
        indices = [self.examples[example] for example in examples]
        sequences = [(row.prompt, row.chosen or ()) for row in (self.rows[index] for index in indices)]
        logps = response_logps(model, sequences)
        tokens = on_device([len(answer) for _, answer in sequences], logps.device)
        if self.reference is None:
            return ChosenLogps(logps, tokens)
        reference = on_device(self.reference["chosen"][indices], logps.device, logps.dtype)
        return ReferencedChosenLogps(logps, tokens, reference)


class UnpairedFeed:
    """Single answers as the record that the loss reads, without the whole batch.

    A pair yields a desirable and an undesirable example.
    """

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None, reading: Reading | None = None) -> None:
        self.rows = rows
        self.reference = reference
        known = reference is not None
        self.reading = reading or Reading("unpaired", reference=known, mismatched=known)
        self.examples = [
            (index, side)
            for index, row in enumerate(rows)
            for side in ("chosen", "rejected")
            if getattr(row, side) is not None
        ]
        self.lengths: Sequence[int] = [
            len(prompt) + len(answer) for prompt, answer in map(self._sequence, range(len(self.examples)))
        ]
        self.tokens: Sequence[int] = self.lengths
        self._mismatched = self._ref_mismatched = torch.empty(0)

    @cached_property
    def partner(self) -> Sequence[int]:
        """The row whose answer stands in for an unrelated one, for each row."""
        return mismatched(self.rows)

    def _sequence(self, example: int) -> tuple[Sequence[int], Sequence[int]]:
        index, side = self.examples[example]
        return self.rows[index].prompt, getattr(self.rows[index], side)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """Log-probs of mismatched answers over the whole batch, for a KL estimate that no micro-batching can move."""
        if not self.reading.mismatched:
            return
        assert self.reference is not None, "there is nothing else to estimate it against"
        limit = positions_of(model)
        sequences = [mismatched_sequence(self.rows, self.partner, *self.examples[one], limit=limit) for one in batch]
        lengths = [len(prompt) + len(answer) for prompt, answer in sequences]

        def mismatched(places: Sequence[int]) -> dict[str, Tensor]:
            return {"logps": response_logps(model, [sequences[place] for place in places])}

        found = of_whole_batch(model, range(len(batch)), lengths, max_tokens, group, mismatched)
        self._mismatched = found["logps"]
        self._ref_mismatched = self._known(self.reference, batch, "mismatched_")

    def _known(self, reference: Reference, examples: Sequence[int], prefix: str) -> Tensor:
        return torch.stack([reference[prefix + side][index] for index, side in (self.examples[e] for e in examples)])

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        logps = response_logps(model, [self._sequence(example) for example in examples])
        tokens = on_device([len(self._sequence(example)[1]) for example in examples], logps.device)
        desirable = on_device([self.examples[example][1] == "chosen" for example in examples], logps.device)
        values = {"logps": logps, "tokens": tokens, "desirable": desirable}
        if self.reading.reference:
            assert self.reference is not None, "the method reads one"
            known = self._known(self.reference, examples, "")
            values["ref_logps"] = on_device(known, logps.device, logps.dtype)
        if self.reading.mismatched:
            values |= self.of_the_batch(logps)
        return as_record(self.reading, values)

    def of_the_batch(self, like: Tensor) -> dict[str, Tensor]:
        """What the batch that was begun says of mismatched answers, on the device of that tensor."""
        found = {"mismatched": self._mismatched, "ref_mismatched": self._ref_mismatched}
        return {name: on_device(values, like.device, like.dtype) for name, values in found.items()}


class MarginFeed:
    """Pairs as another feed has them, with the data's margin."""

    def __init__(self, feed: Feed, margins: Tensor, reading: Reading) -> None:
        self.feed, self.margins, self.reading = feed, margins, reading
        self.lengths, self.tokens = feed.lengths, feed.tokens

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """What the other feed prepares."""
        self.feed.begin(model, batch, max_tokens, group)

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        record = self.feed.record(model, examples)
        assert isinstance(record, PairLogps | PairScores), "margins are of pairs"
        margin = on_device(self.margins[list(examples)], record.chosen.device, record.chosen.dtype)
        return as_record(self.reading, fields_of(record) | {"margin": margin})


class BatchFeed:
    """Rows as another feed has them, with the whole effective batch and what the method remembers.

    Attributes:
        before: what the method remembered before the batch that was begun last.
        running: what it remembers with that batch.
    """

    def __init__(self, feed: Feed, algorithm: OfflineAlgorithm, parameters: Parameters) -> None:
        self.feed, self.algorithm, self.parameters = feed, algorithm, parameters
        self.lengths, self.tokens = feed.lengths, feed.tokens
        self.before: Running = {}
        self.running: Running = {}
        self._whole: Batch | None = None
        self._places: Mapping[int, int] = {}

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """All rows of the batch through the model once, without gradient; begun again, nothing is remembered twice."""
        self.feed.begin(model, batch, max_tokens, group)
        whole = of_whole_batch(
            model, batch, self.lengths, max_tokens, group, lambda part: fields_of(self.feed.record(model, part))
        )
        self._whole = as_record(self.algorithm.reading.of_rows, whole)
        self._places = {example: place for place, example in enumerate(batch)}
        with plugin_code(f"what {self.algorithm.name} remembers"):
            self.running = self.algorithm.remembered(self.before, self._whole, self.parameters)

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        assert self._whole is not None, "the batch was begun"
        record = self.feed.record(model, examples)
        device = next(value.device for value in fields_of(record).values() if isinstance(value, Tensor))
        place = on_device([self._places[example] for example in examples], device)
        whole = {"batch": self._whole, "place": place, "running": self.running}
        return as_record(self.algorithm.reading, fields_of(record) | whole)


# Each is made of the rows, their reference and, where it tells more than that, of what the loss reads.
FEEDS: Mapping[str, Callable[..., Feed]] = {
    "pairs": PairFeed,
    "chosen": ChosenFeed,
    "scores": ScoreFeed,
    "unpaired": UnpairedFeed,
}


def feed_of(
    algorithm: OfflineAlgorithm,
    rows: Sequence[TokenRow],
    reference: Reference | None,
    parameters: Parameters | None = None,
    moving: MovingReference | None = None,
) -> Feed:
    """The examples of a method.

    Args:
        algorithm: the method.
        rows: the tokenised training rows.
        reference: base log-probabilities by column, each of shape [rows]; None where the loss reads none.
        parameters: its hyper-parameters, resolved; None for its defaults.
        moving: what takes the place of `reference` once it has moved; None where the reference stays.

    Raises:
        DataError: when the rows do not fit what the loss reads.
    """
    reading = algorithm.reading.of_rows
    feed = FEEDS[algorithm.data](rows, reference, replace(reading, margin=False))
    if reading.margin:
        feed = MarginFeed(feed, margins_of(rows, algorithm.name), reading)
    if moving is not None:
        feed = MovingFeed(feed, moving, reading)
    if algorithm.reading.batch:
        feed = BatchFeed(feed, algorithm, algorithm.resolve({}) if parameters is None else parameters)
    return feed


def margins_of(rows: Sequence[TokenRow], method: str, where: str = "the training set") -> Tensor:
    """The margins of pairs, float32, shape [rows].

    Args:
        rows: the tokenised rows.
        method: who reads them.
        where: what the rows are called in a message.

    Raises:
        DataError: a row has none.
    """
    margins = [row.margin for row in rows]
    if lacking := margins.count(None):
        first = rows[margins.index(None)].pair
        raise DataError(
            f"{method} reads how much better the chosen answer is, and {lacking:,} of {len(margins):,} rows of {where} "
            f"do not say it (the first is row {first})",
            fix="give every row a number in `margin`, or in `score_chosen` and `score_rejected`, or drop these rows",
        )
    return torch.tensor(margins, dtype=torch.float32)


def mismatched_sequence(
    rows: Sequence[TokenRow], partner: Sequence[int], index: int, side: str, *, limit: int | None = None
) -> tuple[Sequence[int], Sequence[int]]:
    """The row's prompt with its partner's answer: of the same side, or of the other when the partner has just that.

    It may be longer than either row; what lies beyond the model's positions, `limit`, is cut.
    """
    other = rows[partner[index]]
    answer: Sequence[int] = getattr(other, side) or other.chosen or other.rejected or ()
    return rows[index].prompt, within(limit, rows[index].prompt, answer)


@dataclass(frozen=True, slots=True)
class _Paired:
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def _paired(row: TokenRow) -> _Paired:
    if row.chosen is None or row.rejected is None:
        raise DataError(
            f"row {row.pair} of the data has one answer, expected a chosen and a rejected one",
            fix="unpaired rows suit methods with data kind 'unpaired', such as kto",
        )
    return _Paired(row.prompt, row.chosen, row.rejected)


class _PairedRows(Sequence[_Paired]):
    """Rows with both answers, made when they are asked for, as the rows of a token table are."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> _Paired: ...

    @overload
    def __getitem__(self, place: slice) -> _PairedRows: ...

    def __getitem__(self, place: int | slice) -> _Paired | _PairedRows:
        return _PairedRows(self._rows[place]) if isinstance(place, slice) else _paired(self._rows[place])

    def lengths(self) -> Iterator[tuple[int, int, int]]:
        """Tokens of each row's prompt and of its chosen and rejected answers.

        Raises:
            DataError: a row has one answer.
        """
        if not isinstance(self._rows, TokenRows):
            yield from ((len(row.prompt), len(row.chosen), len(row.rejected)) for row in self)
            return
        columns = [self._rows.lengths("prompt"), self._rows.lengths("chosen"), self._rows.lengths("rejected")]
        if (lacking := ((columns[1] < 0) | (columns[2] < 0)).nonzero()[0]).size:
            _paired(self._rows[int(lacking[0])])
        yield from zip(*(column.tolist() for column in columns), strict=True)


def _pair_lengths(rows: _PairedRows) -> list[int]:
    """Tokens of a pair's row; without a shared prompt it is two rows, at most twice as many."""
    return [prompt + chosen + rejected for prompt, chosen, rejected in rows.lengths()]


def _pair_tokens(rows: _PairedRows) -> list[int]:
    return [2 * prompt + chosen + rejected for prompt, chosen, rejected in rows.lengths()]


def _sequences(rows: Sequence[_Paired]) -> Sequences:
    """Prompt and answer of all chosen answers, then of all rejected ones."""
    return [*((row.prompt, row.chosen) for row in rows), *((row.prompt, row.rejected) for row in rows)]
