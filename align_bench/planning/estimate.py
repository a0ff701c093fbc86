"""How long what is missing will take, roughly: tokens of each stage, and how fast they go through the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from align_bench.stages.holdout import HoldoutSplit
from align_bench.stages.stage import Size
from align_bench.stages.tokens import Tokens

if TYPE_CHECKING:
    from align_bench.planning.known import Known
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Stage

CHARACTERS_PER_TOKEN = 4
# Share of the matrix-product rate that whole passes were seen to reach.
UTILISATION = 0.3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds and operations of stages.

    Attributes:
        known: tells the sizes of tables that are tokenised already.
        parameters: weights of the base.
        rates: kind of an artefact → tokens per second, from what this suite's artefacts cost.
        flops_per_second: that a large matrix product reaches here; asked once, and only where no rate is known.
    """

    known: Known
    parameters: int
    rates: Mapping[str, float]
    flops_per_second: Callable[[], float]

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
        return self.flops(stage) / (self.flops_per_second() * UTILISATION)

    def size(self, table: Stage[object]) -> Size:
        """See `stages.stage.Sizes`."""
        if isinstance(table, HoldoutSplit):
            share = table.share if table.part == "val" else 1 - table.share
            whole = self.size(table.train)
            counts = (whole.rows, whole.tokens, whole.prompt_tokens, whole.prompts)
            return Size(*(int(share * count) for count in counts))
        assert isinstance(table, Tokens), "tables are tokenised data, or a part of such"
        facts = self.known.facts(table)
        return Size(**cast("Mapping[str, int]", facts["size"])) if facts else _from_texts(table.rows)

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        known = ", ".join(sorted(self.rates)) or "none yet"
        return (
            f"rough: tokens from characters / {CHARACTERS_PER_TOKEN} until rows are tokenised; seconds from the rates "
            f"of this suite's own work ({known}), else from a measured matrix product at {UTILISATION:.0%} utilisation"
        )


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
