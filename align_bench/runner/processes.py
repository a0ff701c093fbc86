"""Workers that are processes of this machine: spawned, never forked, each on one GPU or on a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

from align_bench.runner.worker import Assist, Lost, Message, Ready, Setup, Task, Worker

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess

CONTEXT: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
HEARS_FOR = 1.0  # seconds
STOPS_IN = 10.0  # seconds; a worker that has not ended by then is killed


class Processes:
    """A `crew.Transport` of worker processes.

    Args:
        most: how many there may be at once.
        setup: what they are for.
        devices: one for each, from the first again where they are fewer; none for workers on the CPU.
    """

    def __init__(self, most: int, setup: Setup, devices: Sequence[str] = ()) -> None:
        self.most = most
        self._setup = setup
        self._free = [devices[number % len(devices)] if devices else None for number in range(most)]
        self._devices: dict[int, str | None] = {}
        self._processes: dict[int, tuple[BaseProcess, Connection[Any, Any]]] = {}
        self._hired = 0

    def hire(self) -> int:
        """Start a worker process."""
        ours, theirs = CONTEXT.Pipe()
        device = self._free.pop(0)
        process = CONTEXT.Process(target=_work, args=(replace(self._setup, device=device), theirs))
        with _interrupts_ignored():
            process.start()
        theirs.close()  # so that its end is seen here when it dies
        self._hired += 1
        self._processes[self._hired], self._devices[self._hired] = (process, ours), device
        return self._hired

    def give(self, worker: int, task: Task | Assist) -> None:
        """Send a task; a worker that has died meanwhile is heard of by `hear`."""
        try:
            self._processes[worker][1].send(task)
        except OSError:
            return

    def hear(self, within: float = HEARS_FOR) -> Iterable[tuple[int, Message]]:
        """What workers have sent, or send within so many seconds."""
        numbers = {connection: number for number, (_, connection) in self._processes.items()}
        for connection in wait(list(numbers), timeout=within):
            assert isinstance(connection, Connection), "that is what was waited for"
            number = numbers[connection]
            try:
                yield number, connection.recv()
            except (EOFError, OSError):
                yield number, Lost(self._buried(number))

    def _buried(self, number: int) -> str:
        """How a worker has ended, whose place is free again."""
        process, connection = self._processes.pop(number)
        self._free.append(self._devices.pop(number))
        connection.close()
        process.join(STOPS_IN)
        code = process.exitcode
        if code is not None and code < 0:
            return f"it was killed by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"

    def close(self, *, publishing: bool = True) -> None:
        """Stop all worker processes: what they publish is finished first, what they compute is not.

        Args:
            publishing: False for workers that publish nothing, which are killed at once.
        """
        for process, _ in self._processes.values():
            process.terminate() if publishing else process.kill()
        for process, connection in self._processes.values():
            process.join(STOPS_IN)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._processes.clear()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process that is started meanwhile ignores Ctrl-C, which is its parent's to act on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(setup: Setup, connection: Connection[Any, Any]) -> None:
    """A worker process, until its parent stops it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:  # nobody hears it any more
            os._exit(1)

    worker = Worker(setup, send)
    send(Ready())
    while True:
        try:
            task: Task | Assist = connection.recv()
        except EOFError:
            return
        send(worker.assist(task) if isinstance(task, Assist) else worker.make(task))


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by one"
    parent.join()
    os._exit(1)
