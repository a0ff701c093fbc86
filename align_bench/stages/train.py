"""A method's adapter, trained by its loss on given answers; what all ways of training share."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from align_bench.api import OfflineAlgorithm
from align_bench.stages.columns import Measured, as_tensors
from align_bench.stages.models import Frozen, ModelKey, Policy, RewardModel
from align_bench.stages.stage import Desk, Made, Sizes, Stage, Work

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.api import Algorithm
    from align_bench.models.exported import Exported
    from align_bench.plugins.registry import Plugin
    from align_bench.records import Json, Parameters, TokenTable
    from align_bench.store.store import Artefact
    from align_bench.suite.models import Lora
    from align_bench.suite.models import Train as Settings
    from align_bench.train.job import TrainingJob, TrainLog

A = TypeVar("A", bound="Algorithm")
LOG = "log.jsonl"
# What changes no result: where a training goes on after a kill. Lengths are the table's. How many processes share a
# training is said by what can be shared.
WITHOUT_EFFECT = frozenset({"checkpoint_minutes", "max_length", "processes"})
# Passes of a training beside those of all answers once forward and backward, by what a method reads. Mismatched answers
# pass forward only: half of a training pass. Chosen answers are half of all.
PASSES = {"unpaired": 1.5, "chosen": 0.5}


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained(Stage["list[Mapping[str, float]]"]):
    """A trained adapter, and a log of every optimizer step. Loads as the log.

    Attributes:
        plugin: the method.
        parameters: all its hyper-parameters.
        learning_rate: peak learning rate.
        seed: of initialisation, row order and sampling.
        frozen: the base.
        lora: the adapter's shape.
        settings: the suite's `train`, with what the method sets for itself.
        table: the rows.
        start: the policy whose weights it begins with; None for the untrained base.
        reference_policy: what a method with a reference is held to, where it has a start: that start, or the base.
    """

    plugin: Plugin
    parameters: Parameters
    learning_rate: float
    seed: int
    frozen: Frozen
    lora: Lora
    settings: Settings
    table: Stage[TokenTable]
    start: Policy | None = None
    reference_policy: Literal["start", "base"] = "start"
    kind = "adapter"
    label = "train"
    column = "train"

    @property
    def scalar(self) -> bool:
        """Whether a scalar head is trained with the adapter."""
        return self.plugin.algorithm.kind == "reward"

    @property
    def model(self) -> Policy | RewardModel:
        """The trained model."""
        if self.scalar:
            return RewardModel(self.frozen, self, self.seed, self.settings.max_length)
        return Policy(self.frozen, self)

    def needs(self) -> tuple[Stage[object], ...]:
        return self.table, *self.started

    @property
    def started(self) -> tuple[Stage[object], ...]:
        """What made the adapter that it begins with; nothing where it begins with a fresh one."""
        return self.start.needs() if self.start else ()

    @property
    def reference_adapter(self) -> Stage[object] | None:
        """The adapter of its reference; None where that is the model with its adapter off."""
        return self.start.adapter if self.start and self.reference_policy == "start" else None

    def identity(self) -> dict[str, Json]:
        """A start is in the key by what it needs, or, as a whole model, as the base."""
        reference: dict[str, Json] = {"reference_policy": "base"} if self.reference_policy == "base" else {}
        return reference | {
            "base": self.frozen.identity(),
            "plugin": self.plugin.digest,
            "method": self.plugin.algorithm.name,
            "parameters": dict(self.parameters),
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "lora": self.lora.model_dump(),
            "train": self.settings.model_dump(exclude=set(WITHOUT_EFFECT)),
        }

    def models(self) -> tuple[ModelKey, ...]:
        """The frozen base, as the trained model stands on it."""
        return (self.model,)

    @property
    def passes(self) -> float:
        """How often all answers pass the model per epoch, forward and backward; forward alone is half of that."""
        return PASSES.get(self.plugin.algorithm.data, 1)

    @property
    def flops_per_weight(self) -> int:
        """Forward, and backward through a frozen base; forward once more where activations are not kept."""
        return 6 if self.settings.activation_checkpointing else 4

    def estimate(self, sizes: Sizes) -> Work:
        return Work(int(sizes(self.table).tokens * self.settings.epochs * self.passes), self.flops_per_weight)

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.models.exported import write_note
        from align_bench.models.load import footprint, save_adapter

        model = self.begun(desk)
        trainable = footprint(model).trainable
        desk.loaded(self.frozen, model)
        log = self.fit(model, desk)
        save_adapter(model, folder)
        write_note(folder, self.note())
        self.leave(model, desk)
        (folder / LOG).write_text("".join(json.dumps(step) + "\n" for step in log.steps), encoding="utf-8")
        return Made(log.tokens, {"steps": len(log.steps), "trainable": trainable})

    def begun(self, desk: Desk) -> Any:
        """The model as its training begins: the base under a fresh adapter, or under that of its start."""
        from align_bench.models.load import add_adapter
        from align_bench.models.start import begin_with

        base = desk.untrained(self.frozen, scalar=self.scalar, seed=self.seed)
        model = add_adapter(base, self.lora, seed=self.seed)
        for start in self.started:
            begin_with(model, desk.adapter(start))
        return model

    def note(self) -> Exported:
        """What its folder says of it, so that it can be a base or a judge as it lies there."""
        from align_bench.models.exported import Exported

        return Exported(
            kind="reward" if self.scalar else "policy",
            form="adapter",
            base=self.frozen.base.place,
            base_digest=self.frozen.base.digest,
            storage=cast("Literal['nf4', 'bf16', 'fp32']", self.frozen.precision.storage),
            dtype=self.frozen.precision.compute,
            max_length=self.settings.max_length,
        )

    @abstractmethod
    def fit(self, model: Any, desk: Desk) -> TrainLog:
        """Train the model's adapter in place."""

    @property
    def scoring_tokens(self) -> int:
        """Tokens of a pass of what scores its answers as it trains."""
        from align_bench.models.micro_batches import scoring_tokens

        return scoring_tokens(self.settings.micro_batch_tokens, self.frozen.precision.device)

    def leave(self, model: Any, desk: Desk) -> None:
        """Give the base back, for the next one that stands on it."""
        from align_bench.models.load import without_adapter

        desk.give_back(self.frozen, without_adapter(model), scalar=self.scalar)

    def job(self, model: Any, desk: Desk, kind: type[A]) -> TrainingJob[A]:
        """The training, as every loop takes it, of a method of that kind."""
        from align_bench.train.job import TrainingJob

        algorithm = self.plugin.algorithm
        assert isinstance(algorithm, kind), "the layout chose this stage by the method's kind"
        return TrainingJob(
            model=model,
            rows=desk.load(self.table).rows,
            algorithm=algorithm,
            parameters=self.parameters,
            learning_rate=self.learning_rate,
            settings=self.settings,
            seed=self.seed,
            checkpoint=desk.partial(self) / "checkpoint.pt",
            reference=desk.adapter(self.reference_adapter) if self.reference_adapter else None,
            update=desk.update,
            log=desk.log_step,
            say=desk.say,
        )

    def load(self, artefact: Artefact) -> list[Mapping[str, float]]:
        """A mapping for each optimizer step."""
        text = (artefact / LOG).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]


