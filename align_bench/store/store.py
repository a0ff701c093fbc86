"""One store for all suites of a folder: artefacts written whole, checksummed, and locked one by one.

    <runs>/<kind>/<label>-<key>/    an artefact: its files, and a manifest with their checksums and its cost
    <runs>/suites/<suite>.json      what each suite needs, as its last run noted
    <runs>/failed/<kind>-<key>.json what could not be made, and why
    <runs>/damaged/<kind>-<key>/    an artefact whose checksums did not hold
    <runs>/.writing, .partial, .locks   work in progress, under the same names

An artefact appears by one rename, whole or not at all, so a killed run leaves nothing half-written under a final name.
It is found by its kind and key; the label is that of the cell that first asked for it, for people.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from align_bench.errors import StoreError
from align_bench.records import Cost, Facts, Json
from align_bench.store.failures import Failures
from align_bench.store.files import (
    as_store_error,
    delete,
    make_folder,
    sync_file,
    sync_folder,
    uninterrupted,
    write_atomically,
)
from align_bench.store.keys import Address, file_digest
from align_bench.store.labels import safe_label
from align_bench.store.notes import Notes
from align_bench.store.version import SCHEMA, other_schema, other_version

MANIFEST = "manifest.json"
SEAL = "seal"

SUITES, FAILED, DAMAGED = "suites", "failed", "damaged"
WRITING, PARTIAL, LOCKS = ".writing", ".partial", ".locks"
POLL_SECONDS = 0.25  # between two tries for a lock that another process holds

_NAME = re.compile(r"(?P<label>.+)-(?P<key>[0-9a-f]{20})", re.DOTALL)

_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A stored result.

    Attributes:
        folder: where its files are.
        address: its kind and key.
        label: the cell that first asked for it, as its folder is called.
        cost: what it cost.
        facts: small values that reports and plans read without opening the files.
    """

    folder: Path
    address: Address
    label: str
    cost: Cost
    facts: Facts

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


