"""Calls of a plugin's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from align_bench.errors import AlignBenchError, PluginError
from align_bench.models.out_of_memory import is_out_of_memory


@contextmanager
def plugin_code(what: str) -> Iterator[None]:
    """Run code of a plugin, which may raise anything.

    Raises:
        PluginError: in place of what it raised, but for our own errors, and where device or host is out of memory.
    """
    try:
        yield
    except AlignBenchError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise PluginError(f"{what} raised {type(error).__name__}: {error}") from error
