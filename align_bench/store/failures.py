"""What could not be made, and why: a record per artefact."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from align_bench.store.files import as_store_error, delete, make_folder, write_atomically
from align_bench.store.keys import Address


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an artefact could not be made.

    Attributes:
        what: what was tried, in words.
        reason: the error, in words.
        permanent: whether another try cannot help.
        traceback: of the error.
    """

    what: str
    reason: str
    permanent: bool
    traceback: str


class Failures:
    """The failures recorded in a store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, address: Address) -> Failure | None:
        """Why the artefact could not be made when it was last tried; None without a readable record."""
        try:
            found = Failure(**json.loads(self.path(address).read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts = (found.what, found.reason, found.traceback)
        return found if all(isinstance(text, str) for text in texts) and isinstance(found.permanent, bool) else None

    def record(self, address: Address, failure: Failure) -> None:
        """Record that the artefact could not be made.

        Raises:
            StoreError: the record cannot be written.
        """
        path = self.path(address)
        make_folder(path.parent)
        with as_store_error(path):
            if path.is_dir():  # left by a foreign hand
                delete(path)
            write_atomically(path, json.dumps(asdict(failure), indent=1))

    def clear(self, address: Address) -> None:
        """Delete the artefact's record, if there is one.

        Raises:
            StoreError: it cannot be deleted.
        """
        path = self.path(address)
        with as_store_error(path):
            delete(path)

    def path(self, address: Address) -> Path:
        """The record's file."""
        return self._folder / f"{address}.json"