class Store:
    """The artefacts of all suites of one folder; several processes may work in it.

    Attributes:
        folder: where it is.
        notes: what each suite's last run noted that the suite needs.
        failures: what could not be made, and why.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = Notes(folder / SUITES)
        self.failures = Failures(folder / FAILED)
        self._names: dict[str, dict[str, str]] = {}  # kind → key → the folder's name, as last listed
        self._verified: set[Address] = set()

    def check(self) -> None:
        """Refuse a folder that this version cannot work in; a folder that does not exist yet is fine.

        Raises:
            StoreError: an earlier or later version made it.
        """
        for entry in _folders(self.folder):
            if (entry / "lock").is_file() and any(
                _NAME.fullmatch(one.parent.name) for one in entry.glob(f"*/{MANIFEST}")
            ):
                raise other_version(entry, "by an earlier version of align-bench, with a store for each suite")
        for (
            kind
        ) in self.kinds():  # of each kind one artefact; `get_unverified` and `get` look at every one that they read
            for name in list(self._listed(kind).values())[:1]:
                _manifest(self.folder / kind / name)

    def kinds(self) -> list[str]:
        """The kinds that have a folder, sorted."""
        return [path.name for path in _folders(self.folder) if _is_kind(path.name)]

    # -- artefacts -----------------------------------------------------------------------------------------------------

    def __contains__(self, address: Address) -> bool:
        folder = self._find(address)
        return folder is not None and (folder / MANIFEST).is_file()

    def keys(self, kind: str) -> frozenset[str]:
        """The keys of all folders of a kind, whether or not what lies in them is whole."""
        return frozenset(self._listed(kind))

    def get_unverified(self, address: Address) -> Artefact | None:
        """The artefact without a look at its files; None when it is not stored or its manifest is damaged.

        Raises:
            StoreError: when another version wrote it, or the system refuses to read it.
        """
        folder = self._find(address)
        found = None if folder is None else _read(folder)
        return found[0] if found is not None and found[0].address == address else None

    def get(self, address: Address) -> Artefact | None:
        """The artefact, its checksums verified once by each store object; None when it is not stored.

        A damaged artefact is moved aside to `damaged/` and reported as not stored, so that it is computed again.

        Raises:
            StoreError: when another version wrote it, or the system refuses to read it.
        """
        folder = self._find(address)
        if folder is None or not (folder / MANIFEST).exists():
            return None
        seen = _identity(folder)
        found = _read(folder)
        if found is not None and found[0].address == address:
            artefact, files = found
            if address in self._verified:
                return artefact
            if _is_intact(folder, files):
                self._verified.add(address)
                with contextlib.suppress(OSError):  # when it was last used; another's folder may be read-only
                    os.utime(folder / MANIFEST)
                return artefact
        if seen is not None and _identity(folder) == seen:  # else another process has moved or mended it
            self._set_aside(folder, address)
        return None

    def aside(self, address: Address) -> Path:
        """Where an artefact is moved to when its checksums do not hold."""
        return self.folder / DAMAGED / str(address)

    def is_damaged(self, address: Address) -> bool:
        """Whether an artefact that was verified before is so no more; it is then moved aside as `get` does."""
        if address not in self._verified:
            return False
        self._verified.discard(address)
        return self.get(address) is None

    def artefacts(self) -> Iterator[Artefact]:
        """Every artefact with a readable manifest, by kind and name; their files are not verified."""
        for kind in self.kinds():
            for name in sorted(self._listed(kind).values()):
                found = _read(self.folder / kind / name)
                if found is not None and found[0].address.kind == kind:
                    yield found[0]

    def put(self, address: Address, label: str, written: Path, cost: Cost, facts: Facts) -> Artefact:
        """Seal a folder that `scratch` gave and rename it to its final place; what is sealed there already stays.

        Ctrl-C and SIGTERM wait until it is done: what took hours to compute is not lost in the second that stores it.

        Args:
            address: the artefact's address.
            label: id of the cell that asked for it, any text.
            written: the scratch folder that holds its files.
            cost: what it cost.
            facts: small values that reports and plans read without opening the files.

        Raises:
            StoreError: the artefact's kind has no folder, and none can be made.
        """
        with uninterrupted():
            return self._put(address, label, written, cost, facts)

    def _put(self, address: Address, label: str, written: Path, cost: Cost, facts: Facts) -> Artefact:
        there = self._find(address)
        if there is not None:
            if (stored := self.get(address)) is not None:
                return stored
            if there.exists():  # left without a manifest by a foreign hand
                self._set_aside(there, address)
        label = safe_label(label)
        content = [path for path in sorted(written.rglob("*")) if not path.is_dir()]
        manifest: dict[str, Json] = {
            "schema": SCHEMA,
            **asdict(address),
            "label": label,
            "files": {path.relative_to(written).as_posix(): file_digest(path) for path in content},
            "cost": asdict(cost),
            "facts": dict(facts),
        }
        for path in content:
            sync_file(path)
        write_atomically(written / MANIFEST, json.dumps({**manifest, SEAL: _seal(manifest)}, indent=1))
        for path in [*(path for path in written.rglob("*") if path.is_dir()), written]:
            sync_folder(path)
        kind = self._kind(address)
        make_folder(kind)
        final = kind / f"{label}-{address.key}"
        if os.path.lexists(final):  # a file, or a link that leads nowhere, left by a foreign hand
            self._set_aside(final, address)
        written.rename(final)
        sync_folder(kind)
        self._names.setdefault(address.kind, {})[address.key] = final.name
        self._verified.add(address)
        self.failures.clear(address)
        return Artefact(final, address, label, cost, dict(facts))

    @contextlib.contextmanager
    def scratch(self, address: Address) -> Iterator[Path]:
        """An empty folder to write an artefact's files into; removed afterwards unless `put` has renamed it.

        Only who holds the artefact's lock may write: it is the same folder for all.
        """
        folder = self.folder / WRITING / str(address)
        make_folder(folder.parent)
        try:
            delete(folder)
            folder.mkdir()
        except OSError as error:
            raise StoreError(
                f"{folder}, where a result is to be written, cannot be created empty: {error.strerror or error}",
                fix="check who owns it, or give another folder with --runs",
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def partial(self, address: Address) -> Path:
        """A folder that outlives a kill, for checkpoints of an artefact that is not finished; not made here."""
        return self.folder / PARTIAL / str(address)

    def rates(
        self, among: Collection[Address] | None = None, made_on: Callable[[str], bool] | None = None
    ) -> dict[str, float]:
        """Tokens per second by kind, from the costs that artefacts recorded; the damaged ones are passed over.

        Args:
            among: of these artefacts, such as those of one suite; of all when None.
            made_on: only of those that were made on a device of such a name; wherever they were made when None.
        """
        chosen = self.artefacts() if among is None else filter(None, map(self.get_unverified, sorted(among)))
        sums: dict[str, tuple[float, float]] = {}
        for artefact in chosen:
            device = artefact.cost.device
            if made_on is not None and (device is None or not made_on(device)):
                continue
            tokens, seconds = sums.get(artefact.address.kind, (0.0, 0.0))
            sums[artefact.address.kind] = (tokens + artefact.cost.tokens, seconds + artefact.cost.seconds)
        return {kind: tokens / seconds for kind, (tokens, seconds) in sums.items() if tokens and seconds}

    # -- locks ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, address: Address, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold an artefact while it is made; the lock goes with the process, however it ends.

        Whoever has waited looks again with `get` before making it: the other one may have made it.

        Args:
            address: the artefact's address.
            waiting: called once when another process holds it, before waiting for it.

        Raises:
            StoreError: the system refuses to make or open the lock's file.
        """
        held = self.try_lock(address)
        if held is None:
            waiting()
            held = self._file_lock(address)
            with as_store_error(Path(held.lock_file)):
                held.acquire(poll_interval=POLL_SECONDS)
        try:
            yield
        finally:
            held.release()

    def try_lock(self, address: Address) -> FileLock | None:
        """The held lock of an artefact, to be released by the caller; None when another process holds it."""
        lock = self._file_lock(address)
        with as_store_error(Path(lock.lock_file)):
            try:
                lock.acquire(timeout=0)
            except Timeout:  # an OSError, too
                return None
        return lock

    def _file_lock(self, address: Address) -> FileLock:
        # The empty files stay: to delete one that another process is about to lock would let two hold it.
        make_folder(self.folder / LOCKS)
        path = self.folder / LOCKS / f"{address}.lock"
        if path.is_dir():  # no process can hold it
            raise StoreError(f"{path} is a folder; expected the empty file of a lock", fix="delete it, and run again")
        return FileLock(path)

    # -- finding -------------------------------------------------------------------------------------------------------

    def _kind(self, address: Address) -> Path:
        """The folder of the address's kind."""
        if not _is_kind(Address.parse(str(address)).kind):
            raise ValueError(
                f"{address.kind!r} cannot be a kind of artefact: the store has its own folder of that name"
            )
        return self.folder / address.kind

    def _find(self, address: Address) -> Path | None:
        """The artefact's folder, if there is one; the kind's folder is listed again when it is not known."""
        kind = self._kind(address)
        name = self._names.get(address.kind, {}).get(address.key)
        if name is None or not (kind / name).is_dir():
            name = self._listed(address.kind).get(address.key)
        return None if name is None else kind / name

    def _listed(self, kind: str) -> dict[str, str]:
        found = {}
        for path in _folders(self.folder / kind):
            if match := _NAME.fullmatch(path.name):
                found[match["key"]] = path.name
        self._names[kind] = found
        return found

    def _set_aside(self, folder: Path, address: Address) -> None:
        aside = self.aside(address)
        make_folder(aside.parent)
        with as_store_error(aside):
            delete(aside)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                folder.rename(aside)
        self._names.get(address.kind, {}).pop(address.key, None)
        self._verified.discard(address)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, hidden ones aside; none when it does not exist."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [folder / name for name in sorted(names)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_kind(name: str) -> bool:
    return name.isidentifier() and name not in (SUITES, FAILED, DAMAGED)


