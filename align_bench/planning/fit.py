"""Whether cells fit into a device's memory, and settings with which they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.models.base import base_parameters
from align_bench.models.micro_batches import training_tokens
from align_bench.planning.hardware import GPUS
from align_bench.planning.memory import ROOM, expected_memory

if TYPE_CHECKING:
    from align_bench.models.precision import Precision
    from align_bench.planning.cells import Cell
    from align_bench.planning.hardware import Device
    from align_bench.planning.inputs import Prepared
    from align_bench.stages.stage import Sizes
    from align_bench.suite.models import Suite


@dataclass(frozen=True, slots=True)
class Peak:
    """The memory of a cell at its peak, in bytes.

    Attributes:
        training: while it trains; 0 where it trains nothing.
        answering: while it writes answers, or holds a model that scores; 0 where it does neither.
    """

    training: float = 0.0
    answering: float = 0.0

    @property
    def bytes(self) -> float:
        """The higher of the two."""
        return max(self.training, self.answering)


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the memory of a suite's cells follows from, beside its settings.

    Attributes:
        prepared: the suite with its base.
        parameters: weights of the base.
        sizes: how large its tables are.
        prompt: tokens of a validation prompt, its 95th percentile.
        resolve: what `precision:` means on the device.
    """

    prepared: Prepared
    parameters: int
    sizes: Sizes
    prompt: int
    resolve: Callable[[str], Precision]

    def peak(self, cell: Cell, suite: Suite) -> Peak | None:
        """The memory of a cell under settings that may differ from those of its stages.

        Args:
            cell: the cell.
            suite: the settings.

        Returns:
            None for a model whose shape is not known, such as a GGUF file.
        """
        precision = self.resolve(suite.precision)
        if cell.loaded is not None:  # no settings of the suite change how a judge that is loaded is stored
            judge = cell.loaded.base
            found = expected_memory(suite, judge, base_parameters(judge), precision, (1, 1))
            return None if found is None else Peak(answering=found.weights)
        base, trained = self.prepared.inputs.frozen.base, cell.adapter
        batch, scores = 1, False
        if trained is not None:
            scores = trained.plugin.algorithm.kind == "reward"
            size = self.sizes(trained.table)
            memory = suite.train.model_dump(include={"micro_batch_tokens", "activation_checkpointing"})
            # Both answers of a pair stand behind one prompt.
            twice = size.prompt_tokens if trained.plugin.algorithm.data in ("pairs", "scores") else 0
            batch = trained.settings.batch_size * (size.tokens - twice) // max(1, size.rows)
            suite = suite.model_copy(update={"train": trained.settings.model_copy(update=memory)})
        found = expected_memory(suite, base, self.parameters, precision, (batch, self.prompt), scores=scores)
        if found is None:
            return None
        # What learns from a reward model holds that one, too, on a base of its own.
        beside = found.weights if trained is not None and len(trained.models()) > 1 else 0.0
        return Peak(
            training=found.training + beside if trained is not None else 0.0,
            answering=found.answering if cell.answers is not None else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """Settings with which all cells fit.

    Attributes:
        settings: key → value, as `--set` takes them.
        bytes: the highest peak of all cells with these.
    """

    settings: Mapping[str, str]
    bytes: float

    def line(self) -> str:
        """As it is typed."""
        return " ".join(f"--set {key}={value}" for key, value in self.settings.items())


def fits(peak: Peak | None, device: Device) -> bool:
    """Whether a peak leaves room for what torch keeps and does not use; one that is not known is not refused."""
    return peak is None or peak.bytes * ROOM <= device.memory


def proposal(cells: tuple[Cell, ...], shapes: Shapes, device: Device) -> Proposal | None:
    """The largest micro-batch and batch of answers, halved again and again, with which all cells fit.

    Activation checkpointing comes after that, and NF4 last. None where nothing of this is enough.
    """
    suite = shapes.prepared.suite
    packed = shapes.resolve(suite.precision).storage == "nf4"
    for start in (suite, *([] if packed else [suite.model_copy(update={"precision": "nf4"})])):
        for smaller in _halved(start, cells, shapes, device):
            peaks = [shapes.peak(cell, smaller) for cell in cells]
            if all(fits(peak, device) for peak in peaks):
                return Proposal(_changes(suite, smaller), max(peak.bytes for peak in peaks if peak is not None))
    return None


def _halved(suite: Suite, cells: tuple[Cell, ...], shapes: Shapes, device: Device) -> Iterator[Suite]:
    """The suite, and smaller ones: each time that of the two settings is halved which a cell does not fit with."""
    yield suite
    train, generate = suite.train, suite.generate
    while True:
        peaks = [peak for cell in cells if (peak := shapes.peak(cell, suite)) is not None]
        too_long = any(peak.training * ROOM > device.memory for peak in peaks)
        too_many = any(peak.answering * ROOM > device.memory for peak in peaks)
        tokens = training_tokens(train.micro_batch_tokens, shapes.resolve(suite.precision).device)
        if too_long and tokens > train.max_length:  # a row that is longer goes alone
            micro = max(train.max_length, tokens // 2)
            train = train.model_copy(update={"micro_batch_tokens": micro})
        elif too_long and not train.activation_checkpointing:
            train = train.model_copy(update={"activation_checkpointing": True})
        elif too_many and generate.batch_size > 1:
            generate = generate.model_copy(update={"batch_size": generate.batch_size // 2})
        else:
            return
        suite = suite.model_copy(update={"train": train, "generate": generate})
        yield suite


def _changes(suite: Suite, smaller: Suite) -> dict[str, str]:
    found = {
        "precision": (suite.precision, smaller.precision),
        "train.micro_batch_tokens": (suite.train.micro_batch_tokens, smaller.train.micro_batch_tokens),
        "train.activation_checkpointing": (
            suite.train.activation_checkpointing,
            smaller.train.activation_checkpointing,
        ),
        "generate.batch_size": (suite.generate.batch_size, smaller.generate.batch_size),
    }
    return {key: str(after).lower() for key, (before, after) in found.items() if before != after}


def roomy(bytes_: float) -> list[str]:
    """The known GPUs that have room for a peak, the smallest first."""
    found = sorted(GPUS.values(), key=lambda device: device.memory)
    return [device.name for device in found if fits(Peak(training=bytes_), device)]
