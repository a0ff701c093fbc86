"""Rows of preferences as a suite names them, and what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.data.preferences import DataSource
    from align_bench.records import PreferenceSet


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows come from.

    Attributes:
        source: the reader's view of a suite's data entry.
        fingerprint: hash of all that decides what is read.
        too_long: `truncate` or `drop`: what to do beyond `train.max_length`.
    """

    source: DataSource = field(compare=False)
    fingerprint: str
    too_long: Any = "truncate"

    def read(self) -> PreferenceSet:
        """The rows as texts, which a process reads once: what a plan has read, a run does not read again.

        Raises:
            DataError: the source is missing, unreadable, of no known shape, or holds no usable row.
        """
        found = _read(self)
        if self.changed():  # before or after these rows were read
            _read.cache_clear()
        return found

    def changed(self) -> bool:
        """Whether the files are no longer those that the fingerprint is of.

        Raises:
            DataError: the source is missing.
        """
        from align_bench.data.fingerprint import fingerprint
        from align_bench.data.preferences import local_files

        return local_files(self.source) is not None and fingerprint(self.source) != self.fingerprint


@lru_cache(maxsize=8)
def _read(rows: Rows) -> PreferenceSet:
    from align_bench.data.preferences import read

    return read(rows.source)
