"""Checkpoints of a training: sealed with their checksum, the last two kept, damaged ones set aside."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from align_bench.store.files import as_store_error, delete, make_folder, replacing, uninterrupted

_SEAL = hashlib.sha256().digest_size


class Checkpoint(TypedDict):
    """All that a step changes: trained weights by name, states of optimizer, scheduler and generators, the log, what
    the method remembers, and the trained weights of a reference that has moved."""

    weights: dict[str, Tensor]
    optimizer: Any
    scheduler: str
    step: int
    tokens: int
    log: str
    running: str
    reference: dict[str, Tensor]
    random: Tensor
    random_cuda: list[Tensor]


def write(path: Path, content: Checkpoint) -> None:
    """Write a checkpoint, forced to disk; the one before it stays beside it. Ctrl-C and SIGTERM wait for that.

    Raises:
        StoreError: the system refuses to write it.
    """
    make_folder(path.parent)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    with as_store_error(path), uninterrupted(), replacing(path) as temporary:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        if path.is_file():
            path.replace(_previous(path))
        else:
            delete(path)  # a folder, or a link that leads nowhere, left by a foreign hand


def last_good(path: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; None where there is none. A damaged one is renamed, and said to be.

    Args:
        path: what `write` was given.
        say: takes the line on a damaged one.

    Raises:
        StoreError: the system refuses to read or to rename one.
    """
    for file in (path, _previous(path)):
        with as_store_error(file):
            if not file.is_file():
                continue
            data = file.read_bytes()
            seal, data = data[:_SEAL], data[_SEAL:]
            if hashlib.sha256(data).digest() == seal:
                found: Checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                return found
            aside = file.with_name(f"{file.name}.damaged")
            file.replace(aside)
        say(f"the checkpoint {file} is damaged: it was renamed to {aside.name}, and training goes on without it")
    return None


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")
