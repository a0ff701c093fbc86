"""The errors a user can cause. Each says where, what was found, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AlignBenchError(Exception):
    """Base of all errors that are shown without a traceback.

    Args:
        message: what is wrong: where it was found, what was found, what was expected.
        fix: the command or edit that mends it, if one is known.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.fix}" if self.fix else self.message


class SuiteError(AlignBenchError):
    """A suite file, or a `--set`, that cannot be used as written."""


class DataError(AlignBenchError):
    """A data set that is missing, has an unknown shape, or holds no usable row."""


class ModelError(AlignBenchError):
    """A base model, adapter or judge that cannot be loaded whole."""


class PluginError(AlignBenchError):
    """An algorithm file that cannot be imported, declared or called."""


class StoreError(AlignBenchError):
    """A run folder that is locked by another run, or an artefact that is damaged."""


class MissingResultError(AlignBenchError):
    """A result was asked for that is not stored, and computing it was forbidden."""


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """A sentence that suggests the nearest known names, then lists all of them.

    >>> nearest("dop", ["dpo", "kto"], what="method")
    'Did you mean dpo? Known methods: dpo, kto.'
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known {what}s: {', '.join(names) or 'none'}."
