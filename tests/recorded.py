"""Work that is captured as a CUDA graph, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from align_bench.models.cuda_graphs import Recorded


class StandIn:
    """Does work again where a graph would be replayed: from and into memory that stays where it is.

    Attributes:
        replays: so far.
        at_work: whether one runs just now.
        spoil: what is done to each result.
    """

    def __init__(self) -> None:
        self.replays = 0
        self.at_work = False
        self.spoil: Callable[[int, Tensor], object] = lambda number, result: None

    def record(self, work: Callable[[], Tensor], pool: Any = None) -> Recorded:
        result = work().detach().clone().fill_(torch.nan)  # a capture computes nothing

        def replay() -> None:
            self.replays += 1
            self.at_work = True
            result.copy_(work().detach())
            self.spoil(self.replays, result)
            self.at_work = False

        return Recorded(result, replay)
