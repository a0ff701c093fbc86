"""Which rows go through the model together: micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from align_bench.errors import DataError

# Here a pass of a thousand tokens is as fast a token as one of eight thousand, which keeps eight times the activations.
ENOUGH_FOR_A_CPU = 1024


def micro_batches(
    indices: Iterable[int], lengths: Sequence[int], *, max_tokens: int, device: str = "cpu"
) -> list[list[int]]:
    """Split one effective batch into parts that fit in memory.

    Args:
        indices: rows of the batch.
        lengths: length in tokens of every row of the table, looked up by row number.
        max_tokens: bound of a part's padded size, rows × longest row, in tokens. A longer row goes alone. A part that
            is half full already takes no row that would be padded by more than a quarter of its length.
        device: type of the device that the parts go through. On `cpu` the bound is never above `ENOUGH_FOR_A_CPU`; on
            any other a small pass takes as long as its thousands of kernels take to start.

    Returns:
        Row numbers, longest part first, so that a part that does not fit fails at once.

    Raises:
        DataError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise DataError(f"max_tokens is {max_tokens}; expected at least 1.")
    if device == "cpu":
        max_tokens = min(max_tokens, ENOUGH_FOR_A_CPU)
    parts: list[list[int]] = []
    for index in sorted(indices, key=lambda index: (-lengths[index], index)):
        rows, longest = (len(parts[-1]), lengths[parts[-1][0]]) if parts else (0, 0)
        worth_its_padding = longest <= 1.25 * lengths[index] or 2 * rows * longest < max_tokens
        if rows and worth_its_padding and (rows + 1) * longest <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts
