"""Preferences to token ids, once and for every method alike.

The prompt and the whole conversation are rendered with the tokenizer's chat template and tokenised whole; the answer is
what follows the tokens that the prompt, prompt + chosen and prompt + rejected have in common. An answer is never
tokenised by itself: its first token may depend on what stands before it, and templates add text of their own (such as a
default system turn).

A tokenizer without a chat template gets the plain form: the turns joined by newlines, a newline, the answer, the
tokenizer's end token; the beginning-of-text token goes in front where the tokenizer adds one. A template is trusted to
write its own beginning-of-text token.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from align_bench.errors import DataError
from align_bench.records import Message, TokenRow, TokenTable, no_update

if TYPE_CHECKING:
    from align_bench.records import Preference, PreferenceSet, Update

Ids = list[int]
_T = TypeVar("_T")

_CHUNK_ROWS = 256
# Tokens may merge over the border between prompt and answer, and some templates open a thinking block only in the
# prompt. A prompt that shares less than all but so many of its tokens with the conversation is another prompt.
_MAX_LOST_TOKENS = 16
_SENTINEL = "Zqxanswerxqz"
_COUNTS_KEY = b"align_bench.counts"


class _DropError(Exception):
    """This row cannot be used, for a reason that is counted."""


@dataclass(frozen=True)
class _Rendered:
    """Texts of one row: the prompt, then prompt + answer for each answer there is."""

    row: Preference
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _Format:
    """How a tokenizer writes conversations.

    Attributes:
        prompt: turns → text up to and with the answer's header.
        conversation: turns, answer → text.
        bos: ids put in front of every text.
        end: id of the token that ends an answer.
        ended: whether `conversation` writes the end token; it is appended where it does not.
    """

    prompt: Callable[[Sequence[Message]], str]
    conversation: Callable[[Sequence[Message], str], str]
    bos: tuple[int, ...]
    end: int
    ended: bool


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
        is cut. Both answers of a pair share one prompt.

    Raises:
        DataError: the chat template refuses a conversation, the tokenizer has no end token, or no row is left.
    """
    if max_length < 2:
        raise DataError(f"max_length is {max_length}; a prompt and an answer need at least 2 tokens.")
    if not preferences.rows:
        raise DataError("there are no rows to tokenise.")
    style = _format(tokenizer, preferences.rows[0])
    # Token ids are drawn from one list: equal numbers are then one object, a quarter of the memory of a fresh int each.
    shared = list(range(len(tokenizer)))
    kept: list[TokenRow] = []
    counts: Counter[str] = Counter(kept=0, truncated=0)
    total = len(preferences.rows)
    for start in range(0, total, _CHUNK_ROWS):
        chunk = preferences.rows[start : start + _CHUNK_ROWS]
        for row, texts in _encode(tokenizer, style, chunk):
            try:
                token_row, truncated = _token_row(row, _split(row, texts, style), max_length, too_long)
            except _DropError as drop:
                counts[f"dropped: {drop}"] += 1
                continue
            kept.append(_interned(token_row, shared))
            counts["truncated"] += truncated
        update(start + len(chunk), total)
    counts["kept"] = len(kept)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if reason.startswith("dropped"))
        raise DataError(f"none of {total} rows is left after tokenising: {reasons}.", fix="raise `max_length`")
    return TokenTable(tuple(kept), dict(counts))


def _format(tokenizer: Any, first: Preference) -> _Format:
    if getattr(tokenizer, "chat_template", None):
        return _template_format(tokenizer, first)
    return _Format(
        prompt=_plain,
        conversation=lambda turns, answer: _plain(turns) + answer,
        bos=_added_bos(tokenizer),
        end=_eos(tokenizer),
        ended=False,
    )


def _plain(turns: Sequence[Message]) -> str:
    return "\n".join(turn.content for turn in turns) + "\n"


def _added_bos(tokenizer: Any) -> tuple[int, ...]:
    """The beginning-of-text token, where the tokenizer itself adds one to a text."""
    added = tokenizer("")["input_ids"][:1]
    return tuple(added) if added == [tokenizer.bos_token_id] else ()


def _eos(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end token, so that no answer could end.",
            fix="set `eos_token` in the model folder's tokenizer_config.json",
        )
    return int(tokenizer.eos_token_id)


