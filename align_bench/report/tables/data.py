"""What is in the rows, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from align_bench.data.advice import ADVICE, LONGER, NAMES
from align_bench.report import formatting
from align_bench.report.formatting import one_line
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Number, Value, count, shown

if TYPE_CHECKING:
    from align_bench.report.schema import CheckedRows, DataFacts, ExaminedRows, Report

PROBLEMS = ("duplicates", "near_duplicates", "contradictions")


def data_sets(report: Report) -> Section:
    """A row per split whose rows were examined, and a line of advice for each thing that is wrong."""
    examined = {split: facts.examined for split, facts in report.data.items() if facts.examined is not None}
    sides = {split: _first_side(report.data[split].checked) for split in examined}
    rows: list[tuple[Value, ...]] = [
        (
            one_line(split),
            count(found.rows),
            count(_dropped(report.data[split])),
            count(report.data[split].tokens.get("truncated", 0)),
            *(count(getattr(found, problem)) for problem in PROBLEMS),
            count(found.prompts_in_train),
            count(found.prompts_in_val),
            sides[split],
            _share(found.longer_preferred, found.pairs - found.equally_long),
            *(
                shown(words, formatting.tenths)
                for words in (found.prompt_words, found.chosen_words, found.rejected_words)
            ),
            one_line(", ".join(f"{name} {rows:,}" for name, rows in list(found.scripts.items())[:3])),
        )
        for split, found in examined.items()
    ]
    columns = [
        *(
            text("data"),
            Column("rows"),
            Column("dropped"),
            Column("truncated"),
            *(Column(NAMES[problem]) for problem in PROBLEMS),
        ),
        *(Column("prompts in train"), Column("prompts in val")),
        *(Column("labels on one side"), Column("longer preferred")),
        *(Column("prompt words", optional=True), Column("chosen words", optional=True)),
        *(Column("rejected words", optional=True), text("scripts", optional=True)),
    ]
    captions = [
        "Counts of rows; dropped: as they were read or tokenised; truncated: answers beyond train.max_length. Labels "
        "on one side: that prefer the first answer, or call the only one desirable. Longer preferred: of the pairs "
        "whose answers differ in their number of words. Words: medians. align-bench data FILE shows which rows.",
        *_advice(examined),
    ]
    return Section("Data", columns, rows, captions if rows else [], chapter="data")


def _advice(examined: Mapping[str, ExaminedRows]) -> Iterator[str]:
    for split, found in examined.items():
        for problem in PROBLEMS:
            if number := getattr(found, problem):
                share = f"{number / found.rows:.1%} of its rows"
                yield one_line(f"{split}: {NAMES[problem]}: {number:,}, {share}: {ADVICE[problem]}.")
        measured, of_judge = split in ("val", "test"), split.startswith("judge")
        shared = found.prompts_in_train if measured else found.prompts_in_val if of_judge else None
        if shared:
            other = "train" if measured else "val"
            yield one_line(f"{split}: rows that share a prompt with {other}: {shared:,}: {ADVICE['shared']}.")
        differ = found.pairs - found.equally_long
        if differ and found.longer_preferred / differ > LONGER:
            yield one_line(
                f"{split}: the longer answer is preferred in {found.longer_preferred / differ:.1%}: read results at "
                "equal length, or train a debiased reward model."
            )


def _dropped(facts: DataFacts) -> int:
    return sum(
        rows for counts in (facts.read, facts.tokens) for why, rows in counts.items() if why.startswith("dropped")
    )


def _first_side(checked: CheckedRows | None) -> Number:
    if checked is None or checked.labels is None or checked.labels_first is None:
        return Number(None, "n/a")
    return _share(checked.labels_first, checked.labels)


def _share(part: int, of: int) -> Number:
    return Number(part / of, f"{part / of:.1%}") if of else Number(None, "n/a")
