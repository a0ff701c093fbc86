"""Notes: one per suite, read back as they were written, or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from align_bench.errors import StoreError
from align_bench.store.keys import Address
from align_bench.store.notes import NotedBase, NotedJudge, NotedScorer, RunNote, Scorers
from align_bench.store.store import Store

OTHER = Address("adapter", "0" * 20)


@pytest.fixture
def note(address: Address) -> RunNote:
    """A note with all that it may hold."""
    scorers = Scorers(
        base=NotedBase("org/base", "f" * 64, {"enable_thinking": False}, "2026-01-01"),
        storage="auto",
        max_length=128,
        cells={
            "rm": NotedScorer(address, 3, None),
            "poe_rm": NotedScorer(address, 3, None, NotedBase("whole", "e" * 64)),
            "judge": NotedScorer(None, 0, {"model": "org/judge", "template": None}),
        },
        judges={"gold": NotedJudge((), None), "llama": NotedJudge(("judge",), {"size": 2, "penalty": 1.0})},
    )
    return RunNote((address, OTHER), (OTHER,), scorers)


def test_note_comes_back(store: Store, note: RunNote) -> None:
    assert store.notes.all() == {}
    store.notes.save("mine", RunNote((OTHER,)))
    store.notes.save("mine", note)
    store.notes.save("v1.2", RunNote())
    assert Store(store.folder).notes.all() == {"mine": note, "v1.2": RunNote()}
    assert sorted(path.name for path in (store.folder / "suites").iterdir()) == ["mine.json", "v1.2.json"]


def test_only_the_very_note_is_held(store: Store, note: RunNote) -> None:
    store.notes.save("mine", note)
    assert store.notes.holds("mine", note)
    assert not store.notes.holds("mine", replace(note, reported=()))
    assert not store.notes.holds("another", RunNote())


def test_deleted_note_is_gone(store: Store, note: RunNote) -> None:
    store.notes.save("mine", note)
    store.notes.save("yours", RunNote())
    store.notes.delete("mine")
    store.notes.delete("mine")
    assert store.notes.all() == {"yours": RunNote()}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"schema": 1, "record": 3}',
        '{"schema": 1, "record": []}',
        '{"schema": 1, "record": {"reported": []}}',
        '{"schema": 1, "record": {"needs": 3, "reported": []}}',
        '{"schema": 1, "record": {"needs": null, "reported": []}}',
        '{"schema": 1, "record": {"needs": ["adapter-0"], "reported": []}}',
        '{"schema": 1, "record": {"needs": [3], "reported": []}}',
        '{"schema": 1, "record": {"needs": [], "reported": [], "cells": {}}}',
        '{"schema": 2, "record": {}}',
    ],
)
def test_unreadable_note_is_an_error(store: Store, content: str) -> None:
    store.notes.save("mine", RunNote())
    (store.folder / "suites" / "mine.json").write_text(content)
    with pytest.raises(StoreError, match=r"mine\.json"):
        store.notes.all()


def test_damaged_note_of_one_suite_does_not_stop_others(store: Store, note: RunNote) -> None:
    store.notes.save("mine", note)
    store.notes.save("yours", RunNote())
    (store.folder / "suites" / "yours.json").write_text("[" * 100_000)
    assert store.notes.get("mine") == note
    assert store.notes.get("none") is None
    assert store.notes.get("../mine") is None
    assert store.notes.readable() == {"mine": note, "yours": None}
    with pytest.raises(StoreError, match=r"yours\.json"):
        store.notes.get("yours")


@pytest.mark.parametrize("key", ["base", "storage", "max_length", "judges"])
def test_note_without_a_part_of_its_scorers_is_an_error(store: Store, note: RunNote, key: str) -> None:
    store.notes.save("mine", note)
    path = store.folder / "suites" / "mine.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["record"][key]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StoreError, match=r"mine\.json cannot be read"):
        store.notes.all()


@pytest.mark.parametrize("suite", ["../mine", "a/b", ".hidden", ""])
def test_note_goes_nowhere_else(store: Store, suite: str) -> None:
    with pytest.raises(ValueError, match="is not a suite's name"):
        store.notes.save(suite, RunNote())
