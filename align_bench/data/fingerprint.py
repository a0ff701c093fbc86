"""What decides the rows of a preference set, as one hash, found without reading them where that is possible."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.data.files import kind_of
from align_bench.data.preferences import hub_name, local_files, planted_settings
from align_bench.records import Json
from align_bench.sources import module_digest
from align_bench.store.remembered import Remembered

if TYPE_CHECKING:
    from align_bench.data.preferences import DataSource

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fingerprint(source: DataSource, *, seed: int = 0, digest: Callable[[Path], str] | None = None) -> str:
    """Hash of all that decides what `preferences.read` returns, as 64 hexadecimal digits.

    The reader counts by its source; files by their bytes and order, whatever their names; the embedded set by the
    source that makes it, its split, seed and bias; a hub data set by its id, split and commit. Without a network the
    commit is unknown, and the revision is hashed as it was written.

    Args:
        source: what would be read.
        seed: seed of the embedded set; other sources ignore it.
        digest: hashes one file; by default one that remembers large files.

    Raises:
        DataError: the source is missing.
    """
    parts: dict[str, Json] = {
        "reader": module_digest("align_bench.data.preferences"),
        "columns": dict(sorted(source.columns.items())),
        "choice": list(source.choice.items()),
        "rows": source.rows,
        "skip": source.skip,
        "prompts": source.prompts,
    }
    if source.path.startswith("embedded/"):
        split, bias = planted_settings(source)
        made = module_digest("align_bench.data.planted")
        parts["planted"] = {"split": split, "seed": seed, "bias": bias, "source": made}
    elif (files := local_files(source)) is not None:
        digest = digest or Remembered().digest
        parts |= {"files": [[digest(file), kind_of(file)] for file in files]}
    else:
        parts |= {"hub": source.path, "commit": _hub_commit(source), "split": source.split}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hub_commit(source: DataSource) -> str:
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    try:
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(hub_name(source)[0], revision=source.revision, timeout=10)
    except Exception:
        return source.revision or "unresolved"
    return info.sha or source.revision or "unresolved"
