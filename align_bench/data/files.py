"""Which local files a path means, in the order in which they are read.

A path is a file; a pattern (`data/train-*.parquet`); a folder of files of one kind; or a folder that the package
`datasets` saved (`save_to_disk`). Files that a pattern or a folder gives are sorted by name, numbers by their value.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from align_bench.errors import DataError, nearest

KINDS = (".parquet", ".jsonl", ".json", ".csv", ".arrow")
COMPRESSED = (".gz", ".zst")

_PATTERN = re.compile(r"[*?\[]")
_NUMBERS = re.compile(r"\d+")
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")
_SPLIT_WORD = re.compile(r"(?:^|[-_. ])(train|training|validation|valid|val|dev|test|eval)(?=[-_. ]|$)", re.IGNORECASE)
_ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"})


def kind_of(path: Path) -> str:
    """The kind of a file by its name, that of its content where it is compressed; its last suffix when unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] and suffixes[-1] in COMPRESSED:
        return suffixes[-2] if suffixes[-2:-1] and suffixes[-2] in KINDS else suffixes[-1]
    return suffixes[-1] if suffixes else ""


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that it matches."""
    return bool(_PATTERN.search(name))


def find_files(names: Sequence[str], split: str | None = None) -> tuple[Path, ...]:
    """The files that some names mean, in reading order: name after name, each one's files sorted.

    Args:
        names: files, patterns and folders.
        split: which files of a folder or pattern are meant, where their names tell splits apart.

    Raises:
        DataError: a name means no file; files are of several kinds or splits; or a file is meant twice.
    """
    found = [file for name in names for file in _named(name, split)]
    kinds = list(dict.fromkeys(kind_of(file) for file in found))
    if len(kinds) > 1:
        raise DataError(
            f"{', '.join(names)}: the files are of several kinds: {', '.join(kinds)}.",
            fix=f"name those of one kind, such as `{found[0].parent}/*{kinds[0]}`",
        )
    seen: dict[Path, Path] = {}
    for file in found:
        whole = file.resolve()
        content = whole.with_suffix("") if whole.suffix.lower() in COMPRESSED else whole
        if content in seen:
            raise DataError(f"{', '.join(names)}: {seen[content]} and {file} are the same file, which is read once.")
        seen[content] = file
    return tuple(found)


def exists(name: str) -> bool:
    """Whether a name is that of a file or folder.

    Raises:
        DataError: no file can be called so.
    """
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError) as error:  # too long; or the folder of a user who is not there
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        raise DataError(f"{shown}: no such file: {getattr(error, 'strerror', None) or error}.") from None


def missing_file(name: str) -> DataError:
    """What is said of a file that is not there."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        fix = f"the folder {path.parent} does not exist either; a path is read from the current folder, {Path.cwd()}"
        return DataError(f"{name}: no such file.", fix=fix)
    close = get_close_matches(path.name, [each.name for each in path.parent.iterdir() if each.is_file()], n=1)
    return DataError(f"{name}: no such file.", fix=f"did you mean `{path.parent / close[0]}`?" if close else None)


def _named(name: str, split: str | None) -> list[Path]:
    there = exists(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, name, split)
    if there and not path.is_file():
        raise DataError(f"{name}: got a pipe, socket or device, expected a file.", fix="write its rows into a file")
    if there:
        return [path]
    if not is_pattern(name):
        raise missing_file(name)
    matched = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = _sorted([Path(each) for each in matched if Path(each).is_file()])
    if not files:
        raise DataError(f"{name}: no file matches this pattern.", fix=f"patterns are read from {Path.cwd()}")
    return _of_split(files, name, split)


def _folder(folder: Path, name: str, split: str | None) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        splits = _saved(folder / "dataset_dict.json").get("splits")
        return _folder(folder / _one_split(name, splits if isinstance(splits, list) else [], split), name, None)
    if (folder / "state.json").is_file():
        return _saved_files(folder, _saved(folder / "state.json"))
    files = [each for each in folder.iterdir() if each.is_file() and not each.name.startswith((".", "_"))]
    files = [each for each in files if kind_of(each) in KINDS and each.name not in _ABOUT]
    if not files:
        inside = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        raise DataError(
            f"{name}: this folder holds no {', '.join(KINDS)} file.",
            fix=f"name a file, or a folder inside it, such as `{folder / inside[0]}`" if inside else "name a file",
        )
    return _of_split(_sorted(files), name, split)


def _saved(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="save the data set again") from None
    return value if isinstance(value, dict) else {}


def _saved_files(folder: Path, state: dict[str, object]) -> list[Path]:
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder}: it was saved with a selection of its rows beside it, which is not read.",
            fix="load it, call flatten_indices() and save it again",
        )
    entries = state.get("_data_files")
    names = [entry["filename"] for entry in entries] if isinstance(entries, list) else []
    files = [folder / str(each) for each in names]
    absent = [file for file in files if not file.is_file()]
    if absent or not files:
        raise DataError(f"{absent[0] if absent else folder}: state.json names data that is not there.")
    return files


def _of_split(files: Sequence[Path], name: str, split: str | None) -> list[Path]:
    """The files of one split, by their names; all where the names say nothing of splits."""
    splits = [_split_of(file) for file in files]
    if split is None and len(set(splits)) == 1:
        return list(files)
    wanted = _one_split(name, list(dict.fromkeys(each or "(none)" for each in splits)), split)
    return [file for file, own in zip(files, splits, strict=True) if own == wanted]


def _one_split(name: str, splits: Sequence[str], split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None:
        raise DataError(
            f"{name}: its files are of several splits: {', '.join(splits)}.",
            fix="say which with `split:`, or name the files",
        )
    if split not in splits:
        raise DataError(f"{name}: no split {split!r}. {nearest(split, splits, what='split')}")
    return split


def _split_of(file: Path) -> str:
    """What a file's name says of its split; nothing where it says none.

    >>> [_split_of(Path(name)) for name in ("train_prefs-00000-of-00002.parquet", "my-test.jsonl.gz", "part7.csv")]
    ['train_prefs', 'test', '']
    """
    stem = file.name.partition(".")[0]
    if _SHARD.search(stem):
        return _SHARD.sub("", stem)
    word = _SPLIT_WORD.search(stem)
    return word[1].lower() if word else ""


def _sorted(files: Sequence[Path]) -> list[Path]:
    """By folder and name, numbers by their value: `part-2` before `part-10`."""
    return sorted(files, key=lambda file: (_NUMBERS.sub(lambda number: number[0].zfill(20), str(file)), str(file)))
