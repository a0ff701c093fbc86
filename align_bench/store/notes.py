"""What the last run of each suite noted: which artefacts the suite needs, and how its judges are loaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from align_bench.errors import StoreError
from align_bench.records import Facts, Json, Parameters
from align_bench.store.files import as_store_error, make_folder, write_atomically
from align_bench.store.keys import Address
from align_bench.store.version import SCHEMA, other_schema


@dataclass(frozen=True, slots=True)
class NotedBase:
    """The base of a run.

    Attributes:
        name: hub id, or the path of its folder or file.
        digest: hash of all its files.
        chat_template_kwargs, date: what its chat template read beside the turns.
    """

    name: str
    digest: str
    chat_template_kwargs: Mapping[str, Json] = field(default_factory=dict)
    date: str | None = None


@dataclass(frozen=True, slots=True)
class NotedScorer:
    """A cell that scores answers: a reward model, or a judge.

    Attributes:
        adapter: of one trained here; None for a loaded judge.
        seed: the cell's.
        loaded: the suite's entry of a loaded judge; None for one trained here.
        base: what it was trained on, where that is a model that was given as its start; None for the suite's base.
    """

    adapter: Address | None
    seed: int
    loaded: Facts | None
    base: NotedBase | None = None


@dataclass(frozen=True, slots=True)
class NotedJudge:
    """A judge of the suite.

    Attributes:
        cells: its cell, or one per member of its ensemble; none for gold.
        ensemble: how the members' scores are combined, as the suite says it; None for a single one.
    """

    cells: tuple[str, ...]
    ensemble: Parameters | None


@dataclass(frozen=True, slots=True)
class Scorers:
    """What `align-bench score` needs to load the judges and reward models of a run again.

    Attributes:
        base: what the reward models were trained on, but for those that note another one.
        storage: the suite's `precision`.
        max_length: tokens of prompt + answer.
        cells: cell → what it is loaded from.
        judges: judge → the cells that it is made of.
    """

    base: NotedBase
    storage: str
    max_length: int
    cells: Mapping[str, NotedScorer]
    judges: Mapping[str, NotedJudge]


@dataclass(frozen=True, slots=True)
class RunNote:
    """What a suite's last run noted.

    Attributes:
        needs: the artefacts that the suite needs; what no suite needs may be deleted.
        reported: those that the report on disk rests on.
        scorers: its reward models and judges; None where the note has none.
    """

    needs: tuple[Address, ...] = ()
    reported: tuple[Address, ...] = ()
    scorers: Scorers | None = None


class Notes:
    """The notes in a store: a file per suite."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, suite: str, note: RunNote) -> None:
        """Write down a suite's note, in place of its last one.

        Args:
            suite: its name, which is a file's name by the rules of suites.
            note: what to write down.

        Raises:
            StoreError: it cannot be written.
        """
        path = self._path(suite)
        make_folder(path.parent)
        with as_store_error(path):
            write_atomically(path, _as_text(suite, note))

    def holds(self, suite: str, note: RunNote) -> bool:
        """Whether this very note is written down of the suite."""
        try:
            return self._path(suite).read_text(encoding="utf-8") == _as_text(suite, note)
        except (OSError, ValueError):
            return False

    def all(self) -> dict[str, RunNote]:
        """Every suite's note, by the suite's name.

        Raises:
            StoreError: a note cannot be read. To pass over it would make what its suite needs look unneeded.
        """
        return {path.stem: _read(path) for path in sorted(self._folder.glob("*.json")) if path.name[0] != "."}

    def get(self, suite: str) -> RunNote | None:
        """One suite's note, whatever has become of the others'; None without one.

        Raises:
            StoreError: it cannot be read.
        """
        known = {path.stem: path for path in self._folder.glob("*.json") if path.name[0] != "."}
        return _read(known[suite]) if suite in known else None

    def readable(self) -> dict[str, RunNote | None]:
        """As `all`, but None for a note that cannot be read."""
        found: dict[str, RunNote | None] = {}
        for path in sorted(self._folder.glob("*.json")):
            if path.name[0] != ".":
                try:
                    found[path.stem] = _read(path)
                except StoreError:
                    found[path.stem] = None
        return found

    def delete(self, suite: str) -> None:
        """Delete a suite's note, so that nobody needs what this suite alone needs."""
        path = self._path(suite)
        with as_store_error(path):
            path.unlink(missing_ok=True)

    def _path(self, suite: str) -> Path:
        if not suite or Path(suite).name != suite or suite.startswith("."):
            raise ValueError(f"{suite!r} is not a suite's name")
        return self._folder / f"{suite}.json"


def _as_text(suite: str, note: RunNote) -> str:
    record: dict[str, Json] = {
        "needs": [str(address) for address in note.needs],
        **(asdict(note.scorers) if note.scorers else {}),
        "reported": [str(address) for address in note.reported],
    }
    return json.dumps({"schema": SCHEMA, "suite": suite, "record": record}, indent=1)


def _read(path: Path) -> RunNote:
    try:
        content = json.loads(path.read_bytes())
        schema = content["schema"]
        note = _parsed(content["record"]) if schema == SCHEMA else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise StoreError(
            f"{path} cannot be read; it should say which results a suite needs",
            fix=f"delete it, and run {path.stem} again to write it again",
        ) from None
    if note is None:
        raise other_schema(path, schema)
    return note


def _parsed(record: Any) -> RunNote:
    return RunNote(
        tuple(map(Address.parse, record["needs"])),
        tuple(map(Address.parse, record["reported"])),
        _scorers(record) if "cells" in record else None,
    )


def _scorers(record: Any) -> Scorers:
    cells = {
        name: NotedScorer(
            cell["adapter"] and Address(**cell["adapter"]),
            cell["seed"],
            cell["loaded"],
            NotedBase(**cell["base"]) if cell.get("base") else None,
        )
        for name, cell in record["cells"].items()
    }
    judges = {name: NotedJudge(tuple(judge["cells"]), judge["ensemble"]) for name, judge in record["judges"].items()}
    return Scorers(NotedBase(**record["base"]), record["storage"], record["max_length"], cells, judges)
