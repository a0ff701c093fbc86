"""Which model a suite or a command means as its judge, found and hashed without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import ModelError
from align_bench.models.base import find_base

if TYPE_CHECKING:
    from align_bench.models.base import Base, Digest
    from align_bench.suite.models import LoadedJudge


def find_judge(judge: LoadedJudge, *, digest: Digest | None = None) -> Base:
    """Locate a judge's model; a hub id is fetched (or found in the cache) and pinned to its commit.

    Args:
        judge: a model, and its revision.
        digest: hashes one file, as in `find_base`.

    Raises:
        ModelError: when there is no such model, it has no safetensors weights, or a folder is given a revision.
    """
    if judge.revision is not None and Path(judge.model).expanduser().exists():
        raise ModelError(
            f"judge {judge.model!r}: revision {judge.revision!r} was given, but it is a local folder",
            fix="leave revision out",
        )
    name = f"{judge.model}@{judge.revision}" if judge.revision else judge.model
    found = find_base(name, role="judge", digest=digest)
    if found.gguf:
        raise ModelError(f"judge {judge.model!r}: a GGUF file has no score head", fix="give a model with one")
    return found
