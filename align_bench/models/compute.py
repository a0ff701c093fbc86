"""The type that computes, as torch has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from align_bench.models.precision import Precision


def compute_dtype(precision: Precision) -> torch.dtype:
    """The type of activations."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision.compute]
