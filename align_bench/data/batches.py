"""Which rows each optimizer step takes, and KTO's mismatched answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_bench.errors import DataError

if TYPE_CHECKING:
    from align_bench.records import TokenRow


def effective_batches(n_rows: int, batch_size: int, *, epochs: int, seed: int) -> list[list[int]]:
    """The rows of every optimizer step.

    Args:
        n_rows: rows in the table.
        batch_size: rows per step; the last step of an epoch takes what is left.
        epochs: passes over the table, each in an order of its own.
        seed: fixes all orders.

    Returns:
        Row numbers, a list per step. Every row occurs once per epoch.

    Raises:
        DataError: a number is below 1.
    """
    for name, value in {"n_rows": n_rows, "batch_size": batch_size, "epochs": epochs}.items():
        if value < 1:
            raise DataError(f"{name} is {value}; expected at least 1.")
    batches = []
    for epoch in range(epochs):
        order = list(range(n_rows))
        random.Random(f"batches/{seed}/{epoch}").shuffle(order)
        batches += [order[start : start + batch_size] for start in range(0, n_rows, batch_size)]
    return batches


def mismatched(rows: Sequence[TokenRow]) -> list[int]:
    """For each row the row whose answer stands in for an unrelated one in KTO's KL estimate.

    It is the next row, cyclically, with another prompt. Being fixed, its reference log-probabilities can be computed
    once, unlike those of a row drawn anew in each batch.

    Args:
        rows: the table's rows.

    Returns:
        A row number for each row.

    Raises:
        DataError: there is no other prompt.
    """
    count = len(rows)
    following = [rows[index].prompt != rows[(index + 1) % count].prompt for index in range(count)]
    if not any(following):
        raise DataError(
            f"all {count} rows have the same prompt, so no answer can be paired with another prompt.",
            fix="use data with at least two prompts, or a method that needs no mismatched answers",
        )
    last = following.index(True)
    found = [0] * count
    # From a row that another prompt follows, backwards: each row is its successor's match or follows its successor.
    for step in range(count):
        index = (last - step) % count
        following_row = (index + 1) % count
        found[index] = following_row if following[index] else found[following_row]
    return found