def _template_format(tokenizer: Any, first: Preference) -> _Format:
    def conversation(turns: Sequence[Message], answer: str) -> str:
        return _apply(tokenizer, [*turns, Message("assistant", answer)], header=False)

    probe = _named(first, lambda: conversation(first.prompt, _SENTINEL))
    suffix = probe.rpartition(_SENTINEL)[2]
    end = _first_added_token(tokenizer, suffix)
    if end is not None:
        return _Format(lambda turns: _apply(tokenizer, turns, header=True), conversation, (), end, ended=True)
    return _Format(
        prompt=lambda turns: _apply(tokenizer, turns, header=True),
        conversation=lambda turns, answer: conversation(turns, answer).removesuffix(suffix),
        bos=(),
        end=_eos(tokenizer),
        ended=False,
    )


def _apply(tokenizer: Any, turns: Sequence[Message], *, header: bool) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=header, tokenize=False))


def _named(row: Preference, render: Callable[[], _T]) -> _T:
    """Render, and name the row where the template refuses it."""
    # Templates are programs that may raise anything.
    try:
        return render()
    except Exception as error:
        roles = ", ".join([turn.role for turn in row.prompt] + ["assistant"])
        raise DataError(
            f"row {row.pair} (counted from 0): the chat template refuses this conversation (turns: {roles}): {error}",
            fix="leave such rows out of the data, or use a base whose template takes these roles",
        ) from error


def _first_added_token(tokenizer: Any, suffix: str) -> int | None:
    """The first token of the suffix that is no ordinary text: the end of turn."""
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    return next((token for token in _ids(tokenizer, [suffix])[0] if token in added), None)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return list(encoded["input_ids"])


def _encode(tokenizer: Any, style: _Format, rows: Sequence[Preference]) -> Iterator[tuple[Preference, list[Ids]]]:
    rendered = [_Rendered(row, _named(row, partial(_texts, row, style))) for row in rows]
    ids = iter(_ids(tokenizer, [text for each in rendered for text in each.texts]))
    for each in rendered:
        yield each.row, [[*style.bos, *next(ids)] for _ in each.texts]


def _texts(row: Preference, style: _Format) -> tuple[str, ...]:
    answers = [answer for answer in (row.chosen, row.rejected) if answer is not None]
    return (style.prompt(row.prompt), *(style.conversation(row.prompt, answer) for answer in answers))


def _split(row: Preference, texts: Sequence[Ids], style: _Format) -> tuple[Ids, list[Ids]]:
    """The shared prompt and each answer through its end token."""
    prompt, *conversations = texts
    shared = _common_prefix(texts)
    if not shared or len(prompt) - shared > _MAX_LOST_TOKENS:
        raise DataError(
            f"row {row.pair} (counted from 0): the chat template writes the prompt differently once it has an answer "
            f"({len(prompt) - shared} of its {len(prompt)} tokens are not in the conversation).",
            fix="use a base whose template writes the same prompt with and without an answer",
        )
    return prompt[:shared], [_through_end(ids[shared:], style) for ids in conversations]


def _common_prefix(texts: Sequence[Ids]) -> int:
    shortest = min(len(ids) for ids in texts)
    # Nearly always the whole prompt is shared, and comparing slices is far faster than comparing token by token.
    head = texts[0][:shortest]
    if all(ids[:shortest] == head for ids in texts):
        return shortest
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False)))


def _through_end(answer: Ids, style: _Format) -> Ids:
    if not style.ended:
        return [*answer, style.end]
    # The last one is the template's; an earlier one is the answer quoting the token.
    for position in range(len(answer) - 1, -1, -1):
        if answer[position] == style.end:
            return answer[: position + 1]
    return [*answer, style.end]


def _token_row(row: Preference, parts: tuple[Ids, list[Ids]], max_length: int, too_long: str) -> tuple[TokenRow, bool]:
    prompt, answers = parts
    room = max_length - len(prompt)
    truncated = any(len(answer) > room for answer in answers)
    if truncated and too_long == "drop":
        raise _DropError(f"longer than {max_length} tokens")
    if room < 1:
        raise _DropError(f"prompt leaves no room in {max_length} tokens")
    shortened = [tuple(answer[:room]) for answer in answers]
    if len(shortened) == 2 and shortened[0] == shortened[1]:
        raise _DropError("equal answers after truncation" if truncated else "equal answers as tokens")
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
