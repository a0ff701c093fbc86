"""Batches that the conformance kit puts before a loss: one entry of `KINDS` for each kind of data.

Notation as in `api`. Batches made by hand have few rows and a purpose each; the rows of the feed go through a causal
language model of a few thousand parameters that is made on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from align_bench.api import (
    Adversary,
    Algorithm,
    Auxiliary,
    BiasExpert,
    ChosenLogps,
    Experience,
    LengthHead,
    PairLogps,
    PairScores,
    Record,
    Rollouts,
    UnpairedLogps,
)
from align_bench.models.layout import Sequences
from align_bench.models.logprobs import token_logps
from align_bench.records import TokenRow

VOCABULARY = 48
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the kit knows of one kind of data.

    Every maker of a batch takes a dtype and yields a batch with all fields; `for_method` takes away what a method did
    not declare.

    Attributes:
        trained: the record's fields that carry gradient, in the order of the rewards that answer to them.
        at_reference: rows where the policy equals the reference (scores: where both scores are 0).
        near_reference: rows a little to either side of it, where no method has reached its target yet.
        moderate: rows well away from it and from each other, where losses are curved; no round numbers, at which a
            hinge might stand.
        extreme: what is extreme about it → rows.
        slopes: of a trained field, the sign that ∂loss/∂field is to have where the record stands at or near the
            reference: −1, 0 or 1; `rejected` answers may be declared idle.
        rejected: which rows of a trained field are rejected (undesirable) answers.
        by_definition: the record of all token rows, computed plainly from the model and from the reference model.
        counts: the record's fields that count tokens.
        per_batch: the record's fields that belong to the whole effective batch, not to a row.
        beside: further fields that carry gradient, of a scorer or a head that is dropped after training.
    """

    trained: tuple[str, ...]
    at_reference: Callable[[torch.dtype], Record]
    near_reference: Callable[[torch.dtype], Record]
    moderate: Callable[[torch.dtype], Record]
    extreme: Callable[[torch.dtype], Mapping[str, Record]]
    rejected: Callable[[Any, str], Tensor]
    by_definition: Callable[[Bench], Record]
    counts: tuple[str, ...] = ()
    per_batch: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    slopes: Callable[[Any, str], Tensor] | None = None


_CRITICS = ("values", "old_values", "returns")
_BESIDE: Mapping[type[Auxiliary], tuple[str, ...]] = {
    BiasExpert: ("bias_",),
    Adversary: ("adversarial_",),
    LengthHead: ("length_", "head_cosine", "batch_"),
}


def for_method(record: Record, algorithm: Algorithm, parameters: Mapping[str, Any]) -> Any:
    """The record as the method will see it: without references, critic and further scorers that it did not declare."""
    unseen: tuple[str, ...] = () if algorithm.reference else ("ref_",)
    if isinstance(record, Rollouts) and not algorithm.critic:
        unseen += _CRITICS
    if isinstance(record, PairScores):
        declared = type(algorithm.auxiliary(parameters)) if algorithm.auxiliary else None
        unseen += tuple(prefix for kind, own in _BESIDE.items() if kind is not declared for prefix in own)
    nothing: dict[str, Any] = {field.name: None for field in fields(record) if field.name.startswith(unseen)}
    return replace(record, **nothing)


def _tensor(values: Sequence[float], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype)


# Pairs.

_FEW, _OTHERS = [1, 4, 9, 30], [3, 2, 12, 25]


def _pairs(
    dtype: torch.dtype,
    chosen: Sequence[float],
    rejected: Sequence[float],
    tokens: tuple[Sequence[int], Sequence[int]],
    ratios: tuple[Sequence[float], Sequence[float]],
) -> PairLogps:
    """Pairs from sums, counts and ρ of either side."""
    won, lost = _tensor(chosen, dtype), _tensor(rejected, dtype)
    return PairLogps(
        won,
        lost,
        torch.tensor(tokens[0]),
        torch.tensor(tokens[1]),
        won - _tensor(ratios[0], dtype),
        lost - _tensor(ratios[1], dtype),
    )


def _near_pairs(shift: float) -> Callable[[torch.dtype], PairLogps]:
    """Equally long answers, equally likely but for `shift` nats, so that no row favours a side by length."""

    def make(dtype: torch.dtype) -> PairLogps:
        shifts = [0.0, shift, -shift, shift / 2]
        base = [-1.2 * count for count in _FEW]
        moved = [value + move for value, move in zip(base, shifts, strict=True)]
        return _pairs(dtype, moved, base, (_FEW, _FEW), (shifts, [0.0] * 4))

    return make


