"""How many rows may be dropped before a run stops, and what it says then."""

from __future__ import annotations

import pytest

from align_bench.data.dropped import AROUND, REFUSED, REMOVED, advice, check_dropped
from align_bench.errors import DataError

REASON = f"{REFUSED}: System role not supported"


def check(read: dict[str, int], tokens: dict[str, int], most: float = 0.05, **examples: int) -> None:
    check_dropped("train (rows.jsonl)", read, tokens, {REASON: 57} | examples, most=most)


def test_few_dropped_rows_do_not_stop_a_run() -> None:
    check({"read": 100, "kept": 99, "dropped: null cell": 1}, {"kept": 95, "truncated": 3, f"dropped: {REASON}": 4})
    check({"read": 1, "kept": 1}, {"kept": 1, "truncated": 1}, most=0.0)


def test_many_stop_it_with_the_most_frequent_reason_and_a_row() -> None:
    read = {"read": 102, "kept": 100, "dropped: null cell": 2}
    with pytest.raises(DataError) as caught:
        check(read, {"kept": 96, "truncated": 0, f"dropped: {REASON}": 4})
    assert caught.value.message == (
        "train (rows.jsonl): 6 of 102 rows (5.9%) cannot be used, more than `data.max_dropped` allows (5.0%). Most "
        f"frequent reason, 4 rows: {REASON}, such as row 57 (counted from 0)."
    )
    assert caught.value.fix == f"{advice(REASON)}; or allow it, with `data: {{max_dropped: …}}`"
    check(read, {"kept": 96, "truncated": 0, f"dropped: {REASON}": 4}, most=0.06)


@pytest.mark.parametrize("reason", [REASON, REMOVED, AROUND])
def test_every_reason_of_the_template_counts(reason: str) -> None:
    with pytest.raises(DataError, match="10 of 100 rows"):
        check({"read": 100, "kept": 100}, {"kept": 90, "truncated": 0, f"dropped: {reason}": 10})


def test_rows_that_are_dropped_as_asked_for_do_not_count() -> None:
    dropped = {"dropped: longer than 40 tokens": 30, "dropped: prompt leaves no room in 40 tokens": 30}
    check({"read": 200, "kept": 100, "dropped: tie": 90, "skipped": 10}, {"kept": 40, "truncated": 0, **dropped})
    with pytest.raises(DataError, match="4 of 104 rows"):  # but they are rows
        check({"read": 104, "kept": 100, "dropped: null cell": 4}, {"kept": 40, **dropped}, most=0.03)


def test_advice_fits_its_reason() -> None:
    assert "max_length" in advice("prompt leaves no room in 40 tokens")
    assert all("max_length" not in advice(reason) for reason in (REASON, REMOVED, AROUND, "null cell"))
