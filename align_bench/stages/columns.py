"""Stages whose artefact is one column per measure, over a table's rows: log-probabilities, scores, rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from align_bench.stages.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from align_bench.store.store import Artefact

    Columns = Mapping[str, npt.NDArray[np.float32]]

FILE = "columns.safetensors"


class Measured(Stage["Columns"]):
    """What was measured on each row of a table: float32 columns of shape [rows]; NaN where a row has no answer."""

    def load(self, artefact: Artefact) -> Columns:
        from safetensors.numpy import load_file

        columns: Columns = load_file(artefact / FILE)
        return columns


def save_columns(columns: Mapping[str, Tensor], folder: Path) -> None:
    """Write columns as an artefact's file."""
    from safetensors.torch import save_file

    save_file(dict(columns), folder / FILE)


def as_tensors(columns: Columns) -> dict[str, Tensor]:
    """Loaded columns as tensors."""
    import torch

    return {name: torch.from_numpy(values) for name, values in columns.items()}


def attacked(side: str, epsilon: float) -> str:
    """The column of a side's scores under an attack of size ε."""
    return f"{side}@{epsilon:g}"
