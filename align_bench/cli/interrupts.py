"""Ctrl-C and SIGTERM end a command in words: where it stopped, and how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from align_bench.cli.app import command, errors


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what runs ends as at Ctrl-C, its artefacts whole or absent."""


@contextmanager
def interrupts_said(where: Callable[[], str]) -> Iterator[None]:
    """While the context lasts, an interrupt ends the program with a line instead of a traceback.

    Args:
        where: says what was being done, for the line.

    Raises:
        typer.Exit: with the shell's exit code of the signal, 130 or 143.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    # Only the main thread may set handlers; a program that calls this in another one keeps its own.
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if main_thread else None
    try:
        yield
    except KeyboardInterrupt as interrupt:
        number = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
        what = "terminated" if number == signal.SIGTERM else "interrupted"
        errors.print(f"{what} {where()}", markup=False, highlight=False, soft_wrap=True)
        errors.print(f"go on where it stopped: {command()}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(128 + number) from None
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)
