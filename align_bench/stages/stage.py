"""What a stage is: a frozen value that says what one artefact depends on, how it is made, and how it is read back.

To add one: a file in this folder with a class that derives from `Stage`, and the line of `planning/layout.py` that asks
for it. Its key, its place in the store, its progress, its column in `align-bench plan` and its resuming follow from
these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from align_bench.errors import PluginError
from align_bench.sources import module_digest
from align_bench.store.keys import Address, content_key

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import CellId, Facts, Json, LogStep, PreferenceSet, Update
    from align_bench.stages.models import Frozen, ModelKey
    from align_bench.stages.rows import Rows
    from align_bench.store.store import Artefact
    from align_bench.train.group import Group

# What turns texts into tokens, and what computes with a model; versions of these are in the keys of what they made.
TEXT_LIBRARIES = ("transformers", "tokenizers", "jinja2")
MODEL_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "numpy")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Made:
    """The outcome of running a stage.

    Attributes:
        tokens: tokens that it brought through the model.
        facts: small values that plans and reports read without opening the files.
    """

    tokens: int = 0
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Size:
    """A table of rows, roughly.

    Attributes:
        rows: how many.
        tokens: of prompts with answers, each answer with its prompt.
        prompt_tokens: of prompts alone, each row's once.
        prompts: how many different ones.
    """

    rows: int
    tokens: int
    prompt_tokens: int
    prompts: int


class Sizes(Protocol):
    """How large tables are; estimated from their texts until they are tokenised."""

    def __call__(self, table: Stage[object]) -> Size:
        """The size of a table of token rows."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage is expected to bring through the model.

    Attributes:
        tokens: tokens.
        flops_per_weight: operations per token and weight: 2 forward; 4 with the backward pass through a frozen base.
    """

    tokens: int
    flops_per_weight: int = 2


class Desk(Protocol):
    """What a running stage may ask for. A model that it got may be taken back as soon as it asks for another one."""

    update: Update
    log_step: LogStep

    def load(self, stage: Stage[T]) -> T:
        """What another stage made, read once per run."""

    def preferences(self, rows: Rows) -> PreferenceSet:
        """Rows as texts, read once per run."""

    def tokenizer(self, frozen: Frozen) -> Any:
        """The base's own tokenizer."""

    def model(self, wanted: ModelKey) -> Any:
        """A trained model, or the base."""

    def untrained(self, frozen: Frozen, *, scalar: bool, seed: int) -> Any:
        """The frozen base alone, under a scalar head drawn from the seed where one is wanted; it is the stage's own."""

    def give_back(self, frozen: Frozen, model: Any, *, scalar: bool) -> None:
        """What `untrained` gave, its adapter taken off, for the next one that wants it."""

    def loaded(self, frozen: Frozen, model: Any) -> None:
        """Log what was loaded, or wrapped in an adapter: its parameters and its size."""

    def adapter(self, stage: Stage[object]) -> Path:
        """The folder of a trained adapter."""

    def partial(self, stage: Stage[object]) -> Path:
        """A folder that outlives a kill, for checkpoints of what this stage makes; removed once that is stored."""

    def group(self) -> Group:
        """The processes that make the stage together, once each of them has come to this point; for most, this one."""

    def say(self, text: str) -> None:
        """Show a line to whoever watches the run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage(ABC, Generic[T_co]):
    """One artefact: what it depends on, how it is made, and how it is read. Equal stages have the same address.

    Attributes:
        owner: the cell or the table that first asks for it, shown while it is made; not a part of what it is.
        stored_as: what its folder is named after, beside its key; the owner where it is empty.
        kind: the folder of the store that its artefact lies in.
        column: what stands above it in `align-bench plan`; empty for what is shared and not a cell's own.
        libraries: distributions whose versions change what it makes.
        counted_in_cost: whether its cost is a part of its cell's.
        fatal: whether a run without it makes no sense, so that its failure ends the run.
    """

    owner: str
    stored_as: str = ""
    kind: ClassVar[str]
    column: ClassVar[str] = ""
    libraries: ClassVar[tuple[str, ...]] = MODEL_LIBRARIES
    counted_in_cost: ClassVar[bool] = True
    fatal: ClassVar[bool] = False

    @property
    @abstractmethod
    def label(self) -> str:
        """What is shown while it is made, such as `train`."""

    @property
    def optional(self) -> bool:
        """Whether its cell is whole without it."""
        return False

    @property
    def blamed_cell(self) -> CellId | None:
        """The cell that has failed when this stage fails, where that is not the one that it belongs to."""
        return None

    def needs(self) -> tuple[Stage[object], ...]:
        """The stages whose artefacts it reads."""
        return ()

    @abstractmethod
    def identity(self) -> dict[str, Json]:
        """All else that its result depends on, in JSON's types: settings, seeds, digests of data and weights."""

    def models(self) -> tuple[ModelKey, ...]:
        """The models that it wants in memory, the first one as the executor holds it; stages of one run together."""
        return ()

    def estimate(self, sizes: Sizes) -> Work:
        """What it will bring through the model, for plans and progress."""
        return Work(0)

    @property
    def processes(self) -> int:
        """How many processes make it together: one runs it, each further one assists."""
        return 1

    def assist(self, desk: Desk) -> None:
        """Do a further process's part, with inputs and a model of its own, as `run` does the first one's.

        A stage that asks for more than one process says how; no other is ever asked.

        Args:
            desk: of this process.
        """
        raise NotImplementedError

    @abstractmethod
    def run(self, desk: Desk, folder: Path) -> Made:
        """Make the artefact.

        Args:
            desk: what it may ask for.
            folder: an empty folder to write its files into.
        """

    @abstractmethod
    def load(self, artefact: Artefact) -> T_co:
        """Read the artefact back; needs no torch."""

    def remark(self, facts: Facts) -> str | None:
        """A line about what it made, logged once it is stored; None for nothing."""
        return None

    @cached_property
    def address(self) -> Address:
        """Where the artefact lies: its kind, and a hash of all that it depends on, the code that makes it included."""
        parts: dict[str, Json] = {
            "kind": self.kind,
            "identity": self.identity(),
            "needs": [needed.address.key for needed in self.needs()],
            "source": module_digest(type(self).__module__),
            "libraries": library_versions(self.libraries),
        }
        return Address(self.kind, content_key(parts))

    def __getstate__(self) -> dict[str, object]:
        """Without its address, so that a worker process finds out itself what its code and libraries would make."""
        return {name: value for name, value in self.__dict__.items() if name != "address"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Library → installed version.

    Raises:
        PluginError: when one is not installed.
    """
    return {library: _version(library) for library in libraries}


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        raise PluginError(f"{library} is not installed", fix=f"pip install {library}") from None


def closure_of(
    stages: Iterable[Stage[object]], done: Callable[[Stage[object]], bool] = lambda _: False
) -> list[Stage[object]]:
    """These stages and all that they need, each once and after what it needs; nothing below one that is done."""
    found: dict[Address, Stage[object]] = {}

    def visit(stage: Stage[object]) -> None:
        if stage.address in found or done(stage):
            return
        for needed in stage.needs():
            visit(needed)
        found[stage.address] = stage

    for stage in stages:
        visit(stage)
    return list(found.values())
