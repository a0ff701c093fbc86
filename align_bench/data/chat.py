"""Preferences to token ids, once and for every method alike.

Prompt and answers are texts first (`rendering`). They are tokenised together, since the first token of an answer may
depend on what stands before it: an answer is what follows the tokens that the prompt, prompt + chosen and prompt +
rejected have in common. A token that would take text of a turn into the answer is not merged.

A tokenizer without a chat template gets the tokenizer's end token after the answer, and the beginning-of-text token in
front where the tokenizer adds one. A template is trusted to write its own beginning-of-text token.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from align_bench.data.dropped import NO_PROMPT, UnusableRowError, advice
from align_bench.data.rendering import Rendered, Style, render_rows, style_of
from align_bench.data.token_rows import RowBatch, joined
from align_bench.errors import DataError
from align_bench.records import Preference, TokenTable, no_update

if TYPE_CHECKING:
    from align_bench.records import PreferenceSet, Update

Ids = list[int]
# A row with the ids of its prompt and of its answers, or with the reason why it has none.
_Encoded: TypeAlias = tuple[Preference, tuple[Ids, list[Ids]] | UnusableRowError]

_CHUNK_ROWS = 2048


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
    counts: Counter[str] = Counter(kept=0, truncated=0)
    examples: dict[str, int] = {}
    done, total = 0, len(preferences.rows)

    def tables() -> Iterator[RowBatch]:
        nonlocal done
        for chunk in _encoded(tokenizer, form, preferences.rows):
            batch = RowBatch()
            for row, parts in chunk:
                try:
                    prompt, answers, truncated = _fitted(parts, max_length, too_long)
                except UnusableRowError as reason:
                    counts[f"dropped: {reason}"] += 1
                    examples.setdefault(str(reason), row.pair)
                    continue
                left = iter(answers)
                chosen = None if row.chosen is None else next(left)
                rejected = None if row.rejected is None else next(left)
                batch.append(row.pair, prompt, chosen, rejected, row.gold_choice, row.margin)
                counts["truncated"] += truncated
            yield batch
            done += len(chunk)
            update(done, total)

    rows = joined(tables())
    counts["kept"] = len(rows)
    if not rows:
        raise _nothing_left(total, counts)
    return TokenTable(rows, dict(counts), examples)


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


def _encoded(tokenizer: Any, form: _Format, rows: Sequence[Preference]) -> Iterator[list[_Encoded]]:
    """The shared prompt and the answers of each row as ids, in chunks; one is encoded while the next one is rendered.

    Fast tokenizers encode with all cores, and leave the interpreter to the template meanwhile.
    """
    boundary = _boundary(tokenizer)
    waiting: deque[Future[list[_Encoded]]] = deque()
    with ThreadPoolExecutor(1) as encoder:
        for start in range(0, len(rows), _CHUNK_ROWS):
            rendered = render_rows(tokenizer, form.style, rows[start : start + _CHUNK_ROWS])
            waiting.append(encoder.submit(_encode, tokenizer, form, boundary, rendered))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _boundary(tokenizer: Any) -> re.Pattern[str] | None:
    """Where texts may be parted without a change of their tokens: before a token that is cut out of them first of all.

    Returns:
        Matches all tokens that are cut out of a text before anything else is done to it; the group `border` those
        before which it may be parted. None where there is none to rely on.
    """
    if not tokenizer.is_fast or getattr(tokenizer, "split_special_tokens", False):
        return None
    first = [token for token in tokenizer.added_tokens_decoder.values() if not token.normalized and token.content]
    if not first or any(token.single_word for token in first):
        return None
    ordered = sorted(first, key=lambda token: -len(token.content))  # the longest that fits is taken
    return re.compile("|".join(f"{'(' if not token.lstrip else '(?:'}{re.escape(token.content)})" for token in ordered))


def _encode(
    tokenizer: Any,
    form: _Format,
    boundary: re.Pattern[str] | None,
    rows: Sequence[tuple[Preference, Rendered | UnusableRowError]],
) -> list[_Encoded]:
    """Encode the texts of a chunk, each text once: a prompt up to its last border is the same before every answer."""
    texts: dict[str, int] = {}

    def place(text: str) -> int:
        return texts.setdefault(text, len(texts))

    places: list[tuple[int, list[int]]] = []
    for _, found in rows:
        if isinstance(found, Rendered):
            cut = _last_border(boundary, found.prompt)
            head, tail = found.prompt[:cut], found.prompt[cut:]
            places.append((place(head), [place(tail), *(place(tail + answer) for answer in found.answers)]))
    ids, left = _ids(tokenizer, list(texts)) if texts else [], iter(places)
    encoded: list[_Encoded] = []
    for row, found in rows:
        if isinstance(found, UnusableRowError):
            encoded.append((row, found))
            continue
        head_place, others = next(left)
        header, answers = _split(tokenizer, form.style, found, [ids[other] for other in others])
        prompt = [*form.bos, *ids[head_place], *header]
        encoded.append((row, (prompt, [[*answer, *form.end] for answer in answers])))
    return encoded


def _last_border(boundary: re.Pattern[str] | None, prompt: str) -> int:
    """Where the last token begins before which a prompt may be parted; 0 where there is none."""
    if boundary is None:
        return 0
    return max((match.start() for match in boundary.finditer(prompt) if match.lastindex), default=0)


def _split(tokenizer: Any, style: Style, texts: Rendered, ids: Sequence[Ids]) -> tuple[Ids, list[Ids]]:
    """The end of the shared prompt and the answers, of the ids of that end alone and before each answer."""
    shared = _common_prefix(ids)
    if shared < len(ids[0]) and not _within_header(tokenizer, style, texts.prompt, shared - len(ids[0])):
        return ids[0], _ids(tokenizer, texts.answers)
    return ids[0][:shared], [each[shared:] for each in ids[1:]]


def _within_header(tokenizer: Any, style: Style, prompt: str, last: int) -> bool:
    """Whether the last tokens of a prompt (as many as −`last`) are of its header alone, with no text of a turn."""
    if not (tokenizer.is_fast and prompt.endswith(style.header)):
        return False
    found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    start = found["offset_mapping"][last][0]
    return bool(start >= len(prompt) - len(style.header))


def _common_prefix(texts: Sequence[Ids]) -> int:
    shortest = min(len(ids) for ids in texts)
    # Nearly always the whole prompt is shared, and comparing slices is far faster than comparing token by token.
    head = texts[0][:shortest]
    if all(ids[:shortest] == head for ids in texts):
        return shortest
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False)))


def _fitted(
    parts: tuple[Ids, list[Ids]] | UnusableRowError, max_length: int, too_long: str
) -> tuple[Ids, list[Ids], bool]:
    """Prompt and answers that fit into the length, and whether an answer was cut."""
    if isinstance(parts, UnusableRowError):
        raise parts
    prompt, answers = parts
    if not prompt:
        raise UnusableRowError(NO_PROMPT)
    room = max_length - len(prompt)
    truncated = any(len(answer) > room for answer in answers)
    if truncated and too_long == "drop":
        raise UnusableRowError(f"longer than {max_length} tokens")
    if room < 1:
        raise UnusableRowError(f"prompt leaves no room in {max_length} tokens")
    shortened = [answer[:room] for answer in answers]
    if len(shortened) == 2 and shortened[0] == shortened[1]:
        raise UnusableRowError("equal answers after truncation" if truncated else "equal answers as tokens")
    return prompt, shortened, truncated
