"""An adapter that was trained elsewhere, copied into the store, so that methods can start from it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from align_bench.stages.stage import Desk, Made, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.models.base import Base
    from align_bench.records import Json
    from align_bench.stages.models import Frozen
    from align_bench.store.store import Artefact

FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenAdapter(Stage["Path"]):
    """A copy of an adapter; what was given is never changed. Loads as its folder.

    Attributes:
        adapter: the folder that holds it.
        frozen: the base that it stands on.
    """

    adapter: Base
    frozen: Frozen
    kind = "start"
    label = "copy of the adapter"
    libraries: ClassVar[tuple[str, ...]] = ()
    counted_in_cost = False

    def identity(self) -> dict[str, Json]:
        return {"adapter": self.adapter.digest, "base": self.frozen.identity()}

    def run(self, desk: Desk, folder: Path) -> Made:
        for name in FILES:
            shutil.copyfile(self.adapter.folder / name, folder / name)
        return Made()

    def load(self, artefact: Artefact) -> Path:
        return artefact.folder
