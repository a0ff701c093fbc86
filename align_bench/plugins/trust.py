"""Which plugin files that a suite names may be executed: those that the user has agreed to, by hash.

A suite is data that somebody may have sent. So the files under its `plugins:` are shown with their hashes and asked for
once; what `--plugin` names is the user's own word, and is not asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from align_bench.errors import PluginError
from align_bench.store.files import replacing

Ask = Callable[[str], bool]


def trusted_file() -> Path:
    """Where the hashes are kept: `align-bench/trusted-plugins.json` in the user's configuration folder."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "align-bench" / "trusted-plugins.json"


def confirm(suite: str, files: Mapping[Path, str], *, trust: bool, ask: Ask | None) -> None:
    """Ask whether files may be executed, unless the user has agreed to this very code before (comments aside).

    Args:
        suite: what names them.
        files: path → sha256 of the code of the file and of all local files that it imports.
        trust: whether the user agrees beforehand (`--trust`).
        ask: shows a question and returns the answer; None where nobody can be asked.

    Raises:
        PluginError: the user does not agree, or cannot be asked.
    """
    known = _agreed()
    new = {path: digest for path, digest in files.items() if digest not in known}
    if not new:
        return
    listed = "\n".join(f"  {path} (sha256 {digest})" for path, digest in new.items())
    question = f"{suite} names plugin files, whose code would be executed:\n{listed}\n"
    if not trust and (ask is None or not ask(f"{question}Execute them, now and whenever they are the same?")):
        raise PluginError(
            f"{question}They are not trusted yet, and nothing of them was executed.",
            fix="read them, then add --trust once (`trust=True` in Python), or name them yourself with --plugin",
        )
    _agree(known | set(new.values()))


def _agreed() -> set[str]:
    try:
        found = json.loads(trusted_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def _agree(digests: Iterable[str]) -> None:
    file = trusted_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as target:
            target.write_text(json.dumps(sorted(digests), indent=1), encoding="utf-8")
    except OSError:
        return  # they are asked for again next time
