"""What model files say of themselves at their beginning, checked before anything is allocated or loaded by it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from align_bench.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json

MOST_HEADER_BYTES = 100 * 2**20  # of a safetensors file, as its own library has it
MOST_CONFIG_BYTES = 16 * 2**20
MOST_VALUES = 2**48  # of one tensor
_GGUF_VERSIONS = (2, 3)
_FIX = "fetch or save the model again"


def json_object(path: Path) -> dict[str, Json]:
    """A JSON file of a model's folder that holds an object.

    Raises:
        ModelError: it cannot be read, is too large, or holds something else.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path}: got no regular file, expected JSON", fix=_FIX)
        with path.open("rb") as stream:
            content = stream.read(MOST_CONFIG_BYTES + 1)
        if len(content) > MOST_CONFIG_BYTES:
            raise ModelError(f"{path}: got more than {MOST_CONFIG_BYTES:,} bytes, expected a configuration", fix=_FIX)
        found = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {type(error).__name__}: {error}", fix=_FIX) from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: got {type(found).__name__}, expected a JSON object", fix=_FIX)
    return found


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Weight → shape, from the header of a safetensors file.

    Raises:
        ModelError: the header is damaged, or says more than the file holds.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise ModelError(f"{path}: its header says {length:,} bytes, the file has {size:,}", fix=_FIX)
            header = json.loads(stream.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}", fix=_FIX) from None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: its header is no object", fix=_FIX)
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    return {name: _shape(path, name, tensor, size - 8 - length) for name, tensor in tensors.items()}


def _shape(path: Path, name: str, tensor: object, room: int) -> list[int]:
    damaged = ModelError(f"{path}: its header is damaged at the tensor {name[:100]!r}", fix=_FIX)
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    place = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    for numbers, most in ((shape, MOST_VALUES), (place, room)):
        if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number <= most for number in numbers):
            raise damaged
    assert isinstance(shape, list)
    assert isinstance(place, list)
    if math.prod(shape) > MOST_VALUES or len(place) != 2 or place[0] > place[1]:
        raise damaged
    return shape


def check_gguf(path: Path) -> None:
    """Refuse a file that does not begin as a GGUF file does.

    Raises:
        ModelError: it is another kind of file, of another version, or says more than it holds.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(24)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    version = int.from_bytes(head[4:8], "little")
    counts = [int.from_bytes(head[start : start + 8], "little") for start in (8, 16)]  # tensors, keys of metadata
    if len(head) < 24 or head[:4] != b"GGUF":
        raise ModelError(f"{path} is not a GGUF file", fix=_FIX)
    if version not in _GGUF_VERSIONS:
        raise ModelError(f"{path}: got a GGUF file of version {version}, expected 2 or 3", fix="convert it again")
    # A tensor takes at least a name's length, its dimensions, type and place; a key its length, type and value.
    if counts[0] * 24 + counts[1] * 13 > size:
        raise ModelError(
            f"{path}: its header says {counts[0]:,} tensors and {counts[1]:,} keys, too many for its size", fix=_FIX
        )
