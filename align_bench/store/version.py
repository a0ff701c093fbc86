"""The version of what a store's files hold."""

from __future__ import annotations

from pathlib import Path

from align_bench.errors import StoreError

SCHEMA = 1


def other_schema(path: Path, found: object) -> StoreError:
    """That a file was written by a version of align-bench with another schema."""
    return other_version(path, f"by another version of align-bench (schema {found}, this one writes {SCHEMA})")


def other_version(path: Path, by: str) -> StoreError:
    """That a folder or file was made by another version, and so cannot be mixed with new results."""
    return StoreError(
        f"{path} was made {by}; it cannot be used or mixed with new results",
        fix="give another folder with --runs, or delete this one",
    )
