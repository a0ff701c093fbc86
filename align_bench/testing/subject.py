"""A method before the conformance kit, and what a check finds of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from align_bench.api import BiasExpert, Loss, OnlineAlgorithm
from align_bench.api.offline import FallsWith
from align_bench.errors import AlignBenchError
from align_bench.records import Parameters
from align_bench.testing.bench import Bench, RolloutFeed, bench
from align_bench.testing.specimens import Kind, Learner, Specimen, for_method
from align_bench.train.auxiliary import attach
from align_bench.train.feeds import Feed, feed_of

Status: TypeAlias = Literal["passed", "failed", "not applicable", "unchecked"]


class Verdict(NamedTuple):
    status: Status
    found: str
    hint: str = ""


def passed(found: str) -> Verdict:
    return Verdict("passed", found)


def failed(found: str, hint: str) -> Verdict:
    return Verdict("failed", found, hint)


def not_applicable(reason: str) -> Verdict:
    return Verdict("not applicable", reason)


@dataclass(frozen=True, slots=True)
class Subject:
    """A method with its hyper-parameters and the kind of data it reads."""

    algorithm: Learner
    parameters: Parameters
    kind: Kind

    def batch(self, make: Callable[[torch.dtype], Specimen]) -> Any:
        """A batch as this method would get it, in float64."""
        return for_method(make(torch.float64), self.algorithm, self.parameters)

    def loss(self, record: Any) -> Loss:
        return self.algorithm(record, **self.parameters)

    def gradients(self, record: Any) -> tuple[Loss, dict[str, Tensor]]:
        """The loss, and the derivative of its sum by each trained field; rows do not mix, so these are by row."""
        inputs = self.inputs(record)
        loss = self.loss(replace(record, **inputs))
        found = torch.autograd.grad(loss.values.sum(), list(inputs.values()), allow_unused=True, materialize_grads=True)
        return loss, dict(zip(inputs, found, strict=True))

    def inputs(self, record: Any) -> dict[str, Tensor]:
        """The trained fields that the method reads, as leaves of a graph."""
        names = (*self.kind.trained, *self.kind.beside)
        return {name: getattr(record, name).clone().requires_grad_() for name in names if hasattr(record, name)}

    def rewards(self, loss: Loss) -> dict[str, Tensor]:
        return {name: loss.rewards_in(name) for name in self.algorithm.reward_fields}

    def wanted(self, record: Any, name: str) -> Tensor:
        """The sign that ∂loss/∂field is to have: −1, 0 or 1 in each place."""
        if self.kind.slopes is not None:
            return self.kind.slopes(record, name)
        rejected = self.kind.rejected(record, name)
        return torch.where(rejected, int(self.uses_rejected), -1)

    @property
    def uses_rejected(self) -> bool:
        return isinstance(self.algorithm, OnlineAlgorithm) or self.algorithm.reads_rejected(self.parameters)

    @property
    def falls_with(self) -> FallsWith:
        return "sides" if isinstance(self.algorithm, OnlineAlgorithm) else self.algorithm.falls_with

    @property
    def bench(self) -> Bench:
        return bench(scalar_head=self.algorithm.kind == "reward")

    @contextmanager
    def fed(self) -> Iterator[tuple[Any, Feed | RolloutFeed]]:
        """The bench's model with the scorer that the method declares beside it, and its rows as training feeds them.

        A bias expert's noise is left out: no two passes share it.
        """
        model, rows, algorithm = self.bench.model, self.bench.rows, self.algorithm
        if isinstance(algorithm, OnlineAlgorithm):
            yield model, RolloutFeed(rows, self.bench.reference_model, critic=algorithm.critic)
            return
        feed = feed_of(algorithm, rows, self.bench.reference if algorithm.reference else None, self.parameters)
        declared = algorithm.beside(self.parameters)
        if declared is None:
            yield model, feed
            return
        with torch.random.fork_rng(devices=[]):
            attach(model, replace(declared, noise=0.0) if isinstance(declared, BiasExpert) else declared, seed=0)
        try:
            yield model, feed
        finally:
            del model.companion


def guarded(check: Callable[[Subject], Verdict], subject: Subject) -> Verdict:
    """The verdict, where a plugin may raise anything."""
    try:
        return check(subject)
    except AlignBenchError as error:
        return failed(error.message, error.fix or "see the contract in align_bench.api")
    except NotImplementedError as error:
        return failed(f"there is no loss yet: {error}", f"write it at {_place(error, subject.algorithm)}")
    except (Exception, SystemExit) as error:
        hint = f"see {_place(error, subject.algorithm)}"
        asked = error.name or "" if isinstance(error, AttributeError) else ""
        if asked == "margin":
            hint += "; to read the data's margin annotate the batch as a record with Margin in its name"
        if asked.startswith("ref_") and not subject.algorithm.reference:
            hint += "; to read the reference annotate the batch as a Referenced… record, or declare reference=True"
        return failed(f"raised {type(error).__name__}: {error}", hint)


def _place(error: BaseException, algorithm: Learner) -> str:
    """Where in the plugin's file the error comes from."""
    file = algorithm.function.__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1] if lines else algorithm.function.__code__.co_firstlineno}"


def shown(tensor: Tensor) -> str:
    """At most six numbers; one where all are the same."""
    numbers = [f"{value:.5g}" for value in tensor.detach().flatten().tolist()]
    if len(set(numbers)) == 1:
        return numbers[0]
    return f"[{', '.join(numbers[:6])}{', …' if len(numbers) > 6 else ''}]"
