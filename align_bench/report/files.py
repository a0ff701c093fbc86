"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, with its lone surrogates escaped."""
    with replacing(path) as target:
        # A lone surrogate has no UTF-8; JSON and Markdown both take its escape.
        target.write_bytes(text.encode("utf-8", "backslashreplace"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error."""
    target = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        yield target
        target.replace(path)
    finally:
        target.unlink(missing_ok=True)


def unicode(text: str) -> str:
    """The text with its lone surrogates escaped, for formats that hold nothing but Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