def _lopsided_pairs(
    chosen_ratios: Sequence[float], rejected_ratios: Sequence[float]
) -> Callable[[torch.dtype], PairLogps]:
    chosen, rejected = [-0.0213, -5.237, -5.471, -63.13], [-7.519, -0.811, -13.27, -22.63]
    return lambda dtype: _pairs(dtype, chosen, rejected, (_FEW, _OTHERS), (chosen_ratios, rejected_ratios))


def _extreme_pairs(dtype: torch.dtype) -> Mapping[str, PairLogps]:
    certain = [0.0, -1e-30, -1e-12, -1e-7]
    unsure, zero, one, many = [-1.0] * 4, [0.0] * 4, [1] * 4, [7] * 4
    far = [-1e4, -2.0, -1e4, -2.0]
    return {
        "a margin of 10,000 nats": _pairs(
            dtype, far, far[::-1], (one, one), ([-1e4, 1e4, -1e4, 1e4], [1e4, -1e4, 1e4, -1e4])
        ),
        "a certain chosen answer (s̄ → 0)": _pairs(dtype, certain, unsure, (one, many), (certain, zero)),
        "a certain rejected answer (s̄ → 0)": _pairs(dtype, unsure, certain, (many, one), (zero, certain)),
        "two certain answers (s̄ → 0)": _pairs(dtype, certain, certain[::-1], (one, one), (certain, certain)),
    }


def _side(record: Any, name: str) -> Tensor:
    return torch.full_like(record.chosen, name.endswith("rejected"), dtype=torch.bool)


# Chosen answers.


def _chosen(dtype: torch.dtype, sums: Sequence[float], tokens: Sequence[int], ratios: Sequence[float]) -> ChosenLogps:
    logps = _tensor(sums, dtype)
    return ChosenLogps(logps, torch.tensor(tokens), logps - _tensor(ratios, dtype))


def _near_chosen(shift: float) -> Callable[[torch.dtype], ChosenLogps]:
    return lambda dtype: _chosen(dtype, [-1.2 * count for count in _FEW], _FEW, [0.0, shift, -shift, shift / 2])


def _lopsided_chosen(ratios: Sequence[float]) -> Callable[[torch.dtype], ChosenLogps]:
    return lambda dtype: _chosen(dtype, [-0.0213, -5.237, -5.471, -63.13], _FEW, ratios)


def _extreme_chosen(dtype: torch.dtype) -> Mapping[str, ChosenLogps]:
    certain = [0.0, -1e-30, -1e-12, -1e-7]
    return {
        "a sum of −10,000 nats": _chosen(dtype, [-1e4, -1e4, -2.0, -2.0], [1, 7, 1, 7], [-1e4, 1e4, -1e4, 1e4]),
        "a certain answer (s̄ → 0)": _chosen(dtype, certain, [1] * 4, certain),
    }


def _none(record: Any, name: str) -> Tensor:
    return torch.zeros_like(record.logps, dtype=torch.bool)


# Single answers.


def _unpaired(
    dtype: torch.dtype, sums: Sequence[float], tokens: Sequence[int], ratios: Sequence[float], drift: Sequence[float]
) -> UnpairedLogps:
    """Answers from sums, counts and ρ, every other one desirable; `drift` is ρ of the batch's mismatched answers."""
    logps = _tensor(sums, dtype)
    mismatched = torch.full((len(drift),), -30.0, dtype=dtype)
    return UnpairedLogps(
        logps=logps,
        tokens=torch.tensor(tokens),
        desirable=torch.arange(len(sums)) % 2 == 0,
        ref_logps=logps - _tensor(ratios, dtype),
        mismatched=mismatched,
        ref_mismatched=mismatched - _tensor(drift, dtype),
    )


def _near_unpaired(shift: float) -> Callable[[torch.dtype], UnpairedLogps]:
    shifts = [0.0, 0.0, shift, shift, -shift, -shift]
    sums = [-1.2, -2.4, -9.0, -9.0, -30.0, -45.0]
    return lambda dtype: _unpaired(dtype, sums, [1, 2, 7, 7, 20, 30], shifts, [shift, -shift, shift / 2, *[0.0] * 5])


