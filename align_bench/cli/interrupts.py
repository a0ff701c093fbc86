"""Ctrl-C and SIGTERM end a command in words: where it stopped, and how to go on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from align_bench.cli.app import command, errors


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what runs ends as at Ctrl-C, its artefacts whole or absent."""


@contextmanager
def interrupts_said(where: Callable[[], str]) -> Iterator[None]:
    """While the context lasts, an interrupt ends the program with a line instead of a traceback.

    One that comes while a module is imported waits until it is, since what is raised there may be swallowed. One that
    is raised where Python passes no exception on, such as in a `__del__` during garbage collection, comes again.

    Args:
        where: says what was being done, for the line.

    Raises:
        typer.Exit: with the shell's exit code of the signal, 130 or 143.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            waiting.append(number)
        if _imports(frame) > outside:  # what is raised there may be swallowed, and the command would go on
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        elif waiting:
            sent = waiting[0]
            waiting.clear()
            raise Terminated if sent == signal.SIGTERM else KeyboardInterrupt

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        waiting.append(signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT)
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    waiting: list[int] = []
    hook = sys.unraisablehook
    outside = _imports(sys._getframe())
    before = {}
    # Only the main thread may set handlers; a program that calls this in another one keeps its own.
    if threading.current_thread() is threading.main_thread():
        heard = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, interrupt) for number in (*heard, signal.SIGALRM)}
        sys.unraisablehook = again
    try:
        yield
    except KeyboardInterrupt as interrupted:
        number = signal.SIGTERM if isinstance(interrupted, Terminated) else signal.SIGINT
        what = "terminated" if number == signal.SIGTERM else "interrupted"
        errors.print(f"{what} {where()}", markup=False, highlight=False, soft_wrap=True)
        errors.print(f"go on where it stopped: {command()}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(128 + number) from None
    finally:
        if before:
            sys.unraisablehook = hook
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _imports(frame: FrameType | None) -> int:
    """How many frames of the import system this frame stands on."""
    found = 0
    while frame is not None:
        found += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found
