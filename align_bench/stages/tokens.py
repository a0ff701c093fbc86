"""The tokenised table of a data entry, which every method uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.records import MAX_DROPPED
from align_bench.stages.stage import TEXT_LIBRARIES, Desk, Made, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.records import Json, TokenTable
    from align_bench.stages.models import Frozen
    from align_bench.stages.rows import Rows
    from align_bench.store.store import Artefact

FILE = "tokens.parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens(Stage["TokenTable"]):
    """A data entry as token rows.

    Attributes:
        rows: the entry.
        frozen: whose tokenizer and template write it.
        max_length: tokens of prompt + answer.
        max_dropped: the share of its rows that may be dropped when they are read or by the template.
    """

    rows: Rows
    frozen: Frozen
    max_length: int
    max_dropped: float = MAX_DROPPED
    kind = "tokens"
    label = "tokens"
    libraries = TEXT_LIBRARIES
    fatal = True

    def identity(self) -> dict[str, Json]:
        """The base's digest holds its tokenizer and its template; what the template reads beside are its inputs."""
        known: dict[str, Json] = {
            "data": self.rows.fingerprint,
            "tokenizer": self.frozen.base.digest,
            "date": self.frozen.inputs.date,
            "max_length": self.max_length,
            "too_long": self.rows.too_long,
            **self.frozen.inputs.identity(),
        }
        return known if self.max_dropped == MAX_DROPPED else known | {"max_dropped": self.max_dropped}

    @property
    def where(self) -> str:
        """What its rows are called in messages."""
        return f"{self.owner} ({self.rows.source.path})"

    def run(self, desk: Desk, folder: Path) -> Made:
        from align_bench.data.chat import tokenize
        from align_bench.data.dropped import check_dropped
        from align_bench.data.token_rows import save_table
        from align_bench.models.tokenizer import check_ids, load_tokenizer

        found = desk.preferences(self.rows)
        tokenizer = load_tokenizer(self.frozen.base, self.frozen.inputs)
        table = tokenize(
            tokenizer,
            found,
            max_length=self.max_length,
            too_long=self.rows.too_long,
            update=desk.update,
        )
        check_dropped(self.where, found.counts, table.counts, table.examples, most=self.max_dropped)
        check_ids(tokenizer, self.frozen.base, largest_id(table))
        save_table(folder / FILE, table)
        return Made(
            tokens_in(table),
            {
                "shape": found.shape,
                "read": dict(found.counts),
                "tokens": dict(table.counts),
                "unread": [*found.unread, *(f"{key} of turns" for key in found.unread_keys)],
                "size": {
                    "rows": len(table.rows),
                    "tokens": tokens_in(table),
                    "prompt_tokens": sum(len(row.prompt) for row in table.rows),
                    "prompts": len({row.prompt for row in table.rows}),
                },
            },
        )

    def load(self, artefact: Artefact) -> TokenTable:
        from align_bench.data.token_rows import load_table

        return load_table(artefact / FILE)


def largest_id(table: TokenTable) -> int:
    """The largest token id of its prompts and answers."""
    return max(max(*prompt, *answer) for prompt, answer in _answers(table))


def tokens_in(table: TokenTable) -> int:
    """Tokens of all its answers, each with its prompt."""
    return sum(len(prompt) + len(answer) for prompt, answer in _answers(table))


def distinct_tokens_in(table: TokenTable) -> int:
    """Tokens that go through the model when each answer of a table is measured once."""
    return sum(len(prompt) + len(answer) for prompt, answer in set(_answers(table)))


def _answers(table: TokenTable) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    both = [(row.prompt, answer) for row in table.rows for answer in (row.chosen, row.rejected)]
    return [(prompt, answer) for prompt, answer in both if answer is not None]
