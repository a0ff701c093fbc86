"""What names an artefact: its kind, and a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from align_bench.records import Json

_DIGITS = 20
_ADDRESS = re.compile(rf"([A-Za-z_]\w*)-([0-9a-f]{{{_DIGITS}}})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where an artefact is stored.

    Attributes:
        kind: what it is, such as `adapter`; a plain word.
        key: a hash of all that it depends on, by `content_key`.
    """

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.key}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address of a text that `str` gave.

        Raises:
            ValueError: it is no such text.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no address; expected a kind, a hyphen and {_DIGITS} hexadecimal digits")
        return cls(*match.groups())


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_key(value: Json) -> str:
    """A key that hashes all that an artefact depends on.

    Args:
        value: nested mappings, sequences, strings, numbers and None.

    Returns:
        20 hexadecimal digits.
    """
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:_DIGITS]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
