"""What nobody needs any more in a store, and how it is removed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from align_bench.errors import StoreError
from align_bench.store.files import delete, make_folder
from align_bench.store.keys import Address
from align_bench.store.store import DAMAGED, FAILED, PARTIAL, WRITING, Store

State = Literal["stored", "writing", "partial", "damaged", "failed"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something in a store that no suite needs.

    Attributes:
        state: `stored`: an artefact; `writing`: what a killed run was writing; `partial`: checkpoints of a training;
            `damaged`: an artefact whose checksums did not hold; `failed`: the record of a failure.
        address: of the artefact that it is, or was to be.
        label: the cell that first asked for it; empty where that is not known.
        path: its folder or file.
        size_bytes: of all its files.
        used: when it was last used, or last changed where it is no artefact; seconds since the epoch.
    """

    state: State
    address: Address
    label: str
    path: Path
    size_bytes: int
    used: float

    @property
    def kind(self) -> str:
        """The artefact's kind."""
        return self.address.kind


def unneeded(store: Store, *, without: Collection[str] = ()) -> list[Leftover]:
    """Artefacts that no suite has noted as needed, and what is left of killed and failed work; sorted by path.

    Checkpoints and failures of artefacts that a suite needs are no leftovers while these are not stored. What a process
    is writing just now is listed too: `remove` leaves it alone.

    Args:
        store: the store.
        without: suites whose needs do not count, since they are about to be forgotten.

    Raises:
        StoreError: a suite's record cannot be read.
    """
    needed = _needed(store, without)
    found: list[tuple[State, Address, str, Path]] = [
        ("stored", artefact.address, artefact.label, artefact.folder) for artefact in store.artefacts()
    ]
    found += [(state, address, "", path) for state, address, path in _beside(store)]
    left = [_leftover(*one) for one in found if _is_left(store, needed, one[0], one[1])]
    return sorted((one for one in left if one is not None), key=lambda one: str(one.path))


def remove(store: Store, leftover: Leftover) -> bool:
    """Delete a leftover under its artefact's lock.

    Returns:
        False when it stays: another process works on it, or a suite needs it by now.

    Raises:
        StoreError: it cannot be deleted, or a suite's record cannot be read.
    """
    lock = store.try_lock(leftover.address)
    if lock is None:
        return False
    try:
        if not _is_left(store, _needed(store), leftover.state, leftover.address):
            return False
        _delete(store, leftover)
    except OSError as error:
        raise StoreError(
            f"{leftover.path} cannot be deleted: {error.strerror or error}",
            fix="check who owns it, or delete it by hand",
        ) from error
    finally:
        lock.release()
    return True


def _delete(store: Store, leftover: Leftover) -> None:
    away = leftover.path
    if leftover.state == "stored":  # a kill in the middle must not leave a part of it under its name
        away = store.folder / WRITING / str(leftover.address)
        make_folder(away.parent)
        delete(away)
        with contextlib.suppress(FileNotFoundError):
            leftover.path.rename(away)
    with contextlib.suppress(FileNotFoundError):
        delete(away)


def _needed(store: Store, without: Collection[str] = ()) -> set[Address]:
    notes = [note for suite, note in store.notes.all().items() if suite not in without]
    return {address for note in notes for address in note.needs}


def _is_left(store: Store, needed: Collection[Address], state: State, address: Address) -> bool:
    if state in ("writing", "damaged") or address not in needed:
        return True
    return state != "stored" and address in store


def _beside(store: Store) -> Iterator[tuple[State, Address, Path]]:
    """Everything that is no artefact, with the artefact that it belongs to; what is not ours is passed over."""
    states: dict[State, str] = {"writing": WRITING, "partial": PARTIAL, "damaged": DAMAGED, "failed": FAILED}
    for state, folder in states.items():
        for path in (store.folder / folder).glob("*"):
            name = path.name.removesuffix(".json") if state == "failed" else path.name
            with contextlib.suppress(ValueError):
                yield state, Address.parse(name), path


def _leftover(state: State, address: Address, label: str, path: Path) -> Leftover | None:
    """None when it has gone in the meantime."""
    try:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        times = [one.stat().st_mtime for one in files] or [path.lstat().st_mtime]
        return Leftover(state, address, label, path, sum(os.path.getsize(one) for one in files), max(times))  # noqa: PTH202
    except FileNotFoundError:
        return None
