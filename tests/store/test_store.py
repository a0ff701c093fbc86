"""The store: whole or not at all, damaged counts as missing, one process for each artefact at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import StoreError
from align_bench.records import Cost
from align_bench.store import store as module
from align_bench.store.keys import Address, content_key, file_digest
from align_bench.store.notes import RunNote
from align_bench.store.store import MANIFEST, Artefact, Store
from align_bench.store.version import SCHEMA

Fill = Callable[..., Artefact]
Child = Callable[[str], AbstractContextManager[subprocess.Popen[str]]]


def nobody_holds_it() -> None:
    """A `waiting` that must not be called."""
    raise AssertionError


def contents(store: Store) -> list[str]:
    """What lies in the store, two levels deep, locks and empty folders aside."""
    return sorted(
        str(path.relative_to(store.folder)) for path in store.folder.glob("*/*") if path.parent.name != ".locks"
    )


# -- put and get -------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_back(store: Store, fill: Fill, address: Address, cost: Cost) -> None:
    assert address not in store
    assert store.get(address) is None
    assert store.get_unverified(address) is None
    put = fill(steps=3, shape="pairs")
    assert put == Artefact(
        store.folder / f"adapter/dpo-0-{address.key}", address, "dpo-0", cost, {"steps": 3, "shape": "pairs"}
    )
    for one in (store, Store(store.folder)):
        assert address in one
        assert one.get(address) == one.get_unverified(address) == put
    assert (put / "weights.bin").read_bytes() == b"\0\1\2"
    assert (put / "deeper/notes.txt").read_text(encoding="utf-8") == "ü\n"


def test_artefact_is_known_by_kind_and_key(store: Store, fill: Fill, address: Address) -> None:
    fill()
    for other in (Address("val", address.key), Address("adapter", content_key("other"))):
        assert store.get(other) is None
        assert other not in store


def test_label_does_not_tell_artefacts_apart(store: Store, fill: Fill, address: Address) -> None:
    first = fill(label="rm[learning_rate=1e-05]#1")
    assert first.folder.name == f"rm-learning_rate=1e-05-1-{address.key}"
    assert fill(label="another", into=Store(store.folder)) == first
    assert contents(store) == [f"adapter/{first.folder.name}"]


@pytest.mark.parametrize("label", ["", "..", "a/b", "-x", "𠀀" * 100, "\ud800", "a" * 300, "x-" + "0" * 20])
def test_hostile_labels(store: Store, fill: Fill, address: Address, label: str) -> None:
    put = fill(label=label)
    assert put.folder.parent == store.folder / "adapter"
    assert Store(store.folder).get(address) == put


def test_manifest_holds_the_checksums(fill: Fill, address: Address) -> None:
    put = fill()
    manifest = json.loads((put / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["files"] == {name: file_digest(put / name) for name in ("deeper/notes.txt", "weights.bin")}
    assert (manifest["kind"], manifest["key"], manifest["schema"]) == (address.kind, address.key, SCHEMA)


def test_nothing_is_left_beside_the_artefact(store: Store, fill: Fill, address: Address) -> None:
    fill()
    assert contents(store) == [f"adapter/dpo-0-{address.key}"]


def test_put_takes_the_place_of_what_has_no_manifest(store: Store, fill: Fill, address: Address) -> None:
    stray = store.folder / "adapter" / f"someone-{address.key}"
    stray.mkdir(parents=True)
    (stray / "stray.txt").touch()
    assert address not in store
    assert store.get(address) is None
    put = fill()
    assert Store(store.folder).get(address) == put
    assert contents(store) == [f"adapter/dpo-0-{address.key}", f"damaged/{address}"]


def test_empty_artefact_is_an_artefact(store: Store, address: Address, cost: Cost) -> None:
    with store.scratch(address) as folder:
        put = store.put(address, "dpo", folder, cost, {})
    assert Store(store.folder).get(address) == put


def test_artefact_of_another_process_is_found(store: Store, fill: Fill, address: Address) -> None:
    """Also after the kind's folder has been listed."""
    assert address not in store
    fill(Address("adapter", content_key("other")))
    other = Store(store.folder)
    assert address not in other
    put = fill()
    assert other.get(address) == put


