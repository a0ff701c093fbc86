"""Preferences to token ids, once and for every method alike.

Prompt and answers are texts first (`rendering`). They are tokenised together, since the first token of an answer may
depend on what stands before it: an answer is what follows the tokens that the prompt, prompt + chosen and prompt +
rejected have in common. A token that would take text of a turn into the answer is not merged.

A tokenizer without a chat template gets the tokenizer's end token after the answer, and the beginning-of-text token in
front where the tokenizer adds one. A template is trusted to write its own beginning-of-text token.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align_bench.data.dropped import NO_PROMPT, UnusableRowError, advice
from align_bench.data.rendering import Rendered, Style, render_rows, style_of
from align_bench.errors import DataError
from align_bench.records import TokenRow, TokenTable, no_update

if TYPE_CHECKING:
    from align_bench.records import Preference, PreferenceSet, Update

Ids = list[int]

_CHUNK_ROWS = 256
_COUNTS_KEY = b"align_bench.counts"


@dataclass(frozen=True)
class _Format:
    """How a tokenizer's texts become ids.

    Attributes:
        style: how it writes conversations.
        bos: ids put in front of every prompt.
        end: ids put after every answer: its end token, where the text has none.
    """

    style: Style
    bos: Ids
    end: Ids


def tokenize(
    tokenizer: Any,
    preferences: PreferenceSet,
    *,
    max_length: int,
    too_long: Literal["truncate", "drop"] = "truncate",
    update: Update = no_update,
) -> TokenTable:
    """Tokenise a preference set into the one table that every method uses.

    Args:
        tokenizer: a Hugging Face tokenizer.
        preferences: the rows to tokenise.
        max_length: longest prompt + answer, in tokens.
        too_long: `truncate` cuts longer answers from the right, so that they have no end token, and counts their rows
            as `truncated`; `drop` drops rows with a longer answer.
        update: progress, in rows.

    Returns:
        The kept rows in their order. An answer runs through its end-of-turn token; what the template writes after it
        is cut. Both answers of a pair share one prompt. Rows that the template refuses are dropped and counted.

    Raises:
        DataError: the tokenizer has no end token, or no row is left.
    """
    if max_length < 2:
        raise DataError(f"max_length is {max_length}; a prompt and an answer need at least 2 tokens.")
    if not preferences.rows:
        raise DataError("there are no rows to tokenise.")
    form = _format(tokenizer, preferences.rows)
    # Token ids are drawn from one list: equal numbers are then one object, a quarter of the memory of a fresh int each.
    # Ids may have gaps, so that the largest one lies beyond `len(tokenizer)`.
    shared = list(range(1 + max(tokenizer.get_vocab().values())))
    kept: list[TokenRow] = []
    counts: Counter[str] = Counter(kept=0, truncated=0)
    examples: dict[str, int] = {}
    total = len(preferences.rows)
    for start in range(0, total, _CHUNK_ROWS):
        chunk = preferences.rows[start : start + _CHUNK_ROWS]
        for row, parts in _encoded(tokenizer, form, render_rows(tokenizer, form.style, chunk)):
            try:
                if isinstance(parts, UnusableRowError):
                    raise parts
                token_row, truncated = _token_row(row, parts, max_length, too_long)
            except UnusableRowError as reason:
                counts[f"dropped: {reason}"] += 1
                examples.setdefault(str(reason), row.pair)
                continue
            kept.append(_interned(token_row, shared))
            counts["truncated"] += truncated
        update(start + len(chunk), total)
    counts["kept"] = len(kept)
    if not kept:
        raise _nothing_left(total, counts)
    return TokenTable(tuple(kept), dict(counts), examples)


def _nothing_left(total: int, counts: Counter[str]) -> DataError:
    dropped = Counter({reason: count for reason, count in counts.items() if reason.startswith("dropped: ")})
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    (most, _), *_ = dropped.most_common(1)
    return DataError(
        f"none of {total} rows is left after tokenising: {reasons}.", fix=advice(most.removeprefix("dropped: "))
    )


def _format(tokenizer: Any, rows: Sequence[Preference]) -> _Format:
    style = style_of(tokenizer, rows)
    if style.ending:
        return _Format(style, [], [])
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end token, so that no answer could end.",
            fix="set `eos_token` in the model folder's tokenizer_config.json",
        )
    return _Format(style, [] if style.template else _added_bos(tokenizer), [int(tokenizer.eos_token_id)])


def _added_bos(tokenizer: Any) -> Ids:
    """The beginning-of-text token, where the tokenizer itself adds one to a text."""
    added: Ids = tokenizer("")["input_ids"][:1]
    return added if added == [tokenizer.bos_token_id] else []


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return list(encoded["input_ids"])


def _encoded(
    tokenizer: Any, form: _Format, rows: Sequence[tuple[Preference, Rendered | UnusableRowError]]
) -> Iterator[tuple[Preference, tuple[Ids, list[Ids]] | UnusableRowError]]:
    """The shared prompt and the answers of each row as ids."""
    usable = [texts for _, texts in rows if isinstance(texts, Rendered)]
    whole = [[text.prompt, *(text.prompt + answer for answer in text.answers)] for text in usable]
    ids = iter(_ids(tokenizer, [text for texts in whole for text in texts]) if usable else [])
    for row, texts in rows:
        if isinstance(texts, UnusableRowError):
            yield row, texts
            continue
        prompt, answers = _split(tokenizer, form.style, texts, [next(ids) for _ in (texts.prompt, *texts.answers)])
        yield row, ([*form.bos, *prompt], [[*answer, *form.end] for answer in answers])


def _split(tokenizer: Any, style: Style, texts: Rendered, ids: Sequence[Ids]) -> tuple[Ids, list[Ids]]:
    """The shared prompt and the answers, of the ids of the prompt and of prompt + answer each."""
    shared = _common_prefix(ids)
    if shared < len(ids[0]) and not _within_header(tokenizer, style, texts.prompt, shared):
        return ids[0], _ids(tokenizer, texts.answers)
    return ids[0][:shared], [each[shared:] for each in ids[1:]]


def _within_header(tokenizer: Any, style: Style, prompt: str, shared: int) -> bool:
    """Whether a prompt's tokens from this place on are of the header alone, and take no text of a turn with them."""
    if not (tokenizer.is_fast and prompt.endswith(style.header)):
        return False
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    start = found["offset_mapping"][shared][0]
    return bool(start >= len(prompt) - len(style.header))


