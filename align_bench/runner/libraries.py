"""Import what models are loaded and trained with, at once, before anything else asks for a part of it.

Of the time until a run's first step, these imports take most.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from align_bench.report.files import uncollected

COMPILER = "TORCHDYNAMO_DISABLE"  # makes `torch.compile` return a function as it is


def import_libraries() -> None:
    """Import torch, transformers and peft; costs nothing where they are imported already.

    What they consist of, some 400,000 objects, is then set aside, so that no later search for garbage looks through it.
    In a process that has torch already, nothing is: models of the caller's might never be freed.
    """
    first = "torch" not in sys.modules
    with uncollected():  # modules are no garbage; to look for it takes a tenth of the time that they are imported in
        for name in ("torch", "transformers.modeling_utils"):
            importlib.import_module(name)
        with _without_compiler():
            importlib.import_module("peft")
    if first:
        gc.freeze()


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Within it, nothing is compiled, and torch's compiler is not imported.

    peft imports bitsandbytes, which compiles what stands in on devices that it has no kernels for; importing the
    compiler takes several times as long as peft itself.
    """
    before = os.environ.get(COMPILER)
    os.environ[COMPILER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[COMPILER]
        else:
            os.environ[COMPILER] = before