@pytest.mark.parametrize("kind", ["suites", "failed", "damaged", ".locks", "a/b", ".."])
def test_kind_cannot_be_a_folder_of_the_store_s_own(store: Store, kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        store.get(Address(kind, "0" * 20))


def test_one_listing_answers_for_all(store: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [Address("val", content_key(number)) for number in range(5)]
    for one in addresses:
        fill(one)
    listings: list[Path] = []
    scan = os.scandir

    def listed(path: Path) -> object:
        listings.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", listed)
    other = Store(store.folder)
    assert all(one in other for one in addresses)
    assert listings == [store.folder / "val"]


def test_rates_are_sums_of_what_is_stored(store: Store, address: Address) -> None:
    costs = [Cost(1.0, 100, 0), Cost(3.0, 500, 0), Cost(1.0, 0, 0)]
    for number, cost in enumerate(costs):
        for kind in ("val", "judged"):
            one = Address(kind, content_key(number))
            with store.scratch(one) as folder:
                store.put(one, "rm", folder, cost if kind == "val" else Cost(1.0, 0, 0), {})
    assert store.rates() == {"val": 120.0}
    assert store.rates([Address("val", content_key(1)), address]) == {"val": pytest.approx(500 / 3)}
    (store.folder / "val" / f"rm-{content_key(1)}" / MANIFEST).write_text("{")
    assert store.rates() == {"val": 50.0}


# -- half-written ------------------------------------------------------------------------------------------------------


def test_failed_writer_leaves_nothing(store: Store, address: Address) -> None:
    def write() -> None:
        with store.scratch(address) as folder:
            (folder / "half.bin").touch()
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        write()
    assert contents(store) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_killed_writer_leaves_no_artefact(
    store: Store, address: Address, cost: Cost, child: Child, sealed: bool
) -> None:
    """Killed while it writes, or after the manifest but before the rename."""
    write = "(folder / 'manifest.json').write_text('{}')" if sealed else "(folder / 'weights.bin').write_bytes(b'half')"
    code = f"with store.scratch(address) as folder:\n    {write}\n    print('there', flush=True)\n    time.sleep(60)\n"
    with child(code):
        pass
    assert contents(store) == [f".writing/{address}"], "the kill left its scratch folder"
    assert address not in store
    assert store.get(address) is None
    with store.scratch(address) as folder:
        assert not list(folder.iterdir()), "the next writer starts from an empty folder"
        put = store.put(address, "dpo#0", folder, cost, {})
    assert Store(store.folder).get(address) == put
    assert contents(store) == [f"adapter/dpo-0-{address.key}"]


def test_kill_at_any_moment_leaves_whole_artefacts_only(store: Store, child: Child) -> None:
    code = (
        "import itertools\n"
        "from align_bench.store.keys import content_key\n"
        "for number in itertools.count(sum(1 for _ in store.artefacts())):\n"
        "    address = Address('val', content_key(number))\n"
        "    with store.lock(address, lambda: None), store.scratch(address) as folder:\n"
        "        for part in range(3):\n"
        "            (folder / f'{part}.bin').write_bytes(b'x' * 100_000)\n"
        "        store.put(address, 'dpo', folder, Cost(1.0, 1, 1), {})\n"
        "    print('there', flush=True)\n"
    )
    generator = random.Random(0)
    for _ in range(6):
        with child(code):
            time.sleep(generator.uniform(0.0, 0.15))
    stored = list(store.artefacts())
    assert len(stored) >= 6, "each child has made one"
    assert len(stored) == len(list((store.folder / "val").iterdir())), "a folder without a manifest"
    fresh = Store(store.folder)
    for artefact in stored:
        assert fresh.get(artefact.address) == artefact


def test_partial_folder_is_no_artefact_and_outlives_the_writer(store: Store, fill: Fill, address: Address) -> None:
    partial = store.partial(address)
    partial.mkdir(parents=True)
    (partial / "checkpoint.pt").write_bytes(b"x")
    put = fill()
    assert (partial / "checkpoint.pt").exists()
    assert partial not in (put.folder, *put.folder.parents)


def test_content_is_on_disk_before_the_name(store: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("sync_file", "sync_folder"):
        monkeypatch.setattr(module, name, lambda path, name=name: done.append(f"{name} {path.name}"))
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    fill()
    place = done.index("rename")
    assert {"sync_file weights.bin", "sync_file notes.txt", "sync_folder deeper"} <= set(done[:place])
    assert done[place + 1 :] == ["sync_folder adapter"]


# -- damage ------------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    """Lose the end of a file."""
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def become_folder(path: Path) -> None:
    """Be a folder instead of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["weights.bin", "deeper/notes.txt"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink, become_folder])
def test_damaged_file_counts_as_not_stored(
    store: Store, fill: Fill, address: Address, name: str, harm: Callable[[Path], None]
) -> None:
    put = fill()
    harm(put / name)
    fresh = Store(store.folder)
    assert fresh.get_unverified(address) == put, "a look at the manifest only"
    assert fresh.get(address) is None
    assert contents(store) == [f"damaged/{address}"]
    again = fill()
    assert Store(store.folder).get(address) == again


SOUND = {
    "schema": SCHEMA,
    "kind": "adapter",
    "key": "0123456789abcdef0123",
    "label": "",
    "files": {},
    "cost": {"seconds": 1, "tokens": 1, "peak_bytes": 1},
    "facts": {},
}


def test_sound_manifest_counts(store: Store, fill: Fill, address: Address) -> None:
    (fill() / MANIFEST).write_text(json.dumps(SOUND), encoding="utf-8")
    assert Store(store.folder).get(address) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "3",
        '"text"',
        "\ufffd",
        '{"schema": 1, "files": {}}',
        json.dumps({**SOUND, "cost": {}}),
        json.dumps({**SOUND, "files": 3}),
        json.dumps({**SOUND, "kind": "val"}),
        json.dumps({name: value for name, value in SOUND.items() if name != "schema"}),
    ],
)
def test_damaged_manifest_counts_as_not_stored(store: Store, fill: Fill, address: Address, text: str) -> None:
    put = fill()
    (put / MANIFEST).write_text(text, encoding="utf-8")
    assert store.get_unverified(address) is None
    assert store.get(address) is None
    assert contents(store) == [f"damaged/{address}"]


def test_manifest_that_is_not_text_counts_as_not_stored(store: Store, fill: Fill, address: Address) -> None:
    (fill() / MANIFEST).write_bytes(b"\xff\xfe")
    assert store.get(address) is None


def test_second_damage_replaces_the_first(store: Store, fill: Fill, address: Address) -> None:
    for _ in range(2):
        flip(fill() / "weights.bin")
        assert Store(store.folder).get(address) is None
    assert contents(store) == [f"damaged/{address}"]


def test_damage_elsewhere_does_not_matter(store: Store, fill: Fill, address: Address) -> None:
    put = fill()
    (put / "unlisted.txt").write_text("from somebody else", encoding="utf-8")
    assert Store(store.folder).get(address) == put


def test_checksums_are_verified_once(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    fresh = Store(store.folder)
    read: list[str] = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(module, "file_digest", digest)
    for _ in range(3):
        assert fresh.get(address) is not None
    assert sorted(read) == ["notes.txt", "weights.bin"]


def test_whole_artefact_that_took_the_damaged_one_s_place_stays(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process moves the damaged one aside and makes it again, while this one still reads it."""
    flip(fill() / "weights.bin")
    intact = module._is_intact

    def slow(folder: Path, files: Any) -> bool:
        found = intact(folder, files)
        monkeypatch.setattr(module, "_is_intact", intact)
        assert Store(store.folder).get(address) is None
        fill(into=Store(store.folder))
        return found

    monkeypatch.setattr(module, "_is_intact", slow)
    assert Store(store.folder).get(address) is None
    assert Store(store.folder).get(address) is not None


def test_file_that_cannot_be_read_is_not_taken_for_damaged(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()

    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "file_digest", refused)
    with pytest.raises(StoreError, match="cannot be read: Permission denied"):
        Store(store.folder).get(address)
    assert address in store


# -- other versions ----------------------------------------------------------------------------------------------------


def test_new_and_own_folders_are_accepted(store: Store, fill: Fill) -> None:
    store.check()
    fill()
    store.notes.save("mine", RunNote())
    (store.folder / "notes.txt").touch()
    (store.folder / "foreign" / "folder").mkdir(parents=True)
    store.check()


def test_store_of_an_earlier_version_is_refused(store: Store) -> None:
    old = store.folder / "assignment" / f"tokens-{'0' * 20}"
    old.mkdir(parents=True)
    (old / MANIFEST).write_text('{"kind": "tokens", "files": {}}')
    store.check()  # somebody's folder
    (old.parent / "lock").touch()
    with pytest.raises(StoreError, match="earlier version") as caught:
        store.check()
    assert str(old.parent) in str(caught.value)
    assert "--runs" in str(caught.value)
    assert list(store.artefacts()) == []


def test_artefact_of_a_later_version_is_refused(store: Store, fill: Fill, address: Address) -> None:
    path = fill() / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": SCHEMA + 1}))
    for use in (
        store.check,
        lambda: store.get(address),
        lambda: store.get_unverified(address),
        lambda: list(store.artefacts()),
    ):
        with pytest.raises(StoreError, match=f"another version of align-bench .schema {SCHEMA + 1}"):
            use()
    assert path.exists()


# -- locks -------------------------------------------------------------------------------------------------------------

HOLD = "with store.lock(address, lambda: None):\n    print('there', flush=True)\n    time.sleep(60)\n"


def test_lock_is_waited_for_until_its_holder_is_killed(store: Store, address: Address, child: Child) -> None:
    with child(HOLD) as holder:
        assert store.try_lock(address) is None
        waited = []

        def waiting() -> None:
            waited.append(holder.poll())
            threading.Timer(0.3, holder.kill).start()  # SIGKILL

        with store.lock(address, waiting):
            assert holder.wait() == -signal.SIGKILL
        assert waited == [None], "called once, while the other one lived"


def test_lock_given_back_by_another_process_shows_what_it_made(store: Store, address: Address, child: Child) -> None:
    code = (
        "with store.lock(address, lambda: None), store.scratch(address) as folder:\n"
        "    print('there', flush=True)\n    time.sleep(0.5)\n"
        "    store.put(address, 'dpo', folder, Cost(1.0, 1, 1), {})\n"
    )
    told: list[str] = []
    with child(code), store.lock(address, lambda: told.append("waits")):
        assert store.get(address) is not None
    assert told == ["waits"]


@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a terminal does")
def test_waiting_can_be_interrupted(store: Store, address: Address, child: Child) -> None:
    code = (
        # A job in the background would ignore it.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def waiting():\n    print('there', flush=True)\n"
        "try:\n    with store.lock(address, waiting): pass\nexcept KeyboardInterrupt:\n    sys.exit(7)\n"
    )
    with store.lock(address, nobody_holds_it), child(code) as waiter:
        time.sleep(0.3)
        waiter.send_signal(signal.SIGINT)
        assert waiter.wait(timeout=20) == 7


def test_lock_is_given_back(store: Store, address: Address) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no luck"), store.lock(address, nobody_holds_it):
            raise RuntimeError("no luck")


def test_lock_of_one_artefact_leaves_others_free(store: Store, address: Address) -> None:
    with store.lock(address, nobody_holds_it), store.lock(Address("val", address.key), nobody_holds_it):
        pass


def test_two_processes_make_an_artefact_once(store: Store, tmp_path: Path, address: Address) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom align_bench.records import Cost\n"
        "from align_bench.store.keys import Address, content_key\nfrom align_bench.store.store import Store\n"
        "store, made = Store(Path(sys.argv[1])), 0\n"
        "for number in range(20):\n"
        "    address = Address('val', content_key(number))\n"
        "    with store.lock(address, lambda: None):\n"
        "        if store.get(address) is None:\n"
        "            with store.scratch(address) as folder:\n"
        "                (folder / 'x').write_bytes(b'x')\n"
        "                store.put(address, sys.argv[2], folder, Cost(1.0, 1, 1), {})\n"
        "            made += 1\n"
        "print(made)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store.folder), name], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    made = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(made) == len(list((store.folder / "val").iterdir())) == 20
