"""The GPUs that this process sees, and how many of them a stage computes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_bench.stages.stage import Stage


def visible_gpus() -> tuple[str, ...]:
    """The GPUs, as `CUDA_VISIBLE_DEVICES` names them; none where there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def gpus_of(stage: Stage[object]) -> tuple[str, ...]:
    """The GPUs that a stage's processes compute on, the first process on the first one; none on a CPU."""
    if not any(model.precision.device == "cuda" for model in stage.models()[:1]):
        return ()
    return visible_gpus()[: stage.processes]
