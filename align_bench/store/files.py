"""Files that are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align_bench.errors import StoreError

NO_ROOM = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG") if hasattr(errno, name))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that is forced to disk and takes its place when the block ends without an error.

    Who writes it may be a library that wants a file's name, such as a writer of Parquet.
    """
    # Names end at 255 bytes, and one character may take four of them.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or the new one, never half of it; text as UTF-8.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate; the old file stays.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block has ended, so that what is being written is finished first.

    Only the main thread may set handlers; in another one, and beside a handler that is not Python's, nothing waits.
    """
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread() or None in before.values():
        yield
        return
    for number in before:
        signal.signal(number, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


@contextmanager
def as_store_error(path: Path, *, no_room: bool = False) -> Iterator[None]:
    """Turn the system's refusal to write into one line: a folder of another user, or a full disk.

    Args:
        path: what was written.
        no_room: only a full disk, a quota or a disk that is read-only; other refusals may be of what was read.

    Raises:
        StoreError: in place of an `OSError`, or of the error as which safetensors tells that there is no room.
    """
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, OSError) else _refused_tensors(error)
        if refused is None or (no_room and refused.errno not in NO_ROOM):
            raise
        raise StoreError(
            f"{refused.filename2 or path} cannot be written: {refused.strerror or refused}",
            fix="check who owns its folder and whether its disk is full, or name another folder",
        ) from error


def _refused_tensors(error: Exception) -> OSError | None:
    """What the system said where safetensors, which raises errors of its own, had no room to write."""
    if not type(error).__module__.startswith("safetensors"):
        return None
    said = str(error)
    found = next((number for number in NO_ROOM if os.strerror(number) in said or f"(os error {number})" in said), None)
    return None if found is None else OSError(found, os.strerror(found))


def make_folder(folder: Path) -> None:
    """Make a folder with its parents.

    Raises:
        StoreError: when it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise StoreError(
            f"the folder {folder} cannot be made: there is something else of this name",
            fix="look what it is, and move it away",
        ) from None
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made: {error.strerror}", fix="name another folder") from None


def delete(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it; nothing there is fine.

    Raises:
        OSError: the system refuses to.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file's content to disk."""
    _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only what is open for writing


def sync_folder(folder: Path) -> None:
    """Force a folder's own entries, such as a rename in it, to disk."""
    if os.name != "nt":  # a folder cannot be opened there, and NTFS journals its entries itself
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
