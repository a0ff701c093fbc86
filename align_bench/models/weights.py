"""What weight files hold, read without loading them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from align_bench.store.keys import file_digest

if TYPE_CHECKING:
    from pathlib import Path


def weight_shapes(path: Path) -> dict[str, list[int]]:
    """Weight → shape, from the header of a safetensors file."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def weights_digest(folder: Path) -> str:
    """sha256 over a model's weight files: their names and sha256 sums, in the names' order."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        whole.update(f"{path.name}:{file_digest(path)}\n".encode())
    return whole.hexdigest()
