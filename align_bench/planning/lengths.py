"""How long a data entry's rows are in the base's tokens, and what a run would cut: by a sample of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.data.chat import tokenize
from align_bench.data.dropped import check_dropped
from align_bench.models.base import template_inputs
from align_bench.models.tokenizer import load_tokenizer, with_inputs
from align_bench.records import PreferenceSet
from align_bench.stages.stage import Size

if TYPE_CHECKING:
    from align_bench.models.base import Base
    from align_bench.records import TemplateInputs, TokenRow
    from align_bench.stages.tokens import Tokens

SAMPLE_ROWS = 300
_ANY_LENGTH = 2**40


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a sample of a table's rows says of it.

    Attributes:
        size: of the whole table, after cutting or dropping.
        sampled: rows looked at.
        cut: share of them with an answer that does not fit into `max_length` behind its prompt: cut, or dropped.
        prompt, answer: tokens of the prompts and of the answers, uncut: median and 95th percentile.
        longer: share of the preferred answers that are longer than the longest answer that is written.
        prompts: tokens of each prompt, without rows that would be dropped.
    """

    size: Size
    sampled: int
    cut: float
    prompt: tuple[int, int]
    answer: tuple[int, int]
    longer: float
    prompts: tuple[int, ...] = ()


def measure_lengths(table: Tokens, tokenizer: Any, max_new_tokens: int) -> Lengths:
    """Tokenise rows drawn evenly from a data entry.

    Args:
        table: the entry.
        tokenizer: the base's, from `plain_tokenizer`.
        max_new_tokens: longest answer that is written.

    Raises:
        DataError: for rows that no run could read or tokenise either.
    """
    found = table.rows.read()
    step = max(1, math.ceil(len(found.rows) / SAMPLE_ROWS))
    sample = PreferenceSet(found.rows[::step], found.shape, {})
    tokenized = tokenize(tokenizer, sample, max_length=_ANY_LENGTH)
    rows, every = tokenized.rows, len(found.rows) / len(sample.rows)
    of_all = {reason: round(every * count) for reason, count in tokenized.counts.items()}
    check_dropped(table.where, found.counts, of_all, tokenized.examples, most=table.max_dropped)
    answers = [answer for row in rows for answer in _answers(row)]
    chosen = [len(row.chosen) for row in rows if row.chosen is not None]
    cut = [any(len(row.prompt) + len(answer) > table.max_length for answer in _answers(row)) for row in rows]
    kept = [row for row, is_cut in zip(rows, cut, strict=True) if not (is_cut and table.rows.too_long == "drop")]
    tokens = sum(min(len(row.prompt) + len(answer), table.max_length) for row in kept for answer in _answers(row))
    return Lengths(
        size=Size(
            rows=round(every * len(kept)),
            tokens=round(every * tokens),
            prompt_tokens=round(every * sum(len(row.prompt) for row in kept)),
            prompts=len({hash(row.prompt) for row in found.rows}),  # hashes take less memory than long prompts
        ),
        sampled=len(rows),
        cut=sum(cut) / len(rows),
        prompt=_median_and_p95([len(row.prompt) for row in rows]),
        answer=_median_and_p95([len(answer) for answer in answers]),
        longer=sum(length > max_new_tokens for length in chosen) / max(1, len(chosen)),
        prompts=tuple(len(row.prompt) for row in kept if len(row.prompt) < table.max_length),
    )


def plain_tokenizer(base: Base, inputs: TemplateInputs | None = None) -> Any:
    """The base's tokenizer, read without torch where its folder holds a fast one.

    Args:
        base: the model on disk.
        inputs: what its chat template reads beside the turns; what a suite that says nothing gives it when None.
    """
    from align_bench.models.tokenizer import set_ends

    inputs = template_inputs(base) if inputs is None else inputs
    if base.gguf or not (base.folder / "tokenizer.json").is_file():
        return load_tokenizer(base, inputs)
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.folder)
    set_ends(tokenizer, base)
    return with_inputs(tokenizer, inputs)


def _answers(row: TokenRow) -> list[tuple[int, ...]]:
    return [answer for answer in (row.chosen, row.rejected) if answer is not None]


def _median_and_p95(lengths: Sequence[int]) -> tuple[int, int]:
    """By nearest rank."""
    ordered = sorted(lengths)
    return ordered[(len(ordered) - 1) // 2], ordered[math.ceil(0.95 * len(ordered)) - 1]
