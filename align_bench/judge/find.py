"""Which model a suite or a command means as its judge, found and hashed without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import ModelError
from align_bench.models.base import find_base
from align_bench.models.exported import read_note

if TYPE_CHECKING:
    from align_bench.models.base import Base, Digest
    from align_bench.suite.models import LoadedJudge


def find_judge(judge: LoadedJudge, *, digest: Digest | None = None) -> Base:
    """Locate a judge's model; a hub id is fetched (or found in the cache) and pinned to its commit.

    Args:
        judge: a model, and its revision.
        digest: hashes one file, as in `find_base`.

    Raises:
        ModelError: when there is no such model, it has no safetensors weights, or a folder is given a revision; when it
            is an adapter whose base is missing or has changed; or when it was trained here and is a policy, or is given
            a template.
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
    note = read_note(found.folder)
    if note is None:
        return found
    if note.kind != "reward":
        raise ModelError(f"judge {judge.model!r} is an exported policy, which has no score", fix="give a reward model")
    given = {"template": judge.template, "chat_template_kwargs": judge.chat_template_kwargs, "date": judge.date}
    for name, value in given.items():
        if value:
            raise ModelError(
                f"judge {judge.model!r}: {name} {value!r} was given, but it is an exported reward model, "
                "which reads texts as in its training",
                fix=f"leave {name} out",
            )
    return found
