"""The records that a loss reads of given answers, one for each need. What a record holds is always there.

Notation, as in the field's papers: `s = Σ_t log π(y_t | x, y_<t)` over response tokens (end-of-turn token included,
prompt excluded), in nats; `ρ = s_policy − s_ref`; `|y|` response tokens; `s̄ = s / |y|`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor  # methods are listed without it


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Response log-probabilities of a batch of preference pairs.

    Attributes:
        chosen, rejected: `s` under the policy, float tensors of shape [rows], in nats, with gradient.
        chosen_tokens, rejected_tokens: `|y|`, integer tensors of shape [rows], at least 1.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_mean(self) -> Tensor:
        """`s̄` of the chosen answers, nats per token, shape [rows]."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> Tensor:
        """`s̄` of the rejected answers, nats per token, shape [rows]."""
        return self.rejected / self.rejected_tokens

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True, slots=True)
class ReferencedPairLogps(PairLogps):
    """Pairs with what the reference says of them.

    Attributes:
        ref_chosen, ref_rejected: `s` under the reference, shape [rows], in nats, no gradient.
    """

    ref_chosen: Tensor
    ref_rejected: Tensor


@dataclass(frozen=True, slots=True)
class MarginPairLogps(PairLogps):
    """Pairs with the data's margin.

    Attributes:
        margin: how much better the chosen answer is, in the data's own unit, float tensor of shape [rows], no gradient.
            A training whose rows lack one is refused.
    """

    margin: Tensor


@dataclass(frozen=True, slots=True)
class ReferencedMarginPairLogps(ReferencedPairLogps):
    """Pairs with what the reference says of them, and with the data's margin.

    Attributes:
        margin: as of `MarginPairLogps`.
    """

    margin: Tensor


@dataclass(frozen=True, slots=True)
class PrefixPairLogps(ReferencedPairLogps):
    """Pairs with the log-probabilities of each answer's first tokens: as many as the shorter answer has.

    Attributes:
        prefix_chosen, prefix_rejected: `s` of these tokens under the policy, shape [rows], in nats, with gradient.
        ref_prefix_chosen, ref_prefix_rejected: the same under the reference, no gradient.
    """

    prefix_chosen: Tensor
    prefix_rejected: Tensor
    ref_prefix_chosen: Tensor
    ref_prefix_rejected: Tensor


@dataclass(frozen=True, slots=True)
class MismatchedPairLogps(ReferencedPairLogps):
    """Pairs with what an estimate of the KL divergence needs.

    Attributes:
        mismatched: `s` of other rows' answers to these prompts under the policy, two for each pair, shape [2 · batch],
            no gradient. `batch` is the whole effective batch, so a mean over it does not depend on micro-batching.
        ref_mismatched: the same under the reference, shape [2 · batch].
    """

    mismatched: Tensor
    ref_mismatched: Tensor


@dataclass(frozen=True, slots=True)
class ConfidencePairLogps(ReferencedPairLogps):
    """Pairs with how likely each answer is beside what the policy would sample.

    Attributes:
        confidence_chosen, confidence_rejected: mean over the answer's tokens of `log π(y_t) − log Σ_v π(v)²`, where `v`
            runs over the vocabulary, shape [rows], nats per token, no gradient.
    """

    confidence_chosen: Tensor
    confidence_rejected: Tensor


@dataclass(frozen=True, slots=True)
class BatchPairLogps(ReferencedPairLogps):
    """Pairs with the whole effective batch that they belong to, so that its statistics do not depend on micro-batches.

    Attributes:
        batch: all pairs of the effective batch as the policy has them before this step, no gradient.
        place: where in `batch` each row stands, integer tensor of shape [rows].
        running: what the method remembers of all batches so far, this one included (`algorithm(running=…)`).
    """

    batch: ReferencedPairLogps
    place: Tensor
    running: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ChosenLogps:
    """Response log-probabilities of chosen (desirable) answers alone; no rejected answer goes through the model.

    Attributes:
        logps: `s` under the policy, shape [rows], in nats, with gradient.
        tokens: `|y|`, integer tensor of shape [rows].
    """

    logps: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.logps)


