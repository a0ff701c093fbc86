"""Failures: remembered until they are cleared, or the artefact is made after all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from align_bench.store.failures import Failure
from align_bench.store.keys import Address
from align_bench.store.store import Artefact, Store

Fill = Callable[..., Artefact]


def test_failure_is_remembered_until_it_is_cleared(store: Store, address: Address) -> None:
    assert store.failures.get(address) is None
    failure = Failure("training dpo#0", "out of memory: \ud800", permanent=True, traceback="Traceback …")
    store.failures.record(address, failure)
    assert Store(store.folder).failures.get(address) == failure
    assert store.failures.get(Address("val", address.key)) is None
    store.failures.clear(address)
    store.failures.clear(address)
    assert store.failures.get(address) is None


def test_success_clears_a_failure(store: Store, fill: Fill, address: Address) -> None:
    store.failures.record(address, Failure("training", "no luck", permanent=False, traceback=""))
    fill()
    assert store.failures.get(address) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"what": "x"}'])
def test_unreadable_failure_is_none(store: Store, address: Address, content: str) -> None:
    store.failures.record(address, Failure("training", "no luck", permanent=True, traceback=""))
    store.failures.path(address).write_text(content)
    assert store.failures.path(address) == store.folder / "failed" / f"{address}.json"
    assert store.failures.get(address) is None
