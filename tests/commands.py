"""Commands in processes that are copies of one with the libraries loaded: for tests that signal, kill and wait.

What a process that starts anew loads, says and lets be interrupted is tested with real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil

ENDS_IN = 120.0  # seconds


def short_work() -> None:
    """In a copy, what conftest.py does for tests: nothing waits for the disk, and nothing is drawn."""
    import torch

    from align_bench.models import peak
    from align_bench.report import figures

    torch.set_num_threads(1)
    os.fsync = lambda fd: None
    peak._SECONDS, peak._SIDE = 0.0, 256
    figures.DRAWN = ()


@dataclass(frozen=True)
class Command:
    """A command that was started."""

    process: ForkServerProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def printed(self) -> str:
        """Its standard output so far."""
        return (self.folder / "printed").read_text(encoding="utf-8")

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return (self.folder / "said").read_text(encoding="utf-8")

    def running(self) -> bool:
        return self.process.is_alive()

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that has killed it."""
        self.process.join(ENDS_IN)
        assert self.process.exitcode is not None, f"it does not end: {self.said}"
        return self.process.exitcode

    def workers(self) -> list[psutil.Process]:
        """Processes that it has started: children of its process group, or copies like itself."""
        own = psutil.Process(self.pid)
        siblings = psutil.Process(own.ppid()).children()
        copied = [one for one in siblings if one.pid != own.pid and one.create_time() >= own.create_time()]
        return [*own.children(recursive=True), *copied]


StartCommand = Callable[..., Command]  # `start` without its first two arguments


def start(
    copies: ForkServerContext,
    folder: Path,
    arguments: Sequence[str],
    *,
    cwd: Path,
    packages: Path | None = None,
    environment: Mapping[str, str] | None = None,
    spawns: bool = False,
) -> Command:
    """Start `align-bench` with these arguments.

    Args:
        copies: what starts processes.
        folder: takes what it prints and says.
        arguments: of the command.
        cwd: where it works.
        packages: a folder of packages that it imports rather than others of their names, `align_bench` among them.
        environment: variables beside those of this process.
        spawns: whether workers of its own start anew, as a user's do, rather than as copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("printed", "said"):
        (folder / name).write_bytes(b"")
    forkserver.ensure_running()
    server = None if spawns else _address()
    given = (folder, list(arguments), cwd, packages, dict(environment or {}), server)
    process = copies.Process(target=_run, args=given)
    process.start()
    return Command(process, folder)


def _run(
    folder: Path,
    arguments: list[str],
    cwd: Path,
    packages: Path | None,
    environment: dict[str, str],
    server: dict[str, object] | None,
) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches a group
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    for descriptor, name in ((1, "printed"), (2, "said")):
        file = os.open(folder / name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = ["align-bench", *arguments]
    if packages is not None:
        own = {file.stem for file in packages.iterdir()}
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.path.insert(0, str(packages))
    short_work()
    from align_bench.__main__ import main
    from align_bench.runner import processes

    if server is not None:
        vars(forkserver._forkserver).update(server, ensure_running=lambda: None)
        processes.CONTEXT = multiprocessing.get_context("forkserver")
    main()


def _address() -> dict[str, object]:
    """Where this process asks for copies. A copy that asked for one itself would start a server of its own, anew."""
    names = ("_forkserver_address", "_forkserver_authkey")  # the second from Python 3.14 on
    return {name: value for name, value in vars(forkserver._forkserver).items() if name in names}