@dataclass(frozen=True, slots=True)
class ReferencedChosenLogps(ChosenLogps):
    """Chosen answers with what the reference says of them.

    Attributes:
        ref_logps: `s` under the reference, shape [rows], in nats, no gradient.
    """

    ref_logps: Tensor


@dataclass(frozen=True, slots=True)
class UnpairedLogps:
    """Response log-probabilities of single answers, each desirable or not.

    Attributes:
        logps: `s` under the policy, shape [rows], in nats, with gradient.
        tokens: `|y|`, integer tensor of shape [rows].
        desirable: boolean tensor of shape [rows].
    """

    logps: Tensor
    tokens: Tensor
    desirable: Tensor

    def __len__(self) -> int:
        return len(self.logps)


@dataclass(frozen=True, slots=True)
class MatchedUnpairedLogps(UnpairedLogps):
    """Single answers with what the reference says of them, and no answers of other rows.

    Attributes:
        ref_logps: `s` under the reference, shape [rows], in nats, no gradient.
    """

    ref_logps: Tensor


@dataclass(frozen=True, slots=True)
class ReferencedUnpairedLogps(MatchedUnpairedLogps):
    """Single answers with what the reference says of them, and what an estimate of the KL divergence needs.

    Attributes:
        mismatched: `s` of other rows' answers to these prompts under the policy, shape [batch], no gradient. `batch`
            is the whole effective batch, so a mean over it does not depend on micro-batching.
        ref_mismatched: the same under the reference, shape [batch].
    """

    mismatched: Tensor
    ref_mismatched: Tensor


@dataclass(frozen=True, slots=True)
class BatchUnpairedLogps(MatchedUnpairedLogps):
    """Single answers with the whole effective batch that they belong to.

    Attributes:
        batch, place, running: as of `BatchPairLogps`, of single answers.
    """

    batch: MatchedUnpairedLogps
    place: Tensor
    running: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scalar-head scores of a batch of preference pairs.

    Attributes:
        chosen, rejected: `r`, float tensors of shape [rows], with gradient; no unit (a Bradley–Terry logit).
        chosen_tokens, rejected_tokens: `|y|`, integer tensors of shape [rows].
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True, slots=True)
class MarginPairScores(PairScores):
    """Scores of pairs, and the data's margin.

    Attributes:
        margin: as of `MarginPairLogps`.
    """

    margin: Tensor


@dataclass(frozen=True, slots=True)
class BiasExpertScores(PairScores):
    """Scores of pairs, and those of a `BiasExpert`.

    Attributes:
        bias_chosen, bias_rejected: `b`, the bias expert's scores, as `chosen` and `rejected`.
    """

    bias_chosen: Tensor
    bias_rejected: Tensor


@dataclass(frozen=True, slots=True)
class AdversaryScores(PairScores):
    """Scores of pairs, clean and under the attack of an `Adversary`.

    Attributes:
        adversarial_chosen, adversarial_rejected: `r` under attack, as `chosen` and `rejected`.
    """

    adversarial_chosen: Tensor
    adversarial_rejected: Tensor


@dataclass(frozen=True, slots=True)
class LengthHeadScores(PairScores):
    """Scores of pairs, and those of a `LengthHead`.

    Attributes:
        length_chosen, length_rejected: the length head's scores, as `chosen` and `rejected`.
        head_cosine: cosine between the weights of the two heads, a scalar with gradient.
        batch_scores, batch_length_scores, batch_tokens: `r`, the length head's score and `|y|` of all answers of the
            whole effective batch, shape [2 · batch], no gradient, so that statistics of the batch do not depend on
            micro-batching.
    """

    length_chosen: Tensor
    length_rejected: Tensor
    head_cosine: Tensor
    batch_scores: Tensor
    batch_length_scores: Tensor
    batch_tokens: Tensor


Batch: TypeAlias = PairLogps | ChosenLogps | UnpairedLogps | PairScores

# What a method remembers from batch to batch: name → number.
Running: TypeAlias = Mapping[str, float]


def fields_of(batch: Batch) -> dict[str, object]:
    """Name → value of each field of a record."""
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


OF_THE_BATCH = frozenset({"mismatched", "ref_mismatched"})  # fields that are the whole batch's
