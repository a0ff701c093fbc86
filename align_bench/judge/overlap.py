"""How far a judge's training rows are also the policies'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_bench.records import TokenRow


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a judge's training rows have in common with those of the policies, by content.

    Attributes:
        rows: the judge's rows.
        same_rows: those that stand among the policies' rows too, prompt and answers, whichever answer is preferred.
        same_prompts: those whose prompt stands there, the former included.
    """

    rows: int
    same_rows: int
    same_prompts: int


def overlap(judge: Sequence[TokenRow], train: Sequence[TokenRow]) -> Overlap:
    """Compare rows as token ids, so that what the model reads decides and not how a file writes it."""
    rows, prompts = {_content(row) for row in train}, {row.prompt for row in train}
    return Overlap(len(judge), sum(_content(row) in rows for row in judge), sum(row.prompt in prompts for row in judge))


def _content(row: TokenRow) -> tuple[tuple[int, ...], frozenset[tuple[int, ...] | None]]:
    return row.prompt, frozenset({row.chosen, row.rejected})


def describe(name: str, found: Overlap) -> str | None:
    """A warning; None where nothing is shared."""
    if not found.same_prompts:
        return None
    return (
        f"judge {name}: {found.same_rows:,} of its {found.rows:,} training rows are also training rows of the policies "
        f"(same prompt and answers), and {found.same_prompts:,} have a prompt that the policies train on; on what both "
        "were trained on, its scores are not independent. Give it rows of its own"
    )
