"""Digests of big files, remembered while the files stay as they are."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from align_bench.store.files import write_atomically
from align_bench.store.keys import file_digest

CACHE_VARIABLE = "ALIGN_BENCH_CACHE"
SMALLEST_BYTES = 16 * 2**20  # a smaller file is hashed in the time that a look-up is worth
SETTLED_SECONDS = 2.0  # two writes within one tick of a file system's clock look the same
_MOST = 2_000  # files remembered; the oldest are dropped


def cache_folder() -> Path | None:
    """Where things are remembered between runs: `$ALIGN_BENCH_CACHE`, or the user's cache; None without a home."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "align-bench"
    try:
        return Path.home() / ".cache" / "align-bench"
    except RuntimeError:
        return None


class Remembered:
    """sha256 of files, which reads a big file again only when it may have changed.

    A file is known by its device, inode, size and the times of its last change. A change in place that keeps size and
    modification time is noticed all the same, by the time that the system keeps and nobody can set; Windows keeps none.

    Args:
        path: the file that remembers; by default one in the user's cache. Where it cannot be written, nothing is
            remembered between processes.
    """

    def __init__(self, path: Path | None = None) -> None:
        folder = cache_folder()
        self._path = path if path is not None or folder is None else folder / "digests.json"
        self._known: dict[str, str] | None = None

    def digest(self, file: Path) -> str:
        """sha256 of a file's bytes, hexadecimal.

        Raises:
            OSError: the file cannot be read.
        """
        before = file.stat()
        if self._path is None or before.st_size < SMALLEST_BYTES:
            return file_digest(file)
        if self._known is None:
            self._known = _read(self._path)
        identity = _identity(before)
        if identity in self._known:
            return self._known[identity]
        digest = file_digest(file)
        after = file.stat()
        settled = time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_SECONDS
        if settled and _identity(after) == identity:
            self._remember(self._path, identity, digest)
        return digest

    def _remember(self, path: Path, identity: str, digest: str) -> None:
        entries = {**_read(path), identity: digest}  # another process may have written since
        self._known = dict(list(entries.items())[-_MOST:])
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(self._known, indent=0))


def _identity(status: os.stat_result) -> str:
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(map(str, parts))


def _read(path: Path) -> dict[str, str]:
    """What is remembered; nothing when it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
        return {str(identity): str(digest) for identity, digest in content.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