def _lopsided_unpaired(ratios: Sequence[float], drift: Sequence[float]) -> Callable[[torch.dtype], UnpairedLogps]:
    sums = [-4.0, -7.5, -20.0, -3.0, -50.0, -9.0]
    return lambda dtype: _unpaired(dtype, sums, [2, 3, 11, 2, 40, 7], ratios, drift)


def _extreme_unpaired(dtype: torch.dtype) -> Mapping[str, UnpairedLogps]:
    sums, tokens = [-2.0, -2.0, -1e4, -1e4], [1, 1, 7, 7]
    ratios = [1e4, 1e4, -1e4, -1e4]
    certain = [0.0, 0.0, -1e-12, -1e-7]
    return {
        "a ratio of 10,000 nats": _unpaired(dtype, sums, tokens, ratios, [0.5, 1.5, 0.0, 0.0]),
        "a drift of 10,000 nats": _unpaired(dtype, sums, tokens, ratios, [1e4] * 4),
        "a drift of −10,000 nats": _unpaired(dtype, sums, tokens, ratios, [-1e4] * 4),
        "a certain answer (s̄ → 0)": _unpaired(dtype, certain, [1] * 4, certain, [0.0] * 4),
    }


def _undesirable(record: Any, name: str) -> Tensor:
    found: Tensor = ~record.desirable
    return found


# Scores.


def _scores(
    chosen: Sequence[float], rejected: Sequence[float], beside: tuple[Sequence[float], Sequence[float]] | None = None
) -> Callable[[torch.dtype], PairScores]:
    """Pairs of scores; every further scorer gives `beside`, by default the same.

    The batch that a length head is measured over has widely spread scores, so that its correlations with length weigh
    little beside the preference: near the reference it is the preference that the sign of a slope tells of.
    """
    won, lost = beside or (chosen, rejected)

    def make(dtype: torch.dtype) -> PairScores:
        return PairScores(
            _tensor(chosen, dtype),
            _tensor(rejected, dtype),
            chosen_tokens=torch.tensor(_FEW[: len(chosen)]),
            rejected_tokens=torch.tensor(_OTHERS[: len(chosen)]),
            bias_chosen=_tensor(won, dtype),
            bias_rejected=_tensor(lost, dtype),
            adversarial_chosen=_tensor(won, dtype),
            adversarial_rejected=_tensor(lost, dtype),
            length_chosen=_tensor(won, dtype),
            length_rejected=_tensor(lost, dtype),
            head_cosine=_tensor([0.31], dtype)[0],
            batch_scores=_tensor([-61.0, 43.0, 57.0, -35.0], dtype),
            batch_length_scores=_tensor([47.0, -52.0, -39.0, 66.0], dtype),
            batch_tokens=torch.tensor([3, 30, 9, 14]),
        )

    return make


def _extreme_scores(dtype: torch.dtype) -> Mapping[str, PairScores]:
    far = [5e3, -5e3]
    margin = _scores(far, far[::-1])(dtype)
    still = torch.zeros(4, dtype=dtype)
    return {
        "a margin of 10,000": margin,
        "a margin of 10,000 against that of the scorer beside it": _scores(far, far[::-1], (far[::-1], far))(dtype),
        "a common offset of 10,000": _scores([1e4, -1e4], [1e4, -1e4])(dtype),
        "a batch of equal scores and lengths": replace(
            _scores([0.0, 0.0], [0.0, 0.0])(dtype),
            batch_scores=still,
            batch_length_scores=still,
            batch_tokens=torch.full((4,), 7),
        ),
    }


# Answers that the policy wrote.

_LENGTHS = (5, 3, 1, 4)
_MEAN_TOKENS = sum(_LENGTHS) / len(_LENGTHS)


def _rollouts(
    dtype: torch.dtype, moved: Sequence[float], drift: Sequence[float], missed: Sequence[float], valued: float = 0.0
) -> Rollouts:
    """Answers of unequal length, the first and third better than expected, the others worse.

    Args:
        dtype: of all numbers.
        moved: log π − log π_old of every token of an answer, nats.
        drift: log π − log π_ref, likewise.
        missed: value − return, likewise.
        valued: value − old value, of all tokens.
    """
    mask = torch.arange(max(_LENGTHS)) < torch.tensor(_LENGTHS)[:, None]
    size = torch.arange(1.0, 1 + mask.numel(), dtype=dtype).reshape(mask.shape)
    logps = -(0.2 + 0.13 * size) * mask
    worth = _tensor([1.0, -1.0, 1.0, -1.0], dtype)[:, None] * (0.7 + 0.01 * size) * mask

    def less(values: Sequence[float], scale: Tensor) -> Tensor:
        return _tensor(values, dtype)[:, None] * scale * mask

    uneven = 1 + 0.03 * size
    values = 0.4 * worth
    return Rollouts(
        logps=logps,
        old_logps=logps - less(moved, uneven),
        ref_logps=logps - less(drift, uneven),
        mask=mask,
        advantages=worth,
        returns=values - less(missed, uneven),
        values=values,
        old_values=values - valued * uneven * mask,
        mean_tokens=_MEAN_TOKENS,
    )


