"""What `--strict` refuses before anything is trained: prompts that are measured on and trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from align_bench.data.check_rows import with_prompts_of
from align_bench.errors import DataError

if TYPE_CHECKING:
    from align_bench.stages.rows import Rows

MEASURED = ("val", "test")


def refuse_shared_prompts(rows: Mapping[str, Rows]) -> None:
    """Refuse a suite whose `val` or `test` shares a prompt with `train` or with the rows of a judge.

    Args:
        rows: split → its rows, as `Inputs.rows`.

    Raises:
        DataError: it does; or rows cannot be read.
    """
    read = {split: own.read().rows for split, own in rows.items()}
    shared = [
        (split, other, with_prompts_of(read[split], read[other]))
        for split in MEASURED
        if split in read
        for other in read
        if other not in MEASURED
    ]
    said = [
        f"{len(found):,} of the {len(read[split]):,} rows of {split} share a prompt with {other} "
        f"(row {found[0].pair}, counted from 0, is the first)"
        for split, other, found in shared
        if found
    ]
    if said:
        raise DataError(
            "--strict: what is measured on was trained on: " + "; ".join(said) + ".",
            fix="part the rows by prompt: `prompts: [0, 0.9]` for one entry and `prompts: [0.9, 1]` for the other",
        )
