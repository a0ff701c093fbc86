"""Content-addressed artefacts: written atomically, checksummed, locked.

An artefact is a folder `<kind>-<key>` that holds its files and a `manifest.json` with their checksums and the cost. It
appears by one rename, whole or not at all; so a killed run leaves nothing half-written under a final name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_bench.errors import StoreError
from align_bench.records import Cost

MANIFEST = "manifest.json"


def content_key(value: Any) -> str:
    """A key that hashes all that an artefact depends on.

    Args:
        value: nested mappings, sequences, strings, numbers and None.

    Returns:
        20 hexadecimal digits.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Artefact:
    """A stored result: its folder and what it cost."""

    folder: Path
    cost: Cost
    facts: Mapping[str, Any]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


class Store:
    """The artefacts of one suite, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str) -> Path:
        """Where the artefact is, or would be."""
        return self.folder / f"{kind}-{key}"

    def __contains__(self, kind_and_key: tuple[str, str]) -> bool:
        return (self.path(*kind_and_key) / MANIFEST).is_file()

    def get(self, kind: str, key: str) -> Artefact | None:
        """The artefact, its checksums verified; None when it is not stored.

        A damaged artefact is moved aside to `damaged-…` and reported as not stored, so that it is computed again.
        """
        folder = self.path(kind, key)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            damaged = [
                name
                for name, digest in manifest["files"].items()
                if not (folder / name).is_file() or file_digest(folder / name) != digest
            ]
            cost, facts = Cost(**manifest["cost"]), manifest["facts"]
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, AttributeError):
            damaged = [MANIFEST]
        if damaged:
            aside = self.folder / f"damaged-{folder.name}-{os.getpid()}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            return None
        return Artefact(folder, cost, facts)

    def put(self, kind: str, key: str, written: Path, cost: Cost, facts: Mapping[str, Any]) -> Artefact:
        """Seal a folder that `scratch` gave and rename it to its final place.

        Args:
            kind, key: the artefact's address.
            written: the scratch folder that holds its files.
            cost: what it cost.
            facts: small values that reports and plans read without opening the files.
        """
        files = {
            str(path.relative_to(written)): file_digest(path) for path in sorted(written.rglob("*")) if path.is_file()
        }
        manifest = {"kind": kind, "key": key, "files": files, "cost": asdict(cost), "facts": dict(facts)}
        write_atomically(written / MANIFEST, json.dumps(manifest, indent=1))
        final = self.path(kind, key)
        if final.exists():  # left without a manifest by a foreign hand
            shutil.rmtree(final)
        _sync(written)
        written.rename(final)
        _sync(self.folder)
        return Artefact(final, cost, dict(facts))

    @contextlib.contextmanager
    def scratch(self, kind: str, key: str) -> Iterator[Path]:
        """An empty folder to write an artefact's files into; removed afterwards unless `put` has renamed it."""
        folder = self.folder / f".writing-{kind}-{key}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def partial(self, kind: str, key: str) -> Path:
        """A folder that outlives a kill, for checkpoints of an artefact that is not finished."""
        return self.folder / f".partial-{kind}-{key}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; the lock goes with the process, however it ends.

        Raises:
            StoreError: when another run holds it.
        """
        make_folder(self.folder)
        with (self.folder / "lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(
                    f"another run is working in {self.folder}",
                    fix="wait for it, or give this one its own --runs folder",
                ) from None
            yield


def make_folder(folder: Path) -> None:
    """Make a folder with its parents.

    Raises:
        StoreError: when it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made: {error.strerror}", fix="name another folder") from None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _sync(folder: Path) -> None:
    """Force a folder's files and its entries to disk."""
    for path in [*folder.iterdir(), folder]:
        if path.name.startswith(".") or (path.is_dir() and path != folder):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
