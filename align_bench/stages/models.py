"""Which models stages want, and how each is loaded: a base, or a base with an adapter; see also `classifier`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from align_bench.records import TemplateInputs

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.records import Json
    from align_bench.stages.classifier import Classifier
    from align_bench.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class Frozen:
    """A suite's base, as it is stored and computed with.

    Attributes:
        base: the model on disk.
        precision: how it is stored and computed with.
        inputs: what its chat template reads beside the turns.
    """

    base: Base
    precision: Precision
    inputs: TemplateInputs = field(default_factory=TemplateInputs)

    def identity(self) -> dict[str, Json]:
        """What decides its numbers: weights, configuration, tokenizer and template; storage, compute type, device."""
        return {"digest": self.base.digest, "precision": str(self.precision)}

    def load(self, *, scalar: bool) -> Any:
        """The frozen causal language model; with `scalar`, the frozen backbone under a scalar head."""
        from align_bench.models.load import load_policy, load_scorer

        return (load_scorer if scalar else load_policy)(self.base, self.precision)

    def tokenizer(self) -> Any:
        """The base's own tokenizer, with the inputs of its chat template."""
        from align_bench.models.tokenizer import load_tokenizer

        return load_tokenizer(self.base, self.inputs)


@dataclass(frozen=True)
class Policy:
    """The base, or a policy trained on it.

    Attributes:
        frozen: the base.
        adapter: the stage that trains the adapter; None for the base alone.
    """

    frozen: Frozen
    adapter: Stage[object] | None = None

    @property
    def precision(self) -> Precision:
        """How it is stored and computed with."""
        return self.frozen.precision

    @property
    def base_key(self) -> tuple[str, str, bool]:
        """What it shares with others: the frozen base, and whether it has a scalar head."""
        return self.frozen.base.digest, str(self.frozen.precision), False

    def needs(self) -> tuple[Stage[object], ...]:
        """The stages whose artefacts it is loaded from."""
        return (self.adapter,) if self.adapter else ()

    def identity(self) -> dict[str, Json]:
        """All else that it depends on."""
        return self.frozen.identity()

    def complete(self, base: Any, adapter: Path | None) -> Any:
        """The model, of the frozen base and the adapter's folder."""
        from align_bench.models.load import load_adapter

        return base if adapter is None else load_adapter(base, adapter)


@dataclass(frozen=True)
class RewardModel:
    """A reward model trained here.

    Attributes:
        frozen: the base.
        adapter: the stage that trains adapter and head.
        seed: of the head that it started from.
        max_length: tokens of prompt + answer, as in training.
    """

    frozen: Frozen
    adapter: Stage[object]
    seed: int
    max_length: int

    @property
    def precision(self) -> Precision:
        """How it is stored and computed with."""
        return self.frozen.precision

    @property
    def base_key(self) -> tuple[str, str, bool]:
        """As `Policy.base_key`."""
        return self.frozen.base.digest, str(self.frozen.precision), True

    def needs(self) -> tuple[Stage[object], ...]:
        """The stage that trains it."""
        return (self.adapter,)

    def identity(self) -> dict[str, Json]:
        """All else that it depends on."""
        return self.frozen.identity() | {"max_length": self.max_length}

    def complete(self, base: Any, adapter: Path | None) -> Any:
        """The model, of the frozen base under its head and the adapter's folder."""
        from align_bench.models.load import draw_head, load_adapter

        assert adapter is not None, "a reward model is trained"
        return load_adapter(draw_head(base, seed=self.seed), adapter)

    def load(self, adapter: Path) -> Any:
        """The whole model, apart from what the executor holds."""
        from align_bench.models.load import load_adapter, load_scorer

        return load_adapter(load_scorer(self.frozen.base, self.frozen.precision, seed=self.seed), adapter)


ModelKey: TypeAlias = "Policy | RewardModel | Classifier"
