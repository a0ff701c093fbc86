"""What lies in the store's way: files for folders, folders for files, links to nowhere, refusals of the system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from align_bench.errors import StoreError
from align_bench.store import files
from align_bench.store.clean import remove, unneeded
from align_bench.store.failures import Failure
from align_bench.store.files import as_store_error, delete, make_folder, uninterrupted, write_atomically
from align_bench.store.keys import Address
from align_bench.store.store import Artefact, Store

Fill = Callable[..., Artefact]
FAILED = Failure("training", "no luck", permanent=True, traceback="")


def a_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine", encoding="utf-8")


def a_folder(path: Path) -> None:
    (path / "deeper").mkdir(parents=True)
    (path / "deeper" / "mine").touch()


def a_link_to_nowhere(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)


OBSTACLES = [a_file, a_folder, a_link_to_nowhere, a_link_to_itself]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_lies_in_an_artefact_s_place_is_moved_aside(
    store: Store, fill: Fill, address: Address, obstacle: Callable[[Path], None]
) -> None:
    place = store.folder / "adapter" / f"dpo-0-{address.key}"
    obstacle(place)
    assert Store(store.folder).get(address) is None
    put = fill()
    assert put.folder == place
    assert Store(store.folder).get(address) == put
    assert os.path.lexists(store.aside(address)), "nothing of the user's is deleted"
    (left,) = [one for one in unneeded(store) if one.state == "damaged"]
    assert remove(store, left)
    assert not os.path.lexists(store.aside(address))


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("place", [".writing/{}", "damaged/{}", "failed/{}.json"])
def test_what_lies_where_the_store_works_is_cleared(
    store: Store, fill: Fill, address: Address, place: str, obstacle: Callable[[Path], None]
) -> None:
    obstacle(store.folder / place.format(address))
    assert store.failures.get(address) is None
    store.failures.record(address, FAILED)
    assert store.failures.get(address) == FAILED
    first = fill()
    (first / "weights.bin").write_bytes(b"damaged")
    again = Store(store.folder)
    assert again.get(address) is None
    assert (again.aside(address) / "weights.bin").is_file()
    assert again.get(fill(into=again).address) is not None
    assert again.failures.get(address) is None


@pytest.mark.parametrize("obstacle", [a_file, a_link_to_nowhere, a_link_to_itself])
@pytest.mark.parametrize("place", [".locks", ".writing", "adapter"])
def test_a_file_for_a_folder_of_the_store_is_told_and_left(
    store: Store, fill: Fill, address: Address, place: str, obstacle: Callable[[Path], None]
) -> None:
    obstacle(store.folder / place)
    with pytest.raises(StoreError, match=rf"{place} cannot be (made|read)"), store.lock(address, lambda: None):
        fill()
    assert os.path.lexists(store.folder / place)
    (store.folder / place).unlink()
    with store.lock(address, lambda: None):
        assert store.get(fill().address) is not None


def test_a_folder_for_a_lock_is_told(store: Store, address: Address) -> None:
    path = store.folder / ".locks" / f"{address}.lock"
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"is a folder; expected the empty file of a lock\n  → delete it"):
        store.try_lock(address)
    path.rmdir()
    with store.lock(address, lambda: None):
        assert path.is_file()


@pytest.mark.parametrize("content", ['{"what": 1, "reason": [], "permanent": 2, "traceback": {}}', "[" * 100_000])
def test_a_failure_note_of_other_types_is_none(store: Store, address: Address, content: str) -> None:
    a_file(store.failures.path(address))
    store.failures.path(address).write_text(content, encoding="utf-8")
    assert store.failures.get(address) is None
    store.failures.record(address, FAILED)
    assert store.failures.get(address) == FAILED


def test_a_manifest_nested_beyond_reason_is_damaged(store: Store, fill: Fill, address: Address) -> None:
    (fill() / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    assert Store(store.folder).get(address) is None


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_a_refusal_is_one_line_and_leaves_what_was_stored(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    """A full or broken disk, a folder that is read-only: of the root user the system refuses nothing by modes."""
    stored = fill()
    other = Address("val", address.key)

    def refuse(path: Path, flags: int) -> None:
        raise OSError(refusal, os.strerror(refusal), str(path))

    monkeypatch.setattr(files, "_sync", refuse)
    with pytest.raises(StoreError, match=os.strerror(refusal)) as told:
        store.failures.record(other, FAILED)
    assert "check who owns its folder and whether its disk is full" in str(told.value)
    with pytest.raises(OSError, match=os.strerror(refusal)):
        fill(other)
    monkeypatch.undo()
    assert Store(store.folder).get(address) == stored
    assert sorted(path.name for path in store.folder.glob("*/*")) == [stored.folder.name], "nothing half-written"
    assert store.get(fill(other).address) is not None


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_no_room_for_tensors_is_told_as_no_room_for_any_file(tmp_path: Path, refusal: int) -> None:
    """safetensors raises an error of its own, in Rust's words for the system's."""
    said = f'Error while serializing: I/O error: {os.strerror(refusal)} (os error {refusal}) at path "/x/.tmpBk4Rtu"'
    with (
        pytest.raises(StoreError, match=rf"{tmp_path} cannot be written: {os.strerror(refusal)}\n.*disk is full"),
        as_store_error(tmp_path, no_room=True),
    ):
        raise SafetensorError(said)
    with pytest.raises(SafetensorError, match="invalid header"), as_store_error(tmp_path):
        raise SafetensorError("Error while deserializing: invalid header")
    with pytest.raises(PermissionError), as_store_error(tmp_path, no_room=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="limits of a process, as Linux keeps them")
def test_tensors_that_may_not_grow_are_told(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nimport numpy\n"
        "from safetensors.numpy import save_file\nfrom align_bench.store.files import as_store_error\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path = Path(sys.argv[1])\nwith as_store_error(path):\n    save_file({'a': numpy.zeros(5000)}, path)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.safetensors"], capture_output=True, text=True, check=False
    )
    assert "a.safetensors cannot be written: File too large" in ended.stderr


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="limits of a process, as Linux keeps them")
def test_a_file_that_may_not_grow_leaves_the_one_before(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "kept.bin"
    write_atomically(path, b"old")
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from align_bench.store.files import as_store_error, write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path = Path(sys.argv[1])\nwith as_store_error(path):\n    write_atomically(path, b'x' * 5000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "kept.bin cannot be written: File too large" in ended.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_write(number: int) -> None:
    reached: list[str] = []

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def write() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            reached.append("the end")

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert reached == ["the end"]


def test_a_signal_while_an_artefact_is_sealed_leaves_it_stored(
    store: Store, fill: Fill, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align_bench.store import store as module

    def interrupted(path: Path) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, "sync_file", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            fill()
    finally:
        signal.signal(signal.SIGINT, before)
    assert Store(store.folder).get(address) is not None


def test_what_is_damaged_after_it_was_verified_is_found_when_asked(store: Store, fill: Fill, address: Address) -> None:
    put = fill()
    assert not store.is_damaged(address)
    assert store.get(address) == put
    (put / "weights.bin").write_bytes(b"\0\1\3")
    assert store.get(address) == put, "verified once"
    assert store.is_damaged(address)
    assert store.get(address) is None
    assert not store.is_damaged(address), "it is missing, and said to be damaged once"


def test_delete_and_make_folder(tmp_path: Path) -> None:
    for make in OBSTACLES:
        make(tmp_path / "it")
        delete(tmp_path / "it")
        assert not os.path.lexists(tmp_path / "it")
    delete(tmp_path / "it")
    outside = tmp_path / "outside"
    a_folder(outside)
    (tmp_path / "link").symlink_to(outside)
    delete(tmp_path / "link")
    assert (outside / "deeper" / "mine").is_file(), "what a link leads to stays"
    a_file(tmp_path / "file")
    with pytest.raises(StoreError, match="there is something else of this name"):
        make_folder(tmp_path / "file")
