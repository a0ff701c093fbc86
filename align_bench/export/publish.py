"""Push an exported model, or a report, to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from align_bench.errors import DataError, StoreError
from align_bench.models.exported import CARD, read_note
from align_bench.report.export import MARKDOWN, REPORT, read_report


@dataclass(frozen=True, slots=True)
class Upload:
    """A folder that can be pushed.

    Attributes:
        folder: what is pushed: its files, the hidden ones aside.
        kind: the hub's kind of repository: `model` for an exported model, `dataset` for a report.
        files: how many.
        size_bytes: of all.
        message: of the commit.
        warning: what whoever downloads it will miss; None for nothing.
    """

    folder: Path
    kind: Literal["model", "dataset"]
    files: int
    size_bytes: int
    message: str
    warning: str | None = None


def plan_upload(folder: Path, repository: str) -> Upload:
    """Look at what would be pushed; touches no network.

    Args:
        folder: what is to be pushed.
        repository: its name on the hub: `name`, or `owner/name`.

    Raises:
        DataError: the folder is neither an exported model nor a report, or no repository can have that name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise DataError(f"{repository!r} is not the name of a repository: {error}", fix="--repo OWNER/NAME") from None
    found = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder)]
    size = sum(path.stat().st_size for path in found)
    note = read_note(folder)
    if note is not None:
        local = note.form == "adapter" and (Path(note.base).is_absolute() or note.base.startswith("embedded/"))
        warning = f"it stands on {note.base}, which is not on the hub; export with --merge" if local else None
        return Upload(folder, "model", len(found), size, f"{note.kind}, {note.form}, by align-bench", warning)
    if (folder / REPORT).is_file():
        name = read_report(folder).suite.name
        return Upload(folder, "dataset", len(found), size, f"Report of the suite {name}, by align-bench")
    raise DataError(
        f"{folder} is neither an exported model nor a report's folder",
        fix="name a folder that align-bench export wrote, or reports/SUITE",
    )


def push(upload: Upload, repository: str, *, private: bool) -> str:
    """Push a folder in one commit; a repository that is there already gets one more, and keeps whether it is private.

    Endpoint and token are found as `huggingface_hub` finds them: `HF_ENDPOINT`, `HF_TOKEN`, `hf auth login`.

    Args:
        upload: from `plan_upload`.
        repository: `name`, or `owner/name`.
        private: whether a new repository is private.

    Returns:
        Where it is.

    Raises:
        StoreError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [
        CommitOperationAdd(path.relative_to(upload.folder).as_posix(), path)
        for path in sorted(upload.folder.rglob("*"))
        if path.is_file() and not _is_hidden(path, upload.folder)
    ]
    if upload.kind == "dataset" and not (upload.folder / CARD).is_file():
        operations.append(CommitOperationAdd(CARD, upload.folder / MARKDOWN))  # what the hub shows
    api = HfApi(library_name="align-bench")
    try:
        made = api.create_repo(repository, private=private, repo_type=upload.kind, exist_ok=True)
        api.create_commit(made.repo_id, operations, commit_message=upload.message, repo_type=upload.kind)
    except Exception as error:  # the library's own kinds, and those of its HTTP client
        reason = str(error).strip().splitlines()
        raise StoreError(
            f"{repository} cannot be pushed to {api.endpoint}: {reason[0] if reason else type(error).__name__}",
            fix="check the name, the network, and that `hf auth login` (or HF_TOKEN) gives a token that may write",
        ) from None
    return str(made)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
