"""How long what is missing will take, roughly: tokens of each stage, and how fast they go through the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from align_bench.stages.holdout import HoldoutSplit
from align_bench.stages.stage import Size
from align_bench.stages.tokens import Tokens

if TYPE_CHECKING:
    from align_bench.planning.known import Known
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Stage

CHARACTERS_PER_TOKEN = 4
# Operations per second, as a share of a large matrix product's: seen on a CPU of two cores (0.46 with the embedded
# model, 1.1 with SmolLM2-135M, whose common prompts pass once and are counted twice here), and on an H200 (0.016 with
# the latter, whose kernels are too small for a GPU; a model of billions fills it).
_CPU, _GPU, FULL_GPU_PARAMETERS = 0.7, 0.3, 2.5e9
OFF_BY = 3  # by what factor times that rest on it may be wrong


def utilisation(device: str, parameters: int) -> float:
    """The share of a matrix product's rate that whole passes are expected to reach, before any was measured."""
    return _CPU if device == "cpu" else _GPU * min(1.0, parameters / FULL_GPU_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds and operations of stages.

    Attributes:
        known: tells the sizes of tables that are tokenised already.
        parameters: weights of the base.
        rates: kind of an artefact → tokens per second, from what this suite's artefacts cost.
        flops_per_second: that a large matrix product reaches here; asked once, and only where no rate is known.
        device: what computes.
        sizes: of tables that are not tokenised yet, from a sample of their rows.
    """

    known: Known
    parameters: int
    rates: Mapping[str, float]
    flops_per_second: Callable[[], float]
    device: str = "cpu"
    sizes: Mapping[Stage[object], Size] = field(default_factory=dict)

    def flops(self, stage: Stage[object]) -> float:
        """Floating-point operations of a stage."""
        work = stage.estimate(self.size)
        return float(work.tokens * work.flops_per_weight * self.parameters)

    def seconds(self, stage: Stage[object]) -> float:
        """Seconds of a stage; 0 for what brings nothing through a model."""
        work = stage.estimate(self.size)
        if not work.tokens:
            return 0.0
        if stage.kind in self.rates:
            return work.tokens / self.rates[stage.kind]
        return self.flops(stage) / (self.flops_per_second() * utilisation(self.device, self.parameters))

    def size(self, table: Stage[object]) -> Size:
        """See `stages.stage.Sizes`."""
        if isinstance(table, HoldoutSplit):
            share = table.share if table.part == "val" else 1 - table.share
            whole = self.size(table.train)
            counts = (whole.rows, whole.tokens, whole.prompt_tokens, whole.prompts)
            return Size(*(int(share * count) for count in counts))
        assert isinstance(table, Tokens), "tables are tokenised data, or a part of such"
        facts = self.known.facts(table)
        if facts:
            return Size(**cast("Mapping[str, int]", facts["size"]))
        return self.sizes[table] if table in self.sizes else _from_texts(table.rows)

    def basis(self, missing: Collection[Stage[object]]) -> str:
        """What the times of stages rest on, in words."""
        kinds = {stage.kind for stage in missing if stage.estimate(self.size).tokens}
        measured, unmeasured = sorted(kinds & self.rates.keys()), sorted(kinds - self.rates.keys())
        parts = [f"measured here, in this suite's own work, for {', '.join(measured)}"] if measured else []
        if unmeasured:
            parts.append(
                f"not measured yet for {', '.join(unmeasured)}: by the speed of a matrix product here, may be off by a "
                f"factor of {OFF_BY}; `run` corrects it from the first steps on"
            )
        return f"times: {'; '.join(parts) or 'no work is left'}"


_SIZES: dict[str, Size] = {}


def _from_texts(rows: Rows) -> Size:
    """A table's size from its texts, which are read once per process."""
    if rows.fingerprint not in _SIZES:
        prompts = answers = 0
        found = rows.read().rows
        for row in found:
            prompt = sum(len(message.content) for message in row.prompt)
            given = [answer for answer in (row.chosen, row.rejected) if answer is not None]
            prompts += prompt
            answers += len(given) * prompt + sum(map(len, given))
        _SIZES[rows.fingerprint] = Size(
            rows=len(found),
            tokens=answers // CHARACTERS_PER_TOKEN,
            prompt_tokens=prompts // CHARACTERS_PER_TOKEN,
            prompts=len({row.prompt for row in found}),
        )
    return _SIZES[rows.fingerprint]
