"""A check of the training loop itself, on a few steps of a small model."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from align_bench.api import Batch, OfflineAlgorithm
from align_bench.api.batches import OF_THE_BATCH, fields_of
from align_bench.data.batches import effective_batches
from align_bench.models.layout import training_passes
from align_bench.models.load import add_adapter
from align_bench.records import Scalar
from align_bench.suite.models import Lora, Train
from align_bench.testing.subject import Subject, Verdict, failed, not_applicable, passed, shown
from align_bench.train.feeds import feed_of
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

_EVERY, _STEPS, _KILLED_AFTER = 2, 6, 3
_MAX_TOKENS = 64  # of a micro-batch: several to a step

Known = Mapping[str, Tensor]  # what a reference says of one batch: field of the record → values


def moving_reference(subject: Subject) -> Verdict:
    """Whether the reference is the policy as it was when it last moved, whether or not the training was killed.

    It is a training of six steps in which the reference moves after every two, whatever the method declares.
    """
    algorithm = subject.algorithm
    if not isinstance(algorithm, OfflineAlgorithm) or (declared := algorithm.sync_steps(subject.parameters)) is None:
        return not_applicable("its reference does not move")
    short = replace(algorithm, moving_reference=lambda: _EVERY)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        straight = _trained(subject, short)
        killed = _trained(subject, short, checkpoint, killed_after=_KILLED_AFTER)
        resumed = _trained(subject, short, checkpoint)
        moves = [(step - 1) // _EVERY * _EVERY for step in range(1, _STEPS + 1)]
        wanted = [
            _expected(subject, short, step, straight.models.get(moved)) for step, moved in enumerate(moves, start=1)
        ]
        for how, references in {
            "": straight.references,
            f", killed after step {_KILLED_AFTER} and resumed": (*killed.references, *resumed.references),
        }.items():
            for step, (found, expected, moved) in enumerate(zip(references, wanted, moves, strict=False), start=1):
                for name, values in found.items():
                    if not torch.allclose(values, expected[name], rtol=1e-4, atol=1e-4):
                        said_by = f"the policy after step {moved}" if moved else "the stored reference"
                        return failed(
                            f"at step {step}{how}, {name} is {shown(values)}, expected {shown(expected[name])}, as "
                            f"{said_by} says: it is to move every {_EVERY} steps here",
                            "this is the benchmark's part, not the plugin's: please report it",
                        )
    return passed(
        f"moves every {declared} steps; where it does every {_EVERY}, {_STEPS} steps are held to the policy of its "
        f"last move, killed after step {_KILLED_AFTER} and resumed or not"
    )


@dataclass(frozen=True, slots=True)
class _Trained:
    """What was seen of a training.

    Attributes:
        references: what its loss read of the reference, by step.
        models: copies of the model after the steps at which the reference moves.
    """

    references: list[Known]
    models: dict[int, Any]


class _KilledError(Exception):
    """Ends the training that is resumed."""


def _trained(
    subject: Subject, algorithm: OfflineAlgorithm, checkpoint: Path | None = None, *, killed_after: int = _STEPS
) -> _Trained:
    """The steps of a training that begins, or goes on from its checkpoint, and is killed after that step."""
    seen, read = _Trained([], {}), list[Known]()
    model = add_adapter(copy.deepcopy(subject.bench.model), Lora(r=2, alpha=4), seed=0)

    def watched(batch: Batch, **parameters: Scalar) -> object:
        read.append(_reference_in(batch))
        return algorithm.function(batch, **parameters)

    def after(done: int, total: int, note: str = "") -> None:
        if done > killed_after:
            raise _KilledError
        seen.references.append(_joined(read))
        if done % _EVERY == 0:
            seen.models[done] = copy.deepcopy(model).eval()
        read.clear()

    job = TrainingJob(
        model=model,
        rows=subject.bench.rows,
        algorithm=replace(algorithm, function=watched),
        parameters=subject.parameters,
        learning_rate=1e-2,
        settings=_settings(subject, algorithm),
        seed=0,
        checkpoint=checkpoint,
        update=after,
    )
    with contextlib.suppress(_KilledError):
        train(job, subject.bench.reference)
    return seen


def _settings(subject: Subject, algorithm: OfflineAlgorithm) -> Train:
    """Two steps to an epoch, each with a checkpoint."""
    examples = len(feed_of(algorithm, subject.bench.rows, subject.bench.reference).lengths)
    return Train(
        epochs=_STEPS // 2,
        batch_size=examples // 2,
        micro_batch_tokens=_MAX_TOKENS,
        warmup=0.0,
        checkpoint_minutes=1e-9,
    )


def _expected(subject: Subject, algorithm: OfflineAlgorithm, step: int, model: Any) -> Known:
    """What that model says of the batch of a step; what is stored of the reference where there is no model."""
    feed = feed_of(algorithm, subject.bench.rows, subject.bench.reference, subject.parameters)
    settings = _settings(subject, algorithm)
    batches = effective_batches(len(feed.lengths), settings.batch_size, epochs=settings.epochs, seed=0)
    batch, policy = batches[step - 1], subject.bench.model if model is None else model
    with torch.no_grad():
        feed.begin(policy, batch, _MAX_TOKENS)
        parts = training_passes(policy, batch, feed.lengths, max_tokens=_MAX_TOKENS)
        records = [feed.record(policy, part) for part in parts]
    if model is None:
        return _joined([_reference_in(record) for record in records])
    return _joined(
        [
            {name: cast("Tensor", getattr(one, name.removeprefix("ref_"))) for name in _reference_in(one)}
            for one in records
        ]
    )


def _reference_in(record: Batch) -> Known:
    return {
        name: value
        for name, value in fields_of(record).items()
        if name.startswith("ref_") and isinstance(value, Tensor)
    }


def _joined(parts: Sequence[Known]) -> Known:
    """The values of all rows, from those of micro-batches; what is the whole batch's is in each."""
    return {
        name: first if name in OF_THE_BATCH else torch.cat([part[name] for part in parts])
        for name, first in parts[0].items()
    }
