"""A store to fill, and other processes that work in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from align_bench.records import Cost
from align_bench.store.keys import Address
from align_bench.store.store import Artefact, Store

Fill = Callable[..., Artefact]
Child = Callable[[str], AbstractContextManager[subprocess.Popen[str]]]

OPEN_STORE = """
import sys, time
from pathlib import Path
from align_bench.records import Cost
from align_bench.store.keys import Address
from align_bench.store.store import Store
store = Store(Path(sys.argv[1]))
address = Address("adapter", "0123456789abcdef0123")
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, whose folder does not exist yet."""
    return Store(tmp_path / "deep" / "runs")


@pytest.fixture
def cost() -> Cost:
    """What every artefact here costs."""
    return Cost(seconds=1.5, tokens=20, peak_bytes=300)


@pytest.fixture
def address() -> Address:
    """That of the artefact that tests and their children make."""
    return Address("adapter", "0123456789abcdef0123")


@pytest.fixture
def fill(store: Store, cost: Cost, address: Address) -> Fill:
    """Store one artefact of two files, one of them in a subfolder."""

    def filled(where: Address = address, label: str = "dpo#0", into: Store = store, **facts: Any) -> Artefact:
        with into.scratch(where) as folder:
            (folder / "weights.bin").write_bytes(b"\0\1\2")
            (folder / "deeper").mkdir()
            (folder / "deeper" / "notes.txt").write_text("ü\n", encoding="utf-8")
            return into.put(where, label, folder, cost, facts)

    return filled


@pytest.fixture
def child(store: Store) -> Child:
    """A Python process that runs code on the same store and says a line when it is where it should be."""

    @contextmanager
    def started(code: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", OPEN_STORE + code, str(store.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "there\n"
            yield process
        finally:
            process.kill()
            process.communicate()

    return started
