"""Split training rows by prompt: what trials train on, and the pairs that they are measured on."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from align_bench.errors import DataError
from align_bench.records import TokenRow


def split_holdout(
    rows: Sequence[TokenRow], excluded: Collection[tuple[int, ...]], *, share: float, seed: int
) -> tuple[list[TokenRow], list[TokenRow]]:
    """Split training rows by prompt.

    Args:
        rows: the tokenised training rows.
        excluded: prompts that are never held out, which are those of val.
        share: which share of the other prompts is held out.
        seed: what picks them.

    Returns:
        Rows to train on, and held-out rows with both answers. No prompt is in both.

    Raises:
        DataError: when one of them would be empty.
    """
    known = set(excluded)
    prompts = [prompt for prompt in dict.fromkeys(row.prompt for row in rows) if prompt not in known]
    random.Random(f"tune/{seed}").shuffle(prompts)
    held = set(prompts[: max(1, round(share * len(prompts)))])
    kept = [row for row in rows if row.prompt not in held]
    pairs = [row for row in rows if row.prompt in held and row.chosen is not None and row.rejected is not None]
    if not kept or not pairs:
        raise DataError(
            f"tune.holdout={share:g} of {len(prompts)} prompts of data.train that are not in data.val leaves "
            f"{len(kept)} rows to train on and {len(pairs)} pairs to measure on, expected some of both",
            fix="use more training pairs or another tune.holdout, or leave tune out",
        )
    return kept, pairs
