"""What a forward pass says of all rows of an effective batch, shared by the processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from align_bench.api.batches import OF_THE_BATCH
from align_bench.models.layout import training_passes
from align_bench.models.transfer import on_device
from align_bench.train.group import Group


def of_whole_batch(
    model: Any,
    rows: Sequence[int],
    lengths: Sequence[int],
    max_tokens: int,
    group: Group,
    forward: Callable[[Sequence[int]], Mapping[str, object]],
) -> dict[str, Tensor]:
    """Pass all rows of a batch through the model once, without gradient; each process passes its share.

    Args:
        model: plain or with an adapter.
        rows: of the batch, or their places in it.
        lengths: length in tokens of every row, looked up by row number.
        max_tokens: of a pass, padding included.
        group: the processes.
        forward: from some of the rows to what is said of them by name, tensors of shape [rows]; what is the whole
            batch's (`OF_THE_BATCH`) is said in every pass, and what is no tensor is left out.

    Returns:
        The tensors of all rows, in their order, on the model's device.
    """
    with group.within_memory(), torch.no_grad():
        parts = training_passes(model, group.share(rows, lengths), lengths, max_tokens=max_tokens)
        said = [_tensors(forward(part), "cpu" if group.size > 1 else model.device) for part in parts]
    passed: list[int] = []
    found: list[Mapping[str, Tensor]] = []
    for their_parts, theirs in group.gathered((parts, said)):
        passed += [row for part in their_parts for row in part]
        found += theirs
    place = {row: number for number, row in enumerate(rows)}
    order = on_device(torch.tensor([place[row] for row in passed]).argsort(), model.device)
    return {
        name: first.to(model.device)
        if name in OF_THE_BATCH
        else torch.cat([one[name] for one in found]).to(model.device)[order]
        for name, first in found[0].items()
    }


def _tensors(said: Mapping[str, object], device: Any) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in said.items() if isinstance(value, Tensor)}
