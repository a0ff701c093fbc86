"""What each kind of loss reads: from token rows and stored reference log-probs to the records of `api`.

A feed knows its examples by number. The loop tells it of a whole effective batch first (`begin`), then asks for its
micro-batches (`record`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch
from torch import Tensor

from align_bench.api import (
    ChosenLogps,
    PairLogps,
    PairScores,
    ReferencedChosenLogps,
    ReferencedPairLogps,
    ReferencedUnpairedLogps,
    UnpairedLogps,
)
from align_bench.api.batches import with_margin
from align_bench.data.batches import mismatched
from align_bench.errors import DataError
from align_bench.models.layout import training_passes
from align_bench.models.logprobs import response_logps, scores
from align_bench.models.positions import positions_of, within
from align_bench.train.auxiliary import companion_of, pair_scores

if TYPE_CHECKING:
    from align_bench.api import Batch, OfflineAlgorithm
    from align_bench.models.layout import Sequences
    from align_bench.records import TokenRow

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

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """Prepare what the loss needs of the whole effective batch."""

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        """The loss's input for one micro-batch, of shape [len(examples)]."""


class PairFeed:
    """Pairs of answers as `PairLogps`, or with a reference as `ReferencedPairLogps`."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None) -> None:
        self.rows = _PairedRows(rows)
        self.reference = reference
        self.lengths: Sequence[int] = _pair_lengths(self.rows)
        self.tokens: Sequence[int] = _pair_tokens(self.rows)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """Nothing is shared by a batch of pairs."""

    def record(self, model: Any, examples: Sequence[int]) -> PairLogps:
        rows = [self.rows[example] for example in examples]
        both = response_logps(model, _sequences(rows))
        chosen, rejected = both[: len(rows)], both[len(rows) :]
        chosen_tokens = torch.tensor([len(row.chosen) for row in rows], device=chosen.device)
        rejected_tokens = torch.tensor([len(row.rejected) for row in rows], device=chosen.device)
        if self.reference is None:
            return PairLogps(chosen, rejected, chosen_tokens, rejected_tokens)
        known = (self.reference[side][list(examples)].to(chosen) for side in ("chosen", "rejected"))
        return ReferencedPairLogps(chosen, rejected, chosen_tokens, rejected_tokens, *known)


class ScoreFeed:
    """Pairs of answers as `PairScores`, or as the record that the model's companion brings."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None) -> None:
        self.rows = _PairedRows(rows)
        self.lengths: Sequence[int] = _pair_lengths(self.rows)
        self.tokens: Sequence[int] = _pair_tokens(self.rows)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """What the companion needs of the whole batch."""
        if (companion := companion_of(model)) is not None:
            companion.begin(model, _sequences([self.rows[example] for example in batch]), max_tokens)

    def record(self, model: Any, examples: Sequence[int]) -> PairScores:
        sequences = _sequences([self.rows[example] for example in examples])
        if (companion := companion_of(model)) is not None:
            return companion.record(model, sequences)
        return pair_scores(scores(model, sequences), sequences)


class ChosenFeed:
    """The chosen (desirable) answers as `ChosenLogps`, or with a reference as `ReferencedChosenLogps`."""

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None) -> None:
        lengths = [len(row.prompt) + len(row.chosen) if row.chosen is not None else None for row in rows]
        self.rows = rows
        self.examples = [index for index, length in enumerate(lengths) if length is not None]
        if not self.examples:
            raise DataError(f"none of the {len(rows)} rows has a chosen answer", fix="use data with desirable answers")
        self.reference = reference
        self.lengths: Sequence[int] = [length for length in lengths if length is not None]
        self.tokens: Sequence[int] = self.lengths

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """Nothing is shared by a batch of single answers."""

    def record(self, model: Any, examples: Sequence[int]) -> ChosenLogps:
        indices = [self.examples[example] for example in examples]
        sequences = [(row.prompt, row.chosen or ()) for row in (self.rows[index] for index in indices)]
        logps = response_logps(model, sequences)
        tokens = torch.tensor([len(answer) for _, answer in sequences], device=logps.device)
        if self.reference is None:
            return ChosenLogps(logps, tokens)
        return ReferencedChosenLogps(logps, tokens, self.reference["chosen"][indices].to(logps))


