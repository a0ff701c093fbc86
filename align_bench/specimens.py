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

from align_bench.api import ChosenLogps, PairLogps, PairScores, Record, UnpairedLogps
from align_bench.records import TokenRow

VOCABULARY = 48


@dataclass(frozen=True, slots=True)
class Kind:
    """What the kit knows of one kind of data.

    Every maker of a batch takes a dtype and yields a batch with references; `for_method` takes them away again.

    Attributes:
        trained: the record's fields that carry gradient, in the order of the rewards that answer to them.
        at_reference: rows where the policy equals the reference (scores: where both scores are 0).
        near_reference: rows a little to either side of it, where no method has reached its target yet.
        moderate: rows well away from it and from each other, where losses are curved; no round numbers, at which a
            hinge might stand.
        extreme: what is extreme about it → rows.
        rejected: which rows of a trained field are rejected (undesirable) answers.
        by_definition: the record of all token rows, computed plainly from the model and from the reference model.
        counts: the record's fields that count tokens.
        per_batch: the record's fields that belong to the whole effective batch, not to a row.
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


def for_method(record: Record, reference: bool) -> Record:
    """The record as the method will see it: without references unless it declared them."""
    if reference:
        return record
    nothing: dict[str, Any] = {field.name: None for field in fields(record) if field.name.startswith("ref_")}
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
    return torch.full_like(record.chosen, name == "rejected", dtype=torch.bool)


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


def _scores(chosen: Sequence[float], rejected: Sequence[float]) -> Callable[[torch.dtype], PairScores]:
    return lambda dtype: PairScores(_tensor(chosen, dtype), _tensor(rejected, dtype))


def _extreme_scores(dtype: torch.dtype) -> Mapping[str, PairScores]:
    return {
        "a margin of 10,000": _scores([5e3, -5e3], [-5e3, 5e3])(dtype),
        "a common offset of 10,000": _scores([1e4, -1e4], [1e4, -1e4])(dtype),
    }


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
    )


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
        moderate=_scores([1.53, -2.07, 0.27], [-0.51, 1.03, 0.49]),
        extreme=_extreme_scores,
        rejected=_side,
        by_definition=_scores_by_definition,
    ),
}
