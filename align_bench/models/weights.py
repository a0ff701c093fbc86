"""What weight files hold, read without loading them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from align_bench.models.headers import tensor_shapes
from align_bench.store.keys import file_digest

if TYPE_CHECKING:
    from pathlib import Path


def weight_shapes(path: Path) -> dict[str, list[int]]:
    """Weight → shape, from the header of a safetensors file.

    Raises:
        ModelError: the header is damaged, or says more than the file holds.
    """
    return tensor_shapes(path)


def weights_digest(folder: Path) -> str:
    """sha256 over a model's weight files: their names and sha256 sums, in the names' order."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        whole.update(f"{path.name}:{file_digest(path)}\n".encode())
    return whole.hexdigest()
