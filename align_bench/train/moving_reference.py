"""References that move: every so many optimizer steps, the policy becomes the reference of its own training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align_bench.api.batches import OF_THE_BATCH, fields_of
from align_bench.api.readings import as_record
from align_bench.models.transfer import on_device
from align_bench.train.group import ALONE, Group
from align_bench.train.whole_batch import of_whole_batch

if TYPE_CHECKING:
    from align_bench.api import Batch
    from align_bench.api.readings import Reading
    from align_bench.train.feeds import Feed


class MovingReference:
    """What a policy is held to that becomes its own reference every so many optimizer steps.

    A copy of the trained weights is exact: the frozen base below them is the same for both.

    Attributes:
        every: optimizer steps from one move to the next.
        weights: the trained weights of the reference by name; empty before its first move, until which the stored
            log-probabilities hold.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.weights: dict[str, Tensor] = {}

    def follow(self, step: int, trained: Mapping[str, Tensor]) -> None:
        """Become the policy, where this step is one of those after which the reference moves.

        Args:
            step: optimizer steps so far.
            trained: the policy's trained weights by name.
        """
        if step % self.every == 0:
            self.weights = {name: weight.detach().clone() for name, weight in trained.items()}

    @contextmanager
    def in_place_of(self, model: Any) -> Iterator[None]:
        """Within it the model is the reference, without dropout and without gradient."""
        own = {name: weight.data for name, weight in model.named_parameters() if name in self.weights}
        training = model.training
        try:
            for name in own:
                model.get_parameter(name).data = self.weights[name]
            model.eval()
            with torch.no_grad():
                yield
        finally:
            for name, data in own.items():
                model.get_parameter(name).data = data
            model.train(training)


class MovingFeed:
    """Rows as another feed has them, held to the reference as it stands: one more forward pass once it has moved."""

    def __init__(self, feed: Feed, reference: MovingReference, reading: Reading) -> None:
        self.feed, self.reference, self.reading = feed, reference, reading
        self.lengths, self.tokens = feed.lengths, feed.tokens
        self._known: Mapping[str, Tensor] = {}
        self._places: Mapping[int, int] = {}

    def begin(self, model: Any, batch: Sequence[int], max_tokens: int, group: Group = ALONE) -> None:
        """All rows of the batch through the moved reference once, in the passes that the policy takes them in."""
        self._known = {}
        if self.reference.weights:
            with self.reference.in_place_of(model):
                self.feed.begin(model, batch, max_tokens, group)
                said = of_whole_batch(
                    model, batch, self.lengths, max_tokens, group, lambda part: fields_of(self.feed.record(model, part))
                )
            self._known = {f"ref_{name}": value for name, value in said.items() if f"ref_{name}" in said}
            self._places = {example: place for place, example in enumerate(batch)}
        self.feed.begin(model, batch, max_tokens, group)

    def record(self, model: Any, examples: Sequence[int]) -> Batch:
        record = self.feed.record(model, examples)
        if not self._known:
            return record
        device = next(value.device for value in self._known.values())
        places = on_device([self._places[example] for example in examples], device)
        known = {name: value if name in OF_THE_BATCH else value[places] for name, value in self._known.items()}
        return as_record(self.reading, fields_of(record) | known)