def drifted(dtype: torch.dtype) -> Rollouts:
    """Answers that are as good as expected, to either side of the reference."""
    record = _rollouts(dtype, [0.0] * 4, [0.31, -0.23, 0.17, -0.41], [0.0] * 4)
    return replace(record, advantages=0 * record.advantages)


def _extreme_rollouts(dtype: torch.dtype) -> Mapping[str, Rollouts]:
    nothing, far = [0.0] * 4, [5.0, 5.0, -5.0, -5.0]
    ordinary = _rollouts(dtype, nothing, nothing, nothing)
    return {
        "ratios of e⁵ to e⁸ a token": _rollouts(dtype, far, nothing, nothing),
        "a drift of 20 nats a token": _rollouts(dtype, nothing, [20.0, -20.0, 20.0, -20.0], nothing),
        "values 10,000 off": _rollouts(dtype, nothing, nothing, [1e4, -1e4, 1e4, -1e4], 1e4),
        "advantages of 10,000": replace(ordinary, advantages=1e4 * ordinary.advantages),
        "certain tokens": replace(
            ordinary, logps=0 * ordinary.logps, old_logps=0 * ordinary.logps, ref_logps=0 * ordinary.logps
        ),
    }


def _better_up(record: Any, name: str) -> Tensor:
    """Tokens that did better than expected become likelier, the others less likely; values move to their returns."""
    wanted = record.values - record.returns if name == "values" else -record.advantages
    found: Tensor = wanted.sign()
    return found


def _no_side(record: Any, name: str) -> Tensor:
    return torch.zeros_like(record.mask)


def experience(dtype: torch.dtype, order: Sequence[int] = range(6), padding: int = 0) -> Experience:
    """Three answers to each of two prompts, all of different rewards and lengths, written by the reference itself.

    Args:
        dtype: of all numbers.
        order: the rows, in this order.
        padding: columns beyond the longest answer.
    """
    lengths = torch.tensor([4, 2, 6, 3, 5, 1])[list(order)]
    mask = torch.arange(6 + padding) < lengths[:, None]
    step = torch.arange(1.0, 1 + mask.shape[1], dtype=dtype)
    logps = -0.1 * step * lengths[:, None] * mask
    return Experience(
        rewards=_tensor([1.5, -0.5, 0.25, 2.0, 3.5, 2.75], dtype)[list(order)],
        group=torch.tensor([0, 0, 0, 1, 1, 1])[list(order)],
        mask=mask,
        logps=logps,
        ref_logps=logps,
        values=torch.zeros_like(logps),
    )


# The way through a model.


@dataclass(frozen=True, slots=True)
class Bench:
    """A policy, a reference and a few rows, as training has them.

    Attributes:
        model, reference_model: random Llamas of different weights; with a scalar head for scores.
        rows: preference pairs of different lengths, all prompts different.
        reference: what the store would hold of the reference model, recomputed plainly: shape [rows] by column.
    """

    model: Any
    reference_model: Any
    rows: tuple[TokenRow, ...]
    reference: Mapping[str, Tensor]


@cache
def bench(scalar_head: bool) -> Bench:
    """The one bench of policies or of reward models; nothing is downloaded, and torch's seed is left as it was."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=0,
        num_labels=1,
    )
    build = LlamaForSequenceClassification if scalar_head else LlamaForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, reference_model = build(config).eval(), build(config).eval()
    model.requires_grad_(False)
    # Answers both shorter and longer than a prompt, and one of a single token.
    lengths = [(3, 5, 9), (1, 1, 6), (7, 12, 4), (4, 8, 8), (2, 3, 14), (9, 6, 1)]
    rows = tuple(
        TokenRow(index, _ids(prompt, 3 * index), _ids(chosen, 3 * index + 1), _ids(rejected, 3 * index + 2))
        for index, (prompt, chosen, rejected) in enumerate(lengths)
    )
    reference = {} if scalar_head else _plain_columns(reference_model, rows)
    return Bench(model, reference_model, rows, reference)


def _ids(length: int, salt: int) -> tuple[int, ...]:
    return tuple(1 + (7 * salt + 11 * step + step * step) % (VOCABULARY - 1) for step in range(length))


def plain_logp(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """`s` by its definition: one row without padding, all logits, a sum over the response's tokens in float64."""
    ids = [*prompt, *response]
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return float(sum(logps[position - 1, ids[position]] for position in range(len(prompt), len(ids))))


