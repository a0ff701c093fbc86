"""What learns, or acts, beside a reward model during its training. Nothing of it is saved with the adapter."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from align_bench.api import Adversary, AdversaryScores, BiasExpertScores, LengthHead, LengthHeadScores, PairScores
from align_bench.models.logprobs import (
    attacked_scores,
    head_scores,
    head_weight,
    input_embeddings,
    last_states,
    scores,
)
from align_bench.models.transfer import on_device
from align_bench.train.group import ALONE, Group
from align_bench.train.whole_batch import of_whole_batch

if TYPE_CHECKING:
    from align_bench.api import Auxiliary, BiasExpert
    from align_bench.models.layout import Sequences


class Companion(nn.Module, ABC):
    """Scores pairs together with a reward model. Pairs come as sequences: all chosen ones, then all rejected ones.

    Attributes:
        learning_rate_factor: its learning rate, × that of the reward model.
    """

    learning_rate_factor = 1.0

    def begin(self, model: Any, sequences: Sequences, max_tokens: int, group: Group = ALONE) -> None:
        """Prepare what the loss needs of the whole effective batch."""

    @abstractmethod
    def record(self, model: Any, sequences: Sequences) -> PairScores:
        """The scores of the reward model, and its own."""


def pair_scores(values: Tensor, sequences: Sequences) -> PairScores:
    """A reward model's scores of all chosen answers, then of all rejected ones, as pairs."""
    chosen, rejected = _sides(values)
    counts = [len(answer) for _, answer in sequences]
    return PairScores(
        chosen=chosen,
        rejected=rejected,
        chosen_tokens=on_device(counts[: len(chosen)], values.device),
        rejected_tokens=on_device(counts[len(chosen) :], values.device),
    )


def attach(model: Any, declared: Auxiliary, *, seed: int) -> None:
    """Put the companion that a method declared on the training model, so that optimizer and checkpoints see it.

    Args:
        model: a reward model with a fresh adapter.
        declared: what the method asks for.
        seed: of its initial weights.
    """
    torch.manual_seed(seed)
    made: Companion
    if isinstance(declared, Adversary):
        made = _Attack(declared.epsilon)
    elif isinstance(declared, LengthHead):
        made = _TwoHeads(model.config.hidden_size)
    elif declared.length_only:
        made = _CountExpert(declared)
    else:
        made = _NoisyExpert(declared, input_embeddings(model).weight)
    model.companion = made.to(model.device)


def companion_of(model: Any) -> Companion | None:
    """What `attach` put on the model; None when nothing was."""
    found: Companion | None = getattr(model, "companion", None)
    return found


