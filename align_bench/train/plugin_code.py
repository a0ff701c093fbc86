"""Calls of a plugin's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from align_bench.errors import AlignBenchError, PluginError


@contextmanager
def plugin_code(what: str) -> Iterator[None]:
    """Run code of a plugin, which may raise anything.

    Raises:
        PluginError: in place of what it raised, but for our own errors and a device out of memory.
    """
    try:
        yield
    except (AlignBenchError, torch.OutOfMemoryError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{what} raised {type(error).__name__}: {error}") from error
