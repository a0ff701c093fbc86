"""Token rows in Arrow: the rows that went in, made when they are asked for, at four bytes per token."""

from __future__ import annotations

import random
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow
import pytest

from align_bench.data import token_rows
from align_bench.data.token_rows import RowBatch, TokenRows, joined, load_table, save_table
from align_bench.errors import DataError
from align_bench.records import TokenRow, TokenTable
from align_bench.train.feeds import PairFeed

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


def test_what_is_counted_without_making_rows() -> None:
    rows = TokenRows.of([*ROWS, TokenRow(11, (7,), (1,), None)])
    assert rows.lengths("prompt").tolist() == [3, 1, 2, 2, 1, 1]
    assert rows.lengths("chosen").tolist() == [1, -1, 1, 1, 0, 1]
    assert rows.lengths("rejected").tolist() == [2, 3, -1, 1, 1, -1]
    assert rows.largest_id() == 100_000
    assert rows.distinct_prompts() == 5
    assert (rows[1:].largest_id(), rows[1:].distinct_prompts()) == (301, 4)
    none = TokenRows.of([])
    assert (none.largest_id(), none.distinct_prompts(), none.lengths("chosen").tolist()) == (-1, 0, [])


def test_many_rows_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file has no name any more, so that nothing is left behind; what is held in memory are the other columns."""
    path, batches = tmp_path / "tokens.parquet", [RowBatch() for _ in ROWS]
    for batch, row in zip(batches, ROWS, strict=True):
        batch.append(row.pair, row.prompt, row.chosen, row.rejected, row.gold_choice, row.margin)
    save_table(path, TokenTable(joined(batches), {"kept": 5}))
    monkeypatch.setattr(token_rows, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(token_rows, "_BATCH_ROWS", 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for rows in (joined(batches), load_table(path).rows):
        assert isinstance(rows, TokenRows)
        assert rows.table["prompt"].num_chunks > 1
        assert list((tmp_path / "temporary").iterdir()) == []
        assert list(rows) == ROWS
        assert [rows[place] for place in range(-5, 5)] == [*ROWS, *ROWS]
        assert list(rows[::-2]) == ROWS[::-2]
        assert rows.lengths("rejected").tolist() == [2, 3, -1, 1, 1]
        assert (rows.largest_id(), rows.distinct_prompts()) == (100_000, 5)
        save_table(tmp_path / "again.parquet", TokenTable(rows, {"kept": 5}))
        assert load_table(tmp_path / "again.parquet") == TokenTable(tuple(ROWS), {"kept": 5})


def test_a_feed_makes_no_row_to_know_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TokenRows.of([TokenRow(pair, (1, 2, 3), (4,) * (pair + 1), (5, 6)) for pair in range(4)])
    in_memory, made = PairFeed(tuple(whole), None), 0
    make = TokenRows.__getitem__

    def counted(self: TokenRows, place: int) -> TokenRow:
        nonlocal made
        made += 1
        return make(self, place)

    monkeypatch.setattr(TokenRows, "__getitem__", counted)
    feed = PairFeed(whole, None)
    assert (feed.lengths, feed.tokens) == (in_memory.lengths, in_memory.tokens)
    assert made == 0
    for lacking in (TokenRow(8, (1,), None, (2,)), TokenRow(8, (1,), (2,), None)):
        with pytest.raises(DataError, match="row 8 of the data has one answer"):
            PairFeed(TokenRows.of([*whole, lacking]), None)


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