class _Attack(Companion):
    """Chosen answers attacked so that they score less, rejected ones so that they score more."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def record(self, model: Any, sequences: Sequences) -> AdversaryScores:
        half = len(sequences) // 2
        clean, attacked = attacked_scores(model, sequences, [-1.0] * half + [1.0] * half, epsilon=self.epsilon)
        pairs, (chosen, rejected) = pair_scores(clean, sequences), _sides(attacked)
        return AdversaryScores(
            pairs.chosen, pairs.rejected, pairs.chosen_tokens, pairs.rejected_tokens, chosen, rejected
        )


class _TwoHeads(Companion):
    """A second linear head, without bias, beside the scalar head that is kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1, bias=False)
        self._scores, self._length_scores, self._tokens = torch.empty(0), torch.empty(0), torch.empty(0)

    def begin(self, model: Any, sequences: Sequences, max_tokens: int, group: Group = ALONE) -> None:
        def both(places: Sequence[int]) -> dict[str, Tensor]:
            kept, length = self._both(model, [sequences[place] for place in places])
            return {"kept": kept.float(), "length": length.float()}

        lengths = [len(prompt) + len(answer) for prompt, answer in sequences]
        found = of_whole_batch(model, range(len(sequences)), lengths, max_tokens, group, both)
        self._scores, self._length_scores = found["kept"], found["length"]
        self._tokens = on_device([len(answer) for _, answer in sequences], model.device)

    def record(self, model: Any, sequences: Sequences) -> LengthHeadScores:
        kept, length = self._both(model, sequences)
        pairs, (chosen, rejected) = pair_scores(kept, sequences), _sides(length)
        weight = head_weight(model).float().flatten()
        return LengthHeadScores(
            pairs.chosen,
            pairs.rejected,
            pairs.chosen_tokens,
            pairs.rejected_tokens,
            length_chosen=chosen,
            length_rejected=rejected,
            head_cosine=torch.cosine_similarity(weight, self.head.weight.flatten(), dim=0),
            batch_scores=self._scores,
            batch_length_scores=self._length_scores,
            batch_tokens=self._tokens,
        )

    def _both(self, model: Any, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """The scores of the head that is kept, and of the length head, each of shape [sequences]."""
        states = last_states(model, sequences)
        return head_scores(model, states), self.head(states.float()).squeeze(-1)


class _Expert(Companion):
    """A bias expert: `b` of each answer, beside the reward model's score."""

    def record(self, model: Any, sequences: Sequences) -> BiasExpertScores:
        pairs = pair_scores(scores(model, sequences), sequences)
        chosen, rejected = _sides(self.bias(model, sequences))
        return BiasExpertScores(
            pairs.chosen, pairs.rejected, pairs.chosen_tokens, pairs.rejected_tokens, chosen, rejected
        )

    @abstractmethod
    def bias(self, model: Any, sequences: Sequences) -> Tensor:
        """`b`, shape [sequences]."""


class _CountExpert(_Expert):
    """`b` from the number of answer tokens alone: a perceptron with one hidden layer over its logarithm."""

    def __init__(self, declared: BiasExpert) -> None:
        super().__init__()
        self.learning_rate_factor = declared.learning_rate_factor
        self.layers = nn.Sequential(nn.Linear(1, declared.width), nn.Tanh(), nn.Linear(declared.width, 1))

    def bias(self, model: Any, sequences: Sequences) -> Tensor:
        counts = on_device([[math.log(len(answer))] for _, answer in sequences], model.device)
        result: Tensor = self.layers(counts).squeeze(-1)
        return result


class _NoisyExpert(_Expert):
    """`b` from the noisy input embeddings of prompt and answer, read by a gated recurrent unit (which can count)."""

    def __init__(self, declared: BiasExpert, embeddings: Tensor) -> None:
        super().__init__()
        self.learning_rate_factor = declared.learning_rate_factor
        rms = torch.linalg.vector_norm(embeddings.detach(), dtype=torch.float32) / math.sqrt(embeddings.numel())
        self.noise = declared.noise * float(rms)
        self.recurrent = nn.GRU(embeddings.shape[1], declared.width, batch_first=True)
        self.head = nn.Linear(declared.width, 1)

    def bias(self, model: Any, sequences: Sequences) -> Tensor:
        ids = [torch.tensor([*prompt, *answer]) for prompt, answer in sequences]
        padded = on_device(pad_sequence(ids, batch_first=True), self.head.weight.device)
        with torch.no_grad():
            inputs = input_embeddings(model)(padded).float()
            if self.noise:
                inputs = inputs + self.noise * torch.randn_like(inputs)
        # Sorted here, on the host: torch would wait for the device to do the same.
        lengths, order = torch.tensor([len(sequence) for sequence in ids]).sort(descending=True)
        longest_first = inputs[on_device(order, inputs.device)]
        _, last = self.recurrent(pack_padded_sequence(longest_first, lengths, batch_first=True))
        as_given = last[-1][on_device(order.argsort(), inputs.device)]
        result: Tensor = self.head(as_given).squeeze(-1)
        return result


def _sides(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of all chosen answers, then of all rejected ones, apart."""
    half = len(values) // 2
    return values[:half], values[half:]
