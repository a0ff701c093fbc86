"""What the store holds of a graph, as planning asks for it and as stages and reports read it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from align_bench.errors import DataError, MissingResultError
from align_bench.suite.names import TRIED_OUT

if TYPE_CHECKING:
    from align_bench.records import Facts, PreferenceSet
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Stage
    from align_bench.store.failures import Failure
    from align_bench.store.keys import Address
    from align_bench.store.store import Artefact, Store

T = TypeVar("T")
MOST_REPAIRS = 3  # a disk that damages more than this while one run goes on will not be outrun
MOST_LOADED = 8  # loaded artefacts that are held in memory: the tables, and what was read last


def only_tried_out(store: Store, suite: str) -> bool:
    """Whether a suite was run with `--quick` and not as a whole."""
    return store.notes.get(suite) is None and store.notes.get(f"{suite}{TRIED_OUT}") is not None


class Results:
    """Finished stages, loaded once and held while they are asked for.

    Attributes:
        store: where they lie.
        failed: stages that failed in this process, which will not be tried again.
        noted: facts of stages that were found before they ran, which are stored with their own.
        read_only: whether nothing more will be run, so that every recorded failure counts.
        repairs: how many more times what was damaged meanwhile is made anew; then what needs it fails.
    """

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self.store = store
        self.read_only = read_only
        self.repairs = 0 if read_only else MOST_REPAIRS
        self.failed: set[Address] = set()
        self.noted: dict[Address, Facts] = {}
        self._loaded: OrderedDict[Address, Any] = OrderedDict()
        self._read: dict[str, PreferenceSet] = {}

    # What planning asks for (`planning.known.Known`).

    def facts(self, stage: Stage[object]) -> Facts | None:
        """The facts of what a stage made; None when it is not stored."""
        found = self.store.get_unverified(stage.address)
        return None if found is None else found.facts

    def failure(self, stage: Stage[object]) -> Failure | None:
        """Why a stage has ended without a result; None when it has not, or will be tried again."""
        found = self.store.failures.get(stage.address)
        return found if found and (self.read_only or found.permanent or stage.address in self.failed) else None

    # What stages and reports read.

    def has(self, stage: Stage[object]) -> bool:
        """Whether it is stored, its checksums verified."""
        return self.store.get(stage.address) is not None

    def artefact(self, stage: Stage[object]) -> Artefact:
        """What a stage made.

        Raises:
            MissingResultError: when it is not stored.
        """
        found = self.store.get(stage.address)
        if found is None:
            raise MissingResultError(
                f"{stage.owner}: {stage.label}: not stored", fix="align-bench run computes what is missing"
            )
        return found

    def sound(self, stage: Stage[object]) -> Artefact:
        """What a stage made, its checksums verified once more because its files are about to be read.

        Raises:
            MissingResultError: when it is not stored, or was damaged since it was last verified.
        """
        if self.store.is_damaged(stage.address) and self.store.aside(stage.address).exists():
            raise MissingResultError(
                f"{stage.owner}: {stage.label}: the stored result was damaged, and moved to "
                f"{self.store.aside(stage.address)}",
                fix="align-bench run makes it again",
            )
        return self.artefact(stage)

    def load(self, stage: Stage[T]) -> T:
        """What a stage made, as its reader gives it.

        Raises:
            MissingResultError: when it is not stored, or was damaged since it was last verified.
        """
        if stage.address not in self._loaded:
            self._loaded[stage.address] = stage.load(self.sound(stage))
            while len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(stage.address)
        found: T = self._loaded[stage.address]
        return found

    def preferences(self, rows: Rows) -> PreferenceSet:
        """Rows as texts, read once.

        Raises:
            DataError: when their file was changed since the run began: keys would no longer match the content.
        """
        if rows.fingerprint not in self._read:
            found = rows.read()
            if rows.changed():
                raise DataError(
                    f"{rows.source.path} was changed during the run",
                    fix="run again; what depends on the old file is computed again",
                )
            self._read[rows.fingerprint] = found
        return self._read[rows.fingerprint]


class Glance(Results):
    """Results as they are at one moment, for a plan: each kind's folder is listed once, each stage is read once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._keys: dict[str, frozenset[str]] = {}
        self._facts: dict[Address, Facts | None] = {}

    def facts(self, stage: Stage[object]) -> Facts | None:
        """The facts of what a stage made; None when it was not stored."""
        address = stage.address
        if address.kind not in self._keys:
            self._keys[address.kind] = self.store.keys(address.kind)
        if address not in self._facts:
            self._facts[address] = super().facts(stage) if address.key in self._keys[address.kind] else None
        return self._facts[address]