class UnpairedFeed:
    """Single answers as `UnpairedLogps`, or with a reference as `ReferencedUnpairedLogps`.

    A pair yields a desirable and an undesirable example.
    """

    def __init__(self, rows: Sequence[TokenRow], reference: Reference | None) -> None:
        self.rows = rows
        self.reference = reference
        self.examples = [
            (index, side)
            for index, row in enumerate(rows)
            for side in ("chosen", "rejected")
            if getattr(row, side) is not None
        ]
        self.partner = mismatched(rows)
        self.lengths: Sequence[int] = [
            len(prompt) + len(answer) for prompt, answer in map(self._sequence, range(len(self.examples)))
        ]
        self.tokens: Sequence[int] = self.lengths
        self._mismatched = self._ref_mismatched = torch.empty(0)

    def _sequence(self, example: int) -> tuple[Sequence[int], Sequence[int]]:
        index, side = self.examples[example]
        return self.rows[index].prompt, getattr(self.rows[index], side)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """Log-probs of mismatched answers over the whole batch, for a KL estimate that no micro-batching can move."""
        if self.reference is None:  # nothing to estimate it against
            return
        limit = positions_of(model)
        sequences = [mismatched_sequence(self.rows, self.partner, *self.examples[one], limit=limit) for one in batch]
        lengths = [len(prompt) + len(answer) for prompt, answer in sequences]
        found = torch.empty(len(batch))
        with torch.no_grad():
            for micro in training_passes(model, range(len(batch)), lengths, max_tokens=max_tokens):
                found[micro] = response_logps(model, [sequences[index] for index in micro]).cpu()
        self._mismatched = found
        self._ref_mismatched = self._known(self.reference, batch, "mismatched_")

    def _known(self, reference: Reference, examples: Sequence[int], prefix: str) -> Tensor:
        return torch.stack([reference[prefix + side][index] for index, side in (self.examples[e] for e in examples)])

    def record(self, model: Any, examples: Sequence[int]) -> UnpairedLogps:
        logps = response_logps(model, [self._sequence(example) for example in examples])
        tokens = torch.tensor([len(self._sequence(example)[1]) for example in examples], device=logps.device)
        desirable = torch.tensor([self.examples[example][1] == "chosen" for example in examples], device=logps.device)
        if self.reference is None:
            return UnpairedLogps(logps, tokens, desirable)
        return ReferencedUnpairedLogps(
            logps,
            tokens,
            desirable,
            ref_logps=self._known(self.reference, examples, "").to(logps),
            mismatched=self._mismatched.to(logps),
            ref_mismatched=self._ref_mismatched.to(logps),
        )


class MarginFeed:
    """Pairs as another feed has them, with the data's margin."""

    def __init__(self, feed: Feed, margins: Tensor) -> None:
        self.feed, self.margins = feed, margins
        self.lengths, self.tokens = feed.lengths, feed.tokens

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """What the other feed prepares."""
        self.feed.begin(model, batch, max_tokens)

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        record = self.feed.record(model, examples)
        assert isinstance(record, PairLogps | PairScores), "margins are of pairs"
        return with_margin(record, self.margins[list(examples)].to(record.chosen))


FEEDS: Mapping[str, Callable[[Sequence[TokenRow], Reference | None], Feed]] = {
    "pairs": PairFeed,
    "chosen": ChosenFeed,
    "scores": ScoreFeed,
    "unpaired": UnpairedFeed,
}


def feed_of(algorithm: OfflineAlgorithm, rows: Sequence[TokenRow], reference: Reference | None) -> Feed:
    """The examples of a method.

    Args:
        algorithm: the method.
        rows: the tokenised training rows.
        reference: base log-probabilities by column, each of shape [rows]; None where the loss reads none.

    Raises:
        DataError: when the rows do not fit what the loss reads.
    """
    feed = FEEDS[algorithm.data](rows, reference)
    return MarginFeed(feed, margins_of(rows, algorithm.name)) if algorithm.margin else feed


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


def _pair_lengths(rows: Sequence[_Paired]) -> list[int]:
    """Tokens of a pair's row; without a shared prompt it is two rows, at most twice as many."""
    return [len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows]


def _pair_tokens(rows: Sequence[_Paired]) -> list[int]:
    return [2 * len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows]


def _sequences(rows: Sequence[_Paired]) -> Sequences:
    """Prompt and answer of all chosen answers, then of all rejected ones."""
    return [*((row.prompt, row.chosen) for row in rows), *((row.prompt, row.rejected) for row in rows)]
