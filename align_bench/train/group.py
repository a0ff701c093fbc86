"""The processes that train one model together: each passes its share of a batch, and all take the same steps.

They are on one machine and talk over gloo, through the host's memory: what is exchanged is an adapter's gradient and a
few numbers for each row. A process that is gone is seen by the others as soon as they exchange something.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from align_bench.errors import ModelError
from align_bench.models.micro_batches import shares
from align_bench.models.out_of_memory import is_out_of_memory

T = TypeVar("T")
WAITS = timedelta(hours=1)  # for a process that is silent and not gone: it may have more to load, or more to compute


class GroupOutOfMemoryError(MemoryError):
    """Memory ran out in one process of the group, and all of them know."""


class LostProcessError(ModelError):
    """Another process of the group is gone, or silent."""


class Group:
    """Processes that train together.

    Attributes:
        rank: this process's number, from 0. The first one alone logs, and writes checkpoints.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def share(self, rows: Sequence[int], lengths: Sequence[int]) -> Sequence[int]:
        """Those rows of an effective batch that this process passes; about as many tokens as each other has.

        Args:
            rows: the batch.
            lengths: length in tokens of every row of the table, looked up by row number.
        """
        return rows if self.size == 1 else shares(rows, lengths, self.size)[self.rank]

    def gathered(self, mine: T) -> list[T]:
        """What each process has, in their order.

        Args:
            mine: what this one has, with its tensors in the host's memory.

        Raises:
            LostProcessError: another process is gone.
        """
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        with _heard():
            dist.all_gather_object(found, mine)
        return found

    def from_first(self, content: Callable[[], T]) -> T:
        """What the first process finds, in all of them."""
        if self.size == 1:
            return content()
        found: list[Any] = [content() if self.rank == 0 else None]
        with _heard():
            dist.broadcast_object_list(found, src=0)
        result: T = found[0]
        return result

    @contextmanager
    def within_memory(self) -> Iterator[None]:
        """What each process computes by itself; where memory runs out in one, all of them are told so.

        Raises:
            GroupOutOfMemoryError: it ran out in this process or in another one. Alone, a process keeps its own error.
        """
        said = None
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if self.size == 1 or not is_out_of_memory(error):
                raise
            said = str(error)  # not the error, which would keep the tensors of its frames
        for found in self.gathered(said):
            if found is not None:
                raise GroupOutOfMemoryError(found)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """The sum of all processes' gradients, in place, to the same bits in each.

        Args:
            parameters: the trained ones, in one order everywhere. One that has no gradient anywhere keeps none.
        """
        if self.size == 1:
            return
        trained = list(parameters)
        with_one = [any(each) for each in zip(*self.gathered([one.grad is not None for one in trained]), strict=True)]
        summed = [one for one, has in zip(trained, with_one, strict=True) if has]
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in summed]
        there = torch.cat([gradient.flatten().float() for gradient in own])
        flat = there.cpu()  # in one copy: a device is waited for at each
        with _heard():
            dist.all_reduce(flat)
        parts = flat.to(there.device).split([one.numel() for one in summed])
        for one, gradient in zip(summed, parts, strict=True):
            one.grad = gradient.view_as(one).to(one)

    def reseed(self, seed: int, step: int) -> None:
        """Draw in each step and process, for dropout, from numbers of its own; a training that is resumed does so, too.

        Alone, a process goes on with the generator that it has, which checkpoints keep.
        """
        if self.size > 1:
            torch.manual_seed((seed * 1_000_003 + step) * 1009 + self.rank)


ALONE = Group()


@contextmanager
def met(rank: int, size: int, meeting: Path, waits: timedelta = WAITS) -> Iterator[Group]:
    """Meet the other processes, for as long as the context lasts.

    Args:
        rank, size: as in `Group`.
        meeting: a file that is not there yet, by which they find each other.
        waits: how long for the others to come; later, for an answer, it is an hour.

    Raises:
        LostProcessError: another process did not come.
    """
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever the machine's name stands for
    try:
        store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=waits)
        world = dist.group.WORLD
        assert world is not None, "they have met"
        world.set_timeout(WAITS)
    except RuntimeError as error:
        raise LostProcessError(
            f"the {size} processes that are to train together could not meet: {error}",
            fix="run again; if it happens again, set train.processes to 1",
        ) from error
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _heard() -> Iterator[None]:
    """An exchange with the other processes; gloo says with a RuntimeError that one cannot be heard."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"a process that trains together with this one has stopped answering: {error}",
            fix="run again: the training goes on from its last checkpoint",
        ) from error