def plain_score(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """`r` by its definition: the scalar head at the last token of one row without padding."""
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state
        return float(model.score(hidden[0, -1]))


def _plain_columns(model: Any, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """`s` of both answers of each row, and of the next row's answers to its prompt."""
    columns: dict[str, list[float]] = {}
    for index, row in enumerate(rows):
        other = rows[(index + 1) % len(rows)]
        for name, answer in {
            "chosen": row.chosen,
            "rejected": row.rejected,
            "mismatched_chosen": other.chosen,
            "mismatched_rejected": other.rejected,
        }.items():
            columns.setdefault(name, []).append(plain_logp(model, row.prompt, answer or ()))
    return {name: torch.tensor(values) for name, values in columns.items()}


def _pairs_by_definition(bench: Bench) -> PairLogps:
    policy, reference = _plain_columns(bench.model, bench.rows), bench.reference
    return PairLogps(
        policy["chosen"],
        policy["rejected"],
        torch.tensor([len(row.chosen or ()) for row in bench.rows]),
        torch.tensor([len(row.rejected or ()) for row in bench.rows]),
        reference["chosen"],
        reference["rejected"],
    )


def _chosen_by_definition(bench: Bench) -> ChosenLogps:
    pairs = _pairs_by_definition(bench)
    return ChosenLogps(pairs.chosen, pairs.chosen_tokens, pairs.ref_chosen)


def _unpaired_by_definition(bench: Bench) -> UnpairedLogps:
    """A chosen and a rejected answer of each row in turn."""
    policy, reference, pairs = _plain_columns(bench.model, bench.rows), bench.reference, _pairs_by_definition(bench)

    def in_turn(chosen: Tensor, rejected: Tensor) -> Tensor:
        return torch.stack([chosen, rejected], 1).flatten()

    return UnpairedLogps(
        logps=in_turn(policy["chosen"], policy["rejected"]),
        tokens=in_turn(pairs.chosen_tokens, pairs.rejected_tokens),
        desirable=torch.arange(2 * len(bench.rows)) % 2 == 0,
        ref_logps=in_turn(reference["chosen"], reference["rejected"]),
        mismatched=in_turn(policy["mismatched_chosen"], policy["mismatched_rejected"]),
        ref_mismatched=in_turn(reference["mismatched_chosen"], reference["mismatched_rejected"]),
    )


def _scores_by_definition(bench: Bench) -> PairScores:
    return PairScores(
        torch.tensor([plain_score(bench.model, row.prompt, row.chosen or ()) for row in bench.rows]),
        torch.tensor([plain_score(bench.model, row.prompt, row.rejected or ()) for row in bench.rows]),
        torch.tensor([len(row.chosen or ()) for row in bench.rows]),
        torch.tensor([len(row.rejected or ()) for row in bench.rows]),
    )


class RolloutFeed:
    """The chosen answers of some rows as `Rollouts`: written under a reference, with advantages and returns made up."""

    def __init__(self, rows: Sequence[TokenRow], reference_model: Any) -> None:
        self.sequences: Sequences = [(row.prompt, row.chosen or ()) for row in rows]
        self.lengths = [len(prompt) + len(answer) for prompt, answer in self.sequences]
        with torch.no_grad():
            self.written, _ = token_logps(reference_model, self.sequences)
        size = self.written.shape[1]
        waves = torch.arange(1.0, 1 + self.written.numel()).reshape(len(rows), size)
        self.mask = torch.arange(size) < torch.tensor([len(answer) for _, answer in self.sequences])[:, None]
        self.advantages = waves[:, :1].sin() * self.mask
        self.values, self.returns = waves.cos() * self.mask, (0.7 * waves).sin() * self.mask
        self.mean_tokens = float(self.mask.sum()) / len(rows)

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int) -> None:
        """Nothing is left to prepare."""

    def record(self, model: Any, examples: Sequence[int]) -> Rollouts:
        """A micro-batch, as wide as its own longest answer; the policy is the model, half way from the reference."""
        own, _ = token_logps(model, [self.sequences[example] for example in examples])
        rows, time = list(examples), own.shape[1]
        written = self.written[rows, :time]
        # Two random models are far apart: half-way steps would be outside of every clip.
        return Rollouts(
            logps=written + 0.02 * (own - written),
            old_logps=written,
            ref_logps=written - 0.01 * (own - written),
            mask=self.mask[rows, :time],
            advantages=self.advantages[rows, :time],
            returns=self.returns[rows, :time],
            values=self.values[rows, :time],
            old_values=0.9 * self.values[rows, :time],
            mean_tokens=self.mean_tokens,
        )


def _rollouts_by_definition(bench: Bench) -> Rollouts:
    """The same from plain sums: what a padded row holds beyond its answer is 0."""
    feed = RolloutFeed(bench.rows, bench.reference_model)
    tokens = [
        [plain_logp(bench.model, [*prompt, *answer[:step]], answer[step : step + 1]) for step in range(len(answer))]
        for prompt, answer in feed.sequences
    ]
    longest = max(map(len, tokens))
    own = torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in tokens])
    record = feed.record(bench.model, range(len(tokens)))
    return replace(record, logps=feed.written + 0.02 * (own - feed.written))