def _read(folder: Path) -> tuple[Artefact, Mapping[str, str]] | None:
    """An artefact by its manifest, with its files' checksums; None when the manifest is missing or damaged.

    Raises:
        StoreError: when another version wrote it, or the system refuses to read it.
    """
    manifest = _manifest(folder)
    try:
        address, cost = Address(manifest["kind"], manifest["key"]), Cost(**manifest["cost"])
        artefact = Artefact(folder, address, manifest["label"], cost, dict(manifest["facts"]))
        return artefact, dict(manifest["files"])
    except (ValueError, LookupError, TypeError):
        return None


def _manifest(folder: Path) -> Any:
    """What a folder's manifest holds; None when it is missing, damaged or changed, or of no version."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (*_NO_FILE, ValueError, RecursionError):
        return None
    except OSError as error:
        raise _unreadable(folder / MANIFEST, error) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise other_schema(folder, schema)
    if schema != SCHEMA:
        return None
    seal = manifest.pop(SEAL, None)  # none in the manifests of earlier versions
    return manifest if seal in (None, _seal(manifest)) else None


def _seal(manifest: Mapping[str, Json]) -> str:
    """The checksum of all else in a manifest."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_intact(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether every file has its checksum."""
    for name, digest in files.items():
        try:
            if file_digest(folder / name) != digest:
                return False
        except _NO_FILE:
            return False
        except OSError as error:
            raise _unreadable(folder / name, error) from error
    return True


def _unreadable(path: Path, error: OSError) -> StoreError:
    # It may be whole: it is not moved aside as damaged is.
    return StoreError(f"{path} cannot be read: {error.strerror or error}", fix="check who owns it, or its disk")


def _identity(folder: Path) -> tuple[int, int] | None:
    """What distinguishes a folder from another one that takes its name; None when there is none."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
