"""How a report's texts and values become files."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from align_bench.records import Json
from align_bench.store.files import replacing, write_atomically


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, with its lone surrogates escaped; whole or not at all."""
    # A lone surrogate has no UTF-8; JSON and Markdown both take its escape.
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """Write a text that is never in memory as a whole, as `write_text` does."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(piece.encode("utf-8", "backslashreplace") for piece in pieces)


def unicode(text: str) -> str:
    """The text with its lone surrogates escaped, for formats that hold nothing but Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_ready(value: object) -> Json:
    """The value in JSON's own types: non-finite numbers become None, arrays lists, other objects their text.

    A dataclass becomes an object of its fields, as by `asdict`, which copies all that is in it.
    """
    if value is None or isinstance(value, (str, int)):  # `str | int` would be made anew at every call
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: json_ready(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(json_ready, value), key=str)
    if hasattr(value, "tolist"):
        return json_ready(value.tolist())
    return str(value)


def json_line(value: object) -> str:
    """The value as a line of JSON; of what pydantic cannot write, such as a lone surrogate, by `json_ready`."""
    try:
        return to_json(value, inf_nan_mode="null").decode() + "\n"
    except ValueError:
        return json.dumps(json_ready(value), ensure_ascii=False, separators=(",", ":")) + "\n"


@lru_cache
def _fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it no reference cycles are searched for: a report has few, and that takes a tenth of its time."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
