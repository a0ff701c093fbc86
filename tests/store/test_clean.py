"""Cleaning: what a suite needs and what is being worked on stays, the rest can go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from align_bench.errors import StoreError
from align_bench.store.clean import remove, unneeded
from align_bench.store.failures import Failure
from align_bench.store.keys import Address, content_key
from align_bench.store.notes import RunNote
from align_bench.store.store import Artefact, Store

Fill = Callable[..., Artefact]
Child = Callable[[str], AbstractContextManager[subprocess.Popen[str]]]
OTHER = Address("val", content_key("other"))


def states(store: Store) -> dict[tuple[str, str], Path]:
    """The leftovers by state and address."""
    return {(one.state, str(one.address)): one.path for one in unneeded(store)}


def checkpoint(store: Store, address: Address) -> None:
    store.partial(address).mkdir(parents=True)
    (store.partial(address) / "checkpoint.pt").write_bytes(b"1234567")


def test_empty_store_is_clean(store: Store) -> None:
    assert unneeded(store) == []


def test_what_no_suite_needs_is_left(store: Store, fill: Fill, address: Address) -> None:
    needed, left = fill(), fill(OTHER, label="rm[beta=1]#0")
    os.utime(left / "manifest.json", (4e9, 4e9))
    store.notes.save("mine", RunNote((address,)))
    store.notes.save("yours", RunNote())
    (found,) = unneeded(store)
    assert (found.state, found.address, found.kind, found.label) == ("stored", OTHER, "val", "rm-beta=1-0")
    assert found.path == left.folder
    assert found.size_bytes == sum(path.stat().st_size for path in left.folder.rglob("*") if path.is_file()) > 3
    assert found.used == 4e9
    assert remove(store, found)
    assert not left.folder.exists()
    assert Store(store.folder).get(OTHER) is None
    assert Store(store.folder).get(address) == needed
    assert unneeded(store) == []


def test_forgotten_suite_needs_nothing_that_no_other_needs(store: Store, fill: Fill, address: Address) -> None:
    fill(), fill(OTHER)
    store.notes.save("mine", RunNote((address, OTHER)))
    store.notes.save("yours", RunNote((address,)))
    assert not unneeded(store)
    assert [one.address for one in unneeded(store, without=["mine"])] == [OTHER]
    assert unneeded(store, without=["yours"]) == []
    store.notes.delete("mine")
    assert list(states(store)) == [("stored", str(OTHER))]


def test_use_is_noted(store: Store, fill: Fill, address: Address) -> None:
    manifest = fill() / "manifest.json"
    for path in [*manifest.parent.rglob("*")]:
        os.utime(path, (1e9, 1e9))
    assert unneeded(store)[0].used == 1e9
    assert Store(store.folder).get_unverified(address) is not None
    assert unneeded(store)[0].used == 1e9
    assert Store(store.folder).get(address) is not None
    assert unneeded(store)[0].used > 1e9


def test_remains_of_work(store: Store, fill: Fill, address: Address, child: Child) -> None:
    code = (
        "with store.scratch(address) as folder:\n"
        "    (folder / 'half.bin').write_bytes(b'12345')\n    print('there', flush=True)\n    time.sleep(60)\n"
    )
    with child(code):
        pass  # killed
    checkpoint(store, address)
    store.failures.record(address, Failure("training", "no luck", permanent=True, traceback=""))
    (fill(OTHER) / "weights.bin").unlink()
    assert Store(store.folder).get(OTHER) is None
    expected = {
        ("writing", str(address)): store.folder / ".writing" / str(address),
        ("partial", str(address)): store.partial(address),
        ("failed", str(address)): store.folder / "failed" / f"{address}.json",
        ("damaged", str(OTHER)): store.folder / "damaged" / str(OTHER),
    }
    assert states(store) == expected
    sizes = {one.state: one.size_bytes for one in unneeded(store)}
    assert (sizes["writing"], sizes["partial"]) == (5, 7)

    store.notes.save("mine", RunNote((address, OTHER)))
    assert set(states(store)) == {("writing", str(address)), ("damaged", str(OTHER))}, "work that goes on is needed"
    for one in unneeded(store):
        assert remove(store, one)
    assert not states(store)
    assert store.partial(address).exists()
    assert store.failures.get(address) is not None

    fill()
    assert set(states(store)) == {("partial", str(address))}, "a training that has ended needs no checkpoint"
    assert all(remove(store, one) for one in unneeded(store))
    assert not states(store)


def test_what_another_process_works_on_stays(store: Store, fill: Fill, address: Address, child: Child) -> None:
    fill()
    checkpoint(store, address)
    left = unneeded(store)
    assert len(left) == 2
    with child("with store.lock(address, lambda: None):\n    print('there', flush=True)\n    time.sleep(60)\n"):
        assert [remove(store, one) for one in left] == [False, False]
        assert len(unneeded(store)) == 2
    assert [remove(store, one) for one in left] == [True, True]


def test_what_a_suite_needs_by_now_stays(store: Store, fill: Fill, address: Address) -> None:
    fill()
    checkpoint(store, OTHER)
    left = unneeded(store)
    store.notes.save("mine", RunNote((address, OTHER)))
    assert [remove(store, one) for one in left] == [False, False]
    assert address in store


def test_what_has_gone_is_removed(store: Store, fill: Fill, address: Address) -> None:
    fill()
    checkpoint(store, OTHER)
    left = unneeded(store)
    for _ in range(2):
        assert all(remove(store, one) for one in left)


def test_kill_while_removing_leaves_no_half_artefact(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    (left,) = unneeded(store)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(store, left)
    assert Store(store.folder).get(address) is None
    assert list(states(store)) == [("writing", str(address))]
    fill()
    assert Store(store.folder).get(address) is not None


def test_what_is_not_ours_stays(store: Store, fill: Fill) -> None:
    fill()
    for name in ("adapter/mine", "damaged/mine", ".writing/mine", f"foreign/x-{'0' * 20}", "failed/adapter-1"):
        (store.folder / name).mkdir(parents=True)
    (store.folder / "failed" / "mine.json").touch()
    assert len(unneeded(store)) == 1


def test_nothing_is_unneeded_while_a_note_cannot_be_read(store: Store, fill: Fill) -> None:
    fill()
    (left,) = unneeded(store)
    store.notes.save("mine", RunNote())
    (store.folder / "suites" / "mine.json").write_text("{")
    with pytest.raises(StoreError, match=r"mine\.json"):
        unneeded(store)
    with pytest.raises(StoreError, match=r"mine\.json"):
        remove(store, left)


def test_what_cannot_be_deleted_is_said(store: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    (left,) = unneeded(store)

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(StoreError, match="cannot be deleted: Permission denied"):
        remove(store, left)
