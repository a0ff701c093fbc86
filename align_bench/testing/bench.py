"""The way through a model: a causal language model of a few thousand parameters, made on the spot, and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from align_bench.api import (
    CriticRollouts,
    MarginPairScores,
    ReferencedChosenLogps,
    ReferencedUnpairedLogps,
    Rollouts,
)
from align_bench.models.layout import Sequences
from align_bench.models.logprobs import token_logps
from align_bench.records import TokenRow
from align_bench.testing.given_batches import AllPairs
from align_bench.testing.narrowed import narrowed

VOCABULARY = 48


@dataclass(frozen=True, slots=True, eq=False)
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
        TokenRow(
            index,
            _ids(prompt, 3 * index),
            _ids(chosen, 3 * index + 1),
            _ids(rejected, 3 * index + 2),
            margin=0.4 + 0.7 * index,
        )
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
    """`s` of both answers of each row, of the next row's answers to its prompt, and of the answers' first tokens."""
    columns: dict[str, list[float]] = {}
    for index, row in enumerate(rows):
        other = rows[(index + 1) % len(rows)]
        chosen, rejected = row.chosen or (), row.rejected or ()
        for name, answer in {
            "chosen": row.chosen,
            "rejected": row.rejected,
            "mismatched_chosen": other.chosen,
            "mismatched_rejected": other.rejected,
            "prefix_chosen": chosen[: len(rejected)],
            "prefix_rejected": rejected[: len(chosen)],
        }.items():
            columns.setdefault(name, []).append(plain_logp(model, row.prompt, answer or ()))
    return {name: torch.tensor(values) for name, values in columns.items()}


def plain_confidence(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """The mean over the response of log π(y_t) − log Σ_v π(v)², by its definition, as `plain_logp`."""
    ids = [*prompt, *response]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].double().softmax(-1)
    places = range(len(prompt), len(ids))
    ratios = [chances[at - 1, ids[at]] / chances[at - 1].square().sum() for at in places]
    return float(torch.stack(ratios).log().mean())


@cache  # of one bench it is the same for every method
def pairs_by_definition(bench: Bench) -> AllPairs:
    policy, reference = _plain_columns(bench.model, bench.rows), bench.reference
    return AllPairs(
        policy["chosen"],
        policy["rejected"],
        torch.tensor([len(row.chosen or ()) for row in bench.rows]),
        torch.tensor([len(row.rejected or ()) for row in bench.rows]),
        reference["chosen"],
        reference["rejected"],
        torch.tensor([row.margin for row in bench.rows]),
        policy["prefix_chosen"],
        policy["prefix_rejected"],
        reference["prefix_chosen"],
        reference["prefix_rejected"],
        torch.tensor([plain_confidence(bench.model, row.prompt, row.chosen or ()) for row in bench.rows]),
        torch.tensor([plain_confidence(bench.model, row.prompt, row.rejected or ()) for row in bench.rows]),
        _in_turn(policy["mismatched_chosen"], policy["mismatched_rejected"]),
        _in_turn(reference["mismatched_chosen"], reference["mismatched_rejected"]),
    )


def _in_turn(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Both of each row, one row after the other."""
    return torch.stack([chosen, rejected], 1).flatten()


@cache
def chosen_by_definition(bench: Bench) -> ReferencedChosenLogps:
    pairs = pairs_by_definition(bench)
    return ReferencedChosenLogps(pairs.chosen, pairs.chosen_tokens, pairs.ref_chosen)


@cache
def unpaired_by_definition(bench: Bench) -> ReferencedUnpairedLogps:
    """A chosen and a rejected answer of each row in turn."""
    policy, reference, pairs = _plain_columns(bench.model, bench.rows), bench.reference, pairs_by_definition(bench)

    return ReferencedUnpairedLogps(
        logps=_in_turn(policy["chosen"], policy["rejected"]),
        tokens=_in_turn(pairs.chosen_tokens, pairs.rejected_tokens),
        desirable=torch.arange(2 * len(bench.rows)) % 2 == 0,
        ref_logps=_in_turn(reference["chosen"], reference["rejected"]),
        mismatched=_in_turn(policy["mismatched_chosen"], policy["mismatched_rejected"]),
        ref_mismatched=_in_turn(reference["mismatched_chosen"], reference["mismatched_rejected"]),
    )


@cache
def scores_by_definition(bench: Bench) -> MarginPairScores:
    return MarginPairScores(
        torch.tensor([plain_score(bench.model, row.prompt, row.chosen or ()) for row in bench.rows]),
        torch.tensor([plain_score(bench.model, row.prompt, row.rejected or ()) for row in bench.rows]),
        torch.tensor([len(row.chosen or ()) for row in bench.rows]),
        torch.tensor([len(row.rejected or ()) for row in bench.rows]),
        torch.tensor([row.margin for row in bench.rows]),
    )


class RolloutFeed:
    """The chosen answers of some rows as `Rollouts`: written under a reference, with advantages and returns made up."""

    def __init__(self, rows: Sequence[TokenRow], reference_model: Any, *, critic: bool) -> None:
        self.critic = critic
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
        whole = CriticRollouts(
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
        return whole if self.critic else narrowed(whole, Rollouts)


def rollouts_by_definition(bench: Bench) -> Rollouts:
    """The same from plain sums: what a padded row holds beyond its answer is 0."""
    feed = RolloutFeed(bench.rows, bench.reference_model, critic=True)
    tokens = [
        [plain_logp(bench.model, [*prompt, *answer[:step]], answer[step : step + 1]) for step in range(len(answer))]
        for prompt, answer in feed.sequences
    ]
    longest = max(map(len, tokens))
    own = torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in tokens])
    record = feed.record(bench.model, range(len(tokens)))
    return replace(record, logps=feed.written + 0.02 * (own - feed.written))
