"""Which model a suite or a command means as its judge, found and hashed without loading it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import ModelError
from align_bench.models.base import find_base
from align_bench.models.exported import read_note

if TYPE_CHECKING:
    from align_bench.models.base import Base, Digest
    from align_bench.models.exported import Exported
    from align_bench.suite.models import LoadedJudge


def find_judge(judge: LoadedJudge, *, digest: Digest | None = None) -> Base:
    """Locate a judge's model; a hub id is fetched (or found in the cache) and pinned to its commit.

    Args:
        judge: a model, and its revision.
        digest: hashes one file, as in `find_base`.

    Raises:
        ModelError: when there is no such model, it has no safetensors weights, or a folder is given a revision; when it
            is an adapter that was not exported here, or whose base is missing or has changed; or when it was exported
            here and is a policy, or is given a template.
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
    if note is not None:
        return _exported(found, note, judge, digest)
    if not (found.folder / "config.json").is_file():
        raise ModelError(
            f"judge {judge.model!r} is an adapter that align-bench did not export",
            fix="merge it into its base (peft's merge_and_unload), and give the whole model",
        )
    return found


def _exported(found: Base, note: Exported, judge: LoadedJudge, digest: Digest | None) -> Base:
    """A reward model that `align-bench export` wrote; an adapter with the base that it stands on."""
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
    if note.form == "merged":
        return found
    below = find_base(note.base, role=f"judge {judge.model!r}: its base", digest=digest)
    if below.digest != note.base_digest:
        raise ModelError(
            f"judge {judge.model!r}: its base {note.base} has changed since the adapter was trained on it",
            fix="bring back that base, or export the reward model with --merge",
        )
    return replace(found, below=below)
