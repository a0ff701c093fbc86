"""A judge that was trained elsewhere, and how it is loaded; what the other models are is in `models`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from align_bench.records import TemplateInputs

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.models.precision import Precision
    from align_bench.records import Facts, Json
    from align_bench.stages.stage import Stage


@dataclass(frozen=True)
class Classifier:
    """A judge that is loaded as it is: a sequence-classification model.

    Attributes:
        base: the model on disk.
        precision: how it is stored and computed with.
        template: `chat`, `pair` or None for its own default.
        entry: the suite's entry.
        inputs: as of `Frozen`.
    """

    base: Base
    precision: Precision
    template: Any
    entry: Any = None
    inputs: TemplateInputs = field(default_factory=TemplateInputs)

    def needs(self) -> tuple[Stage[object], ...]:
        """Nothing: it is trained elsewhere."""
        return ()

    def identity(self) -> dict[str, Json]:
        """What decides its scores."""
        return {
            "model": self.base.digest,
            "template": self.template,
            "date": self.inputs.date,
            "precision": str(self.precision),
            **self.inputs.identity(),
        }

    def load(self) -> Any:
        """A `judge.loaded.LoadedModel`."""
        from align_bench.judge.loaded import load_judge

        return load_judge(self.base, self.precision, self.template, self.inputs)

    def facts(self, model: Any) -> Facts:
        """What a report shows of it; `model` is what `load` gave."""
        from align_bench.models.weights import weights_digest

        return {
            "model": self.base.name,
            "digest": self.base.digest,
            "weights_sha256": weights_digest(self.base.folder),
            "template": model.template,
            "labels": model.labels,
            "template_date": self.inputs.date,
            "chat_template_kwargs": self.inputs.kwargs,
        }
