"""What transformers says while it loads something: errors as one clear line, warnings not at all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from align_bench.errors import ModelError

if TYPE_CHECKING:
    from align_bench.models.base import Base


@contextmanager
def clear_errors(base: Base) -> Iterator[None]:
    """Loading errors of transformers as one clear line; its remarks on fresh heads are ours to make."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{base.role} {base.name!r} cannot be loaded: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers, accelerate and bitsandbytes show neither remarks nor bars."""
    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()