@dataclass(frozen=True, kw_only=True, eq=False)
class Train(Trained):
    """An adapter trained by a loss on given answers.

    Attributes:
        reference: the reference's log-probabilities of the rows; None when the loss reads none.
        mismatched: the same of the rows with another row's answers; None when the loss reads none.
        prefixes: the same of each answer's first tokens; None when the loss reads none.
    """

    reference: Measured | None = None
    mismatched: Measured | None = None
    prefixes: Measured | None = None

    @property
    def _known(self) -> tuple[Measured, ...]:
        """What the base says of the rows."""
        return tuple(one for one in (self.reference, self.mismatched, self.prefixes) if one is not None)

    @property
    def passes(self) -> float:
        """Beside the answers themselves, mismatched ones, the whole batch where it is read, and a moving reference.

        How many steps come before its first move is not known here: each step counts as if it had moved.
        """
        algorithm = self.plugin.algorithm
        assert isinstance(algorithm, OfflineAlgorithm), "the layout chose this stage by the method's kind"
        own = PASSES["chosen"] if algorithm.data == "chosen" else 1
        moves = algorithm.moving_reference is not None
        mismatched = (1 + moves) * algorithm.reading.mismatched
        return own + 0.5 * (mismatched + algorithm.reading.batch + own * moves)

    @property
    def processes(self) -> int:
        return self.settings.processes

    def needs(self) -> tuple[Stage[object], ...]:
        return (self.table, *self._known, *self.started)

    def identity(self) -> dict[str, Json]:
        """Several processes sum in another order than one, and so round otherwise."""
        shared: dict[str, Json] = {"processes": self.processes} if self.processes > 1 else {}
        return super().identity() | shared

    def run(self, desk: Desk, folder: Path) -> Made:
        algorithm = self.plugin.algorithm
        if isinstance(algorithm, OfflineAlgorithm) and algorithm.reading.margin:  # before a model is loaded
            from align_bench.train.feeds import margins_of

            margins_of(desk.load(self.table).rows, algorithm.name, self.table.owner)
        return super().run(desk, folder)

    def assist(self, desk: Desk) -> None:
        """Train a model of its own, step by step the same; nothing of it is kept."""
        self.fit(self.begun(desk), desk)

    def fit(self, model: Any, desk: Desk) -> TrainLog:
        from align_bench.train.loop import train

        columns = [desk.load(measured) for measured in self._known]
        reference = {name: tensor for some in columns for name, tensor in as_tensors(some).items()}
        return train(self.job(model, desk, OfflineAlgorithm), reference or None, desk.group())
