"""What running stages ask for: inputs, and models, of which one is held at a time on a base that is loaded once."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from align_bench.records import LogStep, Update, no_update, unlogged
from align_bench.runner.allocator import give_back, keep_freed
from align_bench.stages.classifier import Classifier
from align_bench.stages.models import Frozen, ModelKey, Policy, RewardModel

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.models.precision import Precision
    from align_bench.records import PreferenceSet
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.runner.tracking import Trackers
    from align_bench.stages.rows import Rows
    from align_bench.stages.stage import Stage
    from align_bench.train.group import Group

T = TypeVar("T")
Base = tuple[str, str, bool]  # its digest, its precision, and whether it has a scalar head


class Team(Protocol):
    """The processes that make a stage together, as one of them sees them."""

    def group(self) -> Group:
        """All of them, once each has come to this point."""


class LocalDesk:
    """A `stages.stage.Desk` in this process.

    Attributes:
        update: progress of the stage that runs.
        log_step: takes the steps of the training that runs.
        loading: seconds that went into loading bases since it was last set to 0; they serve several cells.
    """

    def __init__(self, results: Results, progress: Progress, trackers: Trackers | None = None) -> None:
        self.update: Update = no_update
        self.log_step: LogStep = unlogged
        self.loading = 0.0
        self._results = results
        self._progress = progress
        self._trackers = trackers
        self._held: tuple[ModelKey, Any] | None = None
        self._base: tuple[Base, Any] | None = None
        self._fresh = True  # no model was loaded yet
        self._tokenizers: dict[str, Any] = {}
        self._logged: set[str] = set()
        self._team: Team | None = None

    def distance(self, wanted: Sequence[ModelKey]) -> int:
        """How much has to be loaded for it, see `distance`."""
        return distance(wanted, self._held and self._held[0], self._base and self._base[0])

    # Inputs.

    def load(self, stage: Stage[T]) -> T:
        return self._results.load(stage)

    def preferences(self, rows: Rows) -> PreferenceSet:
        return self._results.preferences(rows)

    def adapter(self, stage: Stage[object]) -> Path:
        return self._results.sound(stage).folder

    def partial(self, stage: Stage[object]) -> Path:
        return self._results.store.partial(stage.address)

    @contextmanager
    def tracked(self, stage: Stage[object]) -> Iterator[None]:
        """While the context lasts, trackers take the stage's steps."""
        with self._trackers.steps(stage) if self._trackers else nullcontext(unlogged) as self.log_step:
            try:
                yield
            finally:
                self.log_step = unlogged

    @contextmanager
    def assisted(self, stage: Stage[object]) -> Iterator[None]:
        """While the context lasts, further processes make the stage together with this one, if it asks for any."""
        if stage.processes == 1:
            yield
            return
        from align_bench.runner.helpers import helpers_of

        with helpers_of(stage, self._results.store.folder, self.say) as helpers, self.in_team(helpers):
            yield

    @contextmanager
    def in_team(self, team: Team) -> Iterator[None]:
        """While the context lasts, the stage that runs is made by these."""
        self._team = team
        try:
            yield
        finally:
            self._team = None

    def group(self) -> Group:
        from align_bench.train.group import ALONE

        return ALONE if self._team is None else self._team.group()

    def say(self, text: str) -> None:
        self._progress.log(text)

    def tokenizer(self, frozen: Frozen) -> Any:
        if frozen.base.digest not in self._tokenizers:
            self._tokenizers[frozen.base.digest] = frozen.tokenizer()
        return self._tokenizers[frozen.base.digest]

    # Models.

    def model(self, wanted: ModelKey) -> Any:
        """The last one is held, since a cell's stages follow each other."""
        if self._held is not None and self._held[0] == wanted:
            return self._held[1]
        if isinstance(wanted, Classifier):
            self._make_room(wanted.precision)
            model = wanted.load()
        else:
            model = self._adapted(wanted)
        self._held = (wanted, model)
        return model

    def _adapted(self, wanted: Policy | RewardModel) -> Any:
        self._let_go()
        base = self._frozen(wanted.frozen, scalar=isinstance(wanted, RewardModel))
        held, self._base = self._base, None  # what fails to load may leave half an adapter on it
        model = wanted.complete(base, self.adapter(wanted.adapter) if wanted.adapter else None)
        self._base = held
        self.loaded(wanted.frozen, model)
        return model

    def untrained(self, frozen: Frozen, *, scalar: bool, seed: int) -> Any:
        from align_bench.models.load import draw_head

        self._let_go()
        base = self._frozen(frozen, scalar=scalar)
        self._base = None  # until it comes back unharmed
        return draw_head(base, seed=seed) if scalar else base

    def give_back(self, frozen: Frozen, model: Any, *, scalar: bool) -> None:
        """A base that remembers what it read is let go: numbers would depend on the order."""
        if not any("dynamic" in str(getattr(module, "rope_type", "")) for module in model.modules()):
            self._base = (_base_of(frozen, scalar), model)

    def release(self) -> None:
        """Let go of every model."""
        self._let_go()
        self._base = None
        gc.collect()
        give_back()

    def _make_room(self, precision: Precision) -> None:
        """Before a model is loaded: let go of the others, which takes a search of the whole process for garbage."""
        if not self._fresh:
            self.release()
        self._fresh = False
        if precision.device == "cpu":
            keep_freed()  # whatever process computes

    def _let_go(self) -> None:
        """Let go of the held model, but for the base that it stands on."""
        held, self._held = self._held, None
        if held is not None and hasattr(held[1], "unload"):
            from align_bench.models.load import without_adapter

            without_adapter(held[1])

    def _frozen(self, frozen: Frozen, *, scalar: bool) -> Any:
        """The base alone, held for the next one that stands on it."""
        key = _base_of(frozen, scalar)
        if self._base is not None and self._base[0] == key:
            return self._base[1]
        started = time.perf_counter()
        model = self._under_a_head(frozen) if scalar else None
        if model is None:
            self._make_room(frozen.precision)
            model = frozen.load(scalar=scalar)
        self.loading += time.perf_counter() - started
        self.give_back(frozen, model, scalar=scalar)
        return model

    def _under_a_head(self, frozen: Frozen) -> Any:
        """The scorer on the backbone of the policies in memory; None where these stand on another, or it is more."""
        from align_bench.models.load import as_scorer

        held, self._base = self._base, None
        return as_scorer(held[1]) if held is not None and held[0] == _base_of(frozen, scalar=False) else None

    def loaded(self, frozen: Frozen, model: Any) -> None:
        from align_bench.models.load import footprint

        size = footprint(model)
        trained = f" ({size.trainable:,} trainable)" if size.trainable else ""
        held = f"{frozen.precision}, {size.bytes / 1e6:,.1f} MB"
        text = f"loaded {frozen.base.name}: {size.parameters:,} parameters{trained}, {held}"
        if text not in self._logged:
            self._logged.add(text)
            self._progress.log(text)


def distance(wanted: Sequence[ModelKey], held: ModelKey | None, base: Base | None) -> int:
    """How much has to be loaded: nothing (0), an adapter (1), or a model (2).

    Args:
        wanted: the models that a stage wants.
        held: the model in memory.
        base: the base in memory.
    """
    if not wanted or held == wanted[0]:
        return 0
    first = wanted[0]
    return 1 if not isinstance(first, Classifier) and base is not None and base == first.base_key else 2


def _base_of(frozen: Frozen, scalar: bool) -> Base:
    return frozen.base.digest, str(frozen.precision), scalar
