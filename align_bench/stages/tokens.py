"""The tokenised table of a data entry, which every method uses."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import sha256
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
        from align_bench.data.token_rows import TokenRows, save_table
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
        rows = TokenRows.of(table.rows)
        check_ids(tokenizer, self.frozen.base, rows.largest_id())
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
                    "prompt_tokens": int(rows.lengths("prompt").sum()),
                    "prompts": rows.distinct_prompts(),
                },
            },
        )

    def load(self, artefact: Artefact) -> TokenTable:
        from align_bench.data.token_rows import load_table

        return load_table(artefact / FILE)


def tokens_in(table: TokenTable) -> int:
    """Tokens of all its answers, each with its prompt."""
    from align_bench.data.token_rows import TokenRows

    rows = TokenRows.of(table.rows)
    prompts, sides = rows.lengths("prompt"), (rows.lengths("chosen"), rows.lengths("rejected"))
    return sum(int((prompts + own)[own >= 0].sum()) for own in sides)


def distinct_tokens_in(table: TokenTable) -> int:
    """Tokens that go through the model when each answer of a table is measured once."""
    seen: set[bytes] = set()  # hashes, which take less memory than the ids of long answers
    tokens = 0
    for row in table.rows:
        for answer in (row.chosen, row.rejected):
            if answer is None:
                continue
            own = sha256(array("q", (len(row.prompt), *row.prompt, *answer)).tobytes()).digest()
            tokens += 0 if own in seen else len(row.prompt) + len(answer)
            seen.add(own)
    return tokens