def _common_prefix(texts: Sequence[Ids]) -> int:
    shortest = min(len(ids) for ids in texts)
    # Nearly always the whole prompt is shared, and comparing slices is far faster than comparing token by token.
    head = texts[0][:shortest]
    if all(ids[:shortest] == head for ids in texts):
        return shortest
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False)))


def _token_row(row: Preference, parts: tuple[Ids, list[Ids]], max_length: int, too_long: str) -> tuple[TokenRow, bool]:
    prompt, answers = parts
    if not prompt:
        raise UnusableRowError(NO_PROMPT)
    room = max_length - len(prompt)
    truncated = any(len(answer) > room for answer in answers)
    if truncated and too_long == "drop":
        raise UnusableRowError(f"longer than {max_length} tokens")
    if room < 1:
        raise UnusableRowError(f"prompt leaves no room in {max_length} tokens")
    shortened = [tuple(answer[:room]) for answer in answers]
    if len(shortened) == 2 and shortened[0] == shortened[1]:
        raise UnusableRowError("equal answers after truncation" if truncated else "equal answers as tokens")
    left = iter(shortened)
    chosen = None if row.chosen is None else next(left)
    rejected = None if row.rejected is None else next(left)
    return TokenRow(row.pair, tuple(prompt), chosen, rejected, row.gold_choice), truncated


def _interned(row: TokenRow, shared: Sequence[int]) -> TokenRow:
    def each(ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if ids is None else tuple(map(shared.__getitem__, ids))

    return TokenRow(row.pair, each(row.prompt) or (), each(row.chosen), each(row.rejected), row.gold_choice)


def save_table(path: str | Path, table: TokenTable) -> None:
    """Write a token table as Parquet; `load_table` gives back an equal one."""
    import pyarrow
    import pyarrow.parquet

    ids = pyarrow.list_(pyarrow.int32())
    columns = {
        "pair": (pyarrow.int64(), [row.pair for row in table.rows]),
        "prompt": (ids, [row.prompt for row in table.rows]),
        "chosen": (ids, [row.chosen for row in table.rows]),
        "rejected": (ids, [row.rejected for row in table.rows]),
        "gold_choice": (pyarrow.int8(), [row.gold_choice for row in table.rows]),
    }
    schema = pyarrow.schema(
        [(name, kind) for name, (kind, _) in columns.items()],
        metadata={_COUNTS_KEY: json.dumps(dict(table.counts)).encode()},
    )
    arrays = [pyarrow.array(values, type=kind) for kind, values in columns.values()]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), path)


def load_table(path: str | Path) -> TokenTable:
    """Read a token table that `save_table` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read().combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable token table: {error}") from error
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    if _COUNTS_KEY not in metadata:
        raise DataError(f"{path}: a Parquet file, but not a token table (its counts are missing).")
    shared: list[int] = []
    columns = [table["pair"].to_pylist()]
    columns += [list(_id_tuples(table[name], shared)) for name in ("prompt", "chosen", "rejected")]
    columns += [table["gold_choice"].to_pylist()]
    rows = tuple(TokenRow(*cells) for cells in zip(*columns, strict=True))
    return TokenTable(rows, json.loads(metadata[_COUNTS_KEY]))


def _id_tuples(column: Any, shared: list[int]) -> Iterable[tuple[int, ...] | None]:
    """Rows of a list column; ids come from `shared`, which grows to the largest id."""
    for chunk in column.chunks:
        values = chunk.values.to_numpy()
        shared.extend(range(len(shared), int(values.max(initial=-1)) + 1))
        ids = [shared[value] for value in values.tolist()]
        bounds = chunk.offsets.to_pylist()
        missing = chunk.is_null().to_pylist()
        for start, stop, none in zip(bounds, bounds[1:], missing, strict=False):
            yield None if none else tuple(ids[start:stop])
