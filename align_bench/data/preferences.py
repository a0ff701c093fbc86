"""Readers of preference data: a file, a hub id or the embedded set, in any known shape, into one `PreferenceSet`.

The shape is recognised by the columns (docs/data.md shows an example of each):

* `question`, `response_1`, `response_2`, `overall_response` (1 or 2);
* `prompt`, `chosen`, `rejected`: texts or lists of turns; a list of several answers makes several pairs;
* `prompt`, `completion`, `label`: unpaired;
* `chosen`, `rejected`: whole conversations that share their prompt, as lists of turns or as transcripts
  (`\\n\\nHuman: … \\n\\nAssistant: …`);
* the columns of a public set that is known.

Texts are taken verbatim. A row that cannot be used is dropped and counted under its reason, never repaired; columns and
keys of turns that are not read are listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from align_bench.data.fields import DropError, Turns, gold_answer, gold_candidates, unread_keys
from align_bench.data.files import exists, find_files, is_pattern, missing_file
from align_bench.data.layout import Layout, layout_of, tried_columns
from align_bench.data.shapes import Answered
from align_bench.data.spilled import spilled
from align_bench.data.tables import Table, first_line, read_files
from align_bench.errors import DataError, nearest
from align_bench.records import Message, Preference, PreferenceSet

EMBEDDED = "embedded/planted"
ANOTHER_PART = "prompts of another part"

_HUB_ID = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?")
_FILE_SUFFIX = re.compile(r"\.(parquet|jsonl?|csv|tsv|txt|xlsx?|arrow|feather|ya?ml|gz|zst|bz2|zip)$", re.IGNORECASE)


@dataclass(frozen=True)
class DataSource:
    """Where preference data comes from.

    Attributes:
        path: a local file, a pattern or a folder of files of one kind (`data.files`); a hub id, as `owner/name` or
            `owner/name:config`; or `embedded/planted`.
        split: the hub data set's split, the embedded set's (`train`, `judge`, `val`, `test`), or that of a folder or
            pattern whose file names tell splits apart. A file has none.
        columns: standard column name → the file's name for it.
        choice: value of the choice or label column, or a comparison such as `>0` → what it stands for: the preferred
            answer's column, `a`, `b`, `desirable`, `undesirable` or `drop`. Where several columns tell the winner, each
            of them → the same.
        rows: take the first so many usable rows; all when None.
        skip: pass over so many usable rows first, so that two sets can share a file and no row.
        prompts: of these rows, keep those whose prompt falls into this part of all prompts, from 0 to 1, by a hash of
            its text; parts that do not overlap share no prompt. All when None.
        revision: commit, branch or tag of a hub data set.
        bias: the embedded set's length bias: a number, or `none`, `default` or `strong`.
        files: files, patterns and folders that are read one after the other in place of `path`, which names them.
    """

    path: str
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    choice: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    skip: int = 0
    prompts: tuple[float, float] | None = None
    revision: str | None = None
    bias: float | str = "default"
    files: tuple[str, ...] = ()


def read(source: DataSource, *, seed: int = 0) -> PreferenceSet:
    """Read a preference set, and count what was dropped.

    Args:
        source: what to read.
        seed: seed of the embedded set; other sources ignore it.

    Returns:
        The usable rows in their order. `counts["read"]` equals `kept` plus all `dropped: …` (plus `skipped` and
        `prompts of another part`, where rows were); with `rows` set, reading stops after that many usable rows.

    Raises:
        DataError: the source is missing, unreadable, of no known shape, or holds no usable row.
    """
    if source.rows is not None and source.rows < 1:
        raise DataError(f"{source.path}: `rows` is {source.rows}; expected a whole number of at least 1.")
    if source.path.startswith("embedded/"):
        return _collect(source, EMBEDDED, _planted_rows(source, seed))
    table = _open(source)
    layout = layout_of(source, table)
    keys: set[str] = set()
    found = _collect(source, layout.words, _parsed(source, table, layout, keys))
    return replace(found, unread=layout.unread, unread_keys=tuple(sorted(keys)))


def _collect(source: DataSource, shape: str, rows: Iterable[Preference | str]) -> PreferenceSet:
    """Gather usable rows and count the reasons (texts) of the others."""
    dropped: Counter[str] = Counter()

    def usable() -> Iterator[Preference]:
        taken = 0
        for row in rows:
            if isinstance(row, str):
                dropped[f"dropped: {row}"] += 1
            elif dropped["skipped"] < source.skip:
                dropped["skipped"] += 1
            else:
                taken += 1
                if source.prompts is None or _falls_into(row.prompt, source.prompts):
                    yield row
                else:
                    dropped[ANOTHER_PART] += 1
                if taken == source.rows:
                    break

    kept = spilled(usable())
    dropped = +dropped
    seen = len(kept) + dropped.total()
    if not seen:
        raise DataError(f"{source.path}: it holds no rows.")
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        raise DataError(f"{source.path}: none of its {seen} rows can be used: {reasons}. Shape read: {shape}.")
    return PreferenceSet(kept, shape, {"read": seen, "kept": len(kept), **dict(sorted(dropped.items()))})


def _falls_into(prompt: Turns, part: tuple[float, float]) -> bool:
    digest = hashlib.sha256(json.dumps([[turn.role, turn.content] for turn in prompt]).encode()).digest()
    return part[0] <= int.from_bytes(digest[:8], "big") / 2**64 < part[1]


def _parsed(source: DataSource, table: Table, layout: Layout, keys: set[str]) -> Iterator[Preference | str]:
    """Every pair of the table as a preference, or as the reason why it cannot be used.

    Args:
        source, table, layout: what is read, and how.
        keys: takes the keys of turns that are not read.
    """
    numbers = count()
    for place, raw in enumerate(table.rows(layout.columns)):
        for column in layout.columns:
            if isinstance(raw.get(column), list | Mapping):
                keys |= unread_keys(raw[column])
        try:
            for each in layout.read(raw):
                pair = next(numbers)
                if isinstance(each, DropError):
                    yield str(each)
                elif each.chosen == each.rejected:
                    yield "equal answers"
                else:
                    yield _preference(pair, each, raw.get(layout.names.get("gold", "")), _candidates(layout, raw))
        except DropError as drop:
            next(numbers)
            yield str(drop)
        except DataError as error:
            fix = tried_columns(source, table) or error.fix
            raise DataError(f"{source.path}, {table.place(place)}: {error.message}", fix=fix) from None


def _candidates(layout: Layout, raw: Mapping[str, object]) -> tuple[str, ...]:
    return gold_candidates(raw.get(layout.names.get("candidates", "")))


def _preference(pair: int, found: Answered, gold_cell: object, candidates: tuple[str, ...]) -> Preference:
    gold = gold_answer(gold_cell)
    return Preference(
        pair=pair,
        prompt=found.prompt,
        chosen=found.chosen,
        rejected=found.rejected,
        gold=gold,
        candidates=candidates,
        gold_choice=_gold_choice(found.chosen, found.rejected, gold, candidates),
        chosen_first=found.chosen_first,
        margin=found.margin,
    )


def _gold_choice(chosen: str | None, rejected: str | None, gold: str | None, candidates: Sequence[str]) -> int | None:
    if gold is None or chosen is None or rejected is None:
        return None
    from align_bench.data.planted import is_right

    right = (is_right(chosen, gold, candidates), is_right(rejected, gold, candidates))
    return {(True, False): 1, (False, True): 2}.get(right)


def planted_settings(source: DataSource) -> tuple[str, float]:
    """Split and length bias of the embedded set that a source names.

    Raises:
        DataError: there is no such set, split or bias.
    """
    from align_bench.data.planted import SPLITS, bias_value

    if source.path != EMBEDDED:
        raise DataError(f"{source.path}: no such embedded set.", fix=f"write `path: {EMBEDDED}`")
    if source.split is None:
        raise DataError(f"{EMBEDDED}: no split was named.", fix=f"add `split:` with one of {', '.join(SPLITS)}")
    if source.split not in SPLITS:
        raise DataError(f"{EMBEDDED}: no split {source.split!r}. {nearest(source.split, SPLITS, what='split')}")
    try:
        return source.split, bias_value(source.bias)
    except ValueError as error:
        raise DataError(f"{EMBEDDED}: {error}.") from error


def _planted_rows(source: DataSource, seed: int) -> Iterator[Preference]:
    from align_bench.data.planted import draw_planted

    split, bias = planted_settings(source)
    for number, pair in enumerate(draw_planted(split, seed=seed, bias=bias)):
        prompt = (Message("user", pair.prompt),)
        yield Preference(
            pair=number,
            prompt=prompt,
            chosen=pair.chosen,
            rejected=pair.rejected,
            gold=pair.gold,
            candidates=pair.candidates,
            gold_choice=pair.gold_choice,
            label_probability=pair.label_probability,
        )


def _open(source: DataSource) -> Table:
    files = local_files(source)
    table = _hub(source) if files is None else read_files(files)
    twice = [name for name, count in Counter(table.columns).items() if count > 1]
    if twice:
        raise DataError(f"{source.path}: the column {twice[0]!r} is there twice.", fix="rename one of the two")
    return table


def local_files(source: DataSource) -> tuple[Path, ...] | None:
    """The local files that are meant, in reading order; None when the path can only be a hub id.

    Raises:
        DataError: a file is not there, or the files cannot be read together.
    """
    if not source.files and not exists(source.path) and not is_pattern(source.path):
        if _FILE_SUFFIX.search(source.path) or not _HUB_ID.fullmatch(source.path):
            raise missing_file(source.path)
        return None
    return find_files(source.files or (source.path,), source.split)


def hub_name(source: DataSource) -> tuple[str, str | None]:
    """Id and configuration of a hub data set."""
    match = _HUB_ID.fullmatch(source.path)
    assert match is not None
    return match["id"], match["config"]


def _hub(source: DataSource) -> Table:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"{source.path}: hub data sets need the package datasets.", fix="pip install datasets"
        ) from error
    name, config = hub_name(source)
    # The library raises anything from its own errors to those of the network and of the files it unpacks.
    try:
        loaded = load_dataset(name, config, split=source.split, revision=source.revision)
    except Exception as error:
        raise DataError(
            f"{source.path}: no local file of this name, and it could not be loaded from the hub: "
            f"{type(error).__name__}: {first_line(error)}",
            fix="check the name (owner/name, or owner/name:config), the split and the network, or download the file",
        ) from error
    if isinstance(loaded, dict):
        loaded = _only_split(source, loaded)
    return Table(tuple(loaded.column_names), lambda columns: loaded.select_columns(list(columns)))


def _only_split(source: DataSource, splits: Mapping[str, Any]) -> Any:
    if len(splits) != 1:
        message = f"{source.path}: it has several splits: {', '.join(splits)}."
        raise DataError(message, fix="add `split:` with one of them")
    return next(iter(splits.values()))
