"""Token rows in Arrow: the rows that went in, made when they are asked for, at four bytes per token."""

from __future__ import annotations

import random
import tracemalloc

import pyarrow
import pytest

from align_bench.data.token_rows import RowBatch, TokenRows, joined
from align_bench.records import TokenRow

ROWS = [
    TokenRow(3, (1, 2, 100_000), (4,), (5, 6), 1),
    TokenRow(5, (7,), None, (8, 9, 10)),
    TokenRow(6, (7, 300), (1,), None, 2),
    TokenRow(7, (7, 301), (1,), (2,), None, 2.5),
    TokenRow(9, (8,), (), (1,), None),
]


def test_rows_come_back() -> None:
    rows = TokenRows.of(ROWS)
    assert list(rows) == ROWS
    assert [rows[place] for place in range(-5, 5)] == [*ROWS, *ROWS]
    assert rows == ROWS
    assert tuple(ROWS) == rows
    assert rows != ROWS[:4]
    assert rows != [*ROWS[:4], ROWS[0]]
    assert TokenRows.of(rows) is rows
    assert all(type(token) is int for row in rows for token in row.prompt)
    assert type(rows[0].pair) is type(rows[0].gold_choice) is int
    assert type(rows[3].margin) is float
    assert rows[0].margin is None


@pytest.mark.parametrize(
    "place", [slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(2, 2), slice(-3, 99)]
)
def test_slices_are_rows_as_well(place: slice) -> None:
    found = TokenRows.of(ROWS)[place]
    assert isinstance(found, TokenRows)
    assert list(found) == ROWS[place]
    assert list(found[1:]) == ROWS[place][1:]


@pytest.mark.parametrize("place", [5, -6])
def test_there_is_no_row_beyond_the_last(place: int) -> None:
    with pytest.raises(IndexError, match="of 5"):
        TokenRows.of(ROWS)[place]


def test_no_rows() -> None:
    assert len(TokenRows.of([])) == 0
    assert list(joined([])) == []
    assert TokenRows.of([]) == ()


def test_memory_is_four_bytes_per_token() -> None:
    rng = random.Random(0)
    tracemalloc.start()
    before, arrow = tracemalloc.get_traced_memory()[0], pyarrow.total_allocated_bytes()
    tables = []
    for start in range(0, 4000, 200):
        batch = RowBatch()
        for pair in range(start, start + 200):
            prompt, chosen, rejected = ([rng.randrange(300, 50_000) for _ in range(80)] for _ in range(3))
            batch.append(pair, prompt, chosen, rejected)
        tables.append(batch.table())
    rows = joined(tables)
    del tables, batch, prompt, chosen, rejected
    sum(len(row.prompt) for row in rows)
    python = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    tokens = 4000 * 3 * 80
    assert pyarrow.total_allocated_bytes() - arrow < 5 * tokens
    assert python < 0.2 * tokens