KINDS: Mapping[str, Kind] = {
    "pairs": Kind(
        trained=("chosen", "rejected"),
        at_reference=_lopsided_pairs([0.0] * 4, [0.0] * 4),
        near_reference=_near_pairs(0.05),
        moderate=_lopsided_pairs([0.513, -2.071, 1.537, 3.019], [-1.043, 0.967, -0.461, 4.127]),
        extreme=_extreme_pairs,
        rejected=_side,
        by_definition=_pairs_by_definition,
        counts=("chosen_tokens", "rejected_tokens"),
    ),
    "chosen": Kind(
        trained=("logps",),
        at_reference=_lopsided_chosen([0.0] * 4),
        near_reference=_near_chosen(0.05),
        moderate=_lopsided_chosen([0.513, -2.071, 1.537, 3.019]),
        extreme=_extreme_chosen,
        rejected=_none,
        by_definition=_chosen_by_definition,
        counts=("tokens",),
    ),
    "unpaired": Kind(
        trained=("logps",),
        at_reference=_lopsided_unpaired([0.0] * 6, [0.0] * 8),
        near_reference=_near_unpaired(0.05),
        moderate=_lopsided_unpaired(
            [3.07, -4.11, 0.53, -1.09, -6.13, 8.17], [2.03, 0.47, -1.11, 1.53, 2.57, 0.59, 1.07, 3.01]
        ),
        extreme=_extreme_unpaired,
        rejected=_undesirable,
        by_definition=_unpaired_by_definition,
        counts=("tokens",),
        per_batch=("mismatched", "ref_mismatched"),
    ),
    "scores": Kind(
        trained=("chosen", "rejected"),
        at_reference=_scores([0.0, 0.0], [0.0, 0.0]),
        near_reference=_scores([0.0, 0.05, -0.05], [0.0, -0.05, 0.05]),
        moderate=_scores([1.53, -2.07, 0.27], [-0.51, 1.03, 0.49], ([0.87, 0.21, -1.13], [-0.33, 1.59, 0.43])),
        extreme=_extreme_scores,
        rejected=_side,
        by_definition=_scores_by_definition,
        beside=tuple(f"{scorer}_{side}" for scorer in ("bias", "adversarial", "length") for side in _SIDES),
    ),
    "rollouts": Kind(
        trained=("logps", "values"),
        at_reference=lambda dtype: _rollouts(dtype, [0.0] * 4, [0.0] * 4, [0.5, -0.5, -0.5, 0.5]),
        # The policy went the wrong way, beyond any clip: a loss without the maximum of both would let it.
        near_reference=lambda dtype: _rollouts(dtype, [-0.7, 0.7, -0.7, 0.7], [0.0] * 4, [0.5, -0.5, -0.5, 0.5]),
        moderate=lambda dtype: _rollouts(
            dtype, [0.031, -0.017, 0.043, 0.023], [0.31, -0.23, 0.17, -0.41], [0.31, -0.57, 0.23, 0.41], 0.037
        ),
        extreme=_extreme_rollouts,
        rejected=_no_side,
        by_definition=_rollouts_by_definition,
        slopes=_better_up,
    ),
}
