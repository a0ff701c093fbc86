"""The page docs/data.md: every recognised shape with an example row, written by the code that reads them.

`python -c "from align_bench.data.shapes_page import page; print(page(), end='')" > docs/data.md` writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from align_bench.data.choices import line
from align_bench.data.known_sets import KNOWN_SETS, KnownSet
from align_bench.data.layout import Layout, layout_of
from align_bench.data.preferences import DataSource
from align_bench.data.shapes import Answered
from align_bench.data.tables import Table
from align_bench.records import Json

SHOWN_PAIRS = 3
_QUESTION = {"question": "Name a prime.", "response_1": "Seven.", "response_2": "Nine."}
_PAIR = {"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Nine."}
_USER = {"role": "user", "content": "Name a prime."}


@dataclass(frozen=True)
class Example:
    """A row, and how it is read.

    Attributes:
        title: what the row shows.
        row: the row.
        columns, choice: as a suite says them.
        note: what is done beyond what these say.
    """

    title: str
    row: Mapping[str, Json]
    columns: Mapping[str, str] = field(default_factory=dict)
    choice: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def layout(self) -> Layout:
        """How its row is read.

        Raises:
            DataError: it is of no known shape.
        """
        source = DataSource("example", columns=self.columns, choice=self.choice)
        return layout_of(source, Table(tuple(self.row), lambda _: [self.row]))

    def pairs(self) -> list[Answered]:
        """What its row is read as."""
        return [each for each in self.layout().read(self.row) if isinstance(each, Answered)]


STANDARD = (
    Example("two answers and a choice (the course's data)", {**_QUESTION, "overall_response": 1}),
    Example("a chosen and a rejected answer", _PAIR),
    Example("one answer and a label (unpaired)", {"prompt": "Name a prime.", "completion": "Nine.", "label": False}),
    Example(
        "whole conversations that share their prompt",
        {
            "chosen": [_USER, {"role": "assistant", "content": "Seven."}],
            "rejected": [_USER, {"role": "assistant", "content": "Nine."}],
        },
    ),
    Example(
        "two answers and their scores",
        {**_QUESTION, "score_1": 4.5, "score_2": 2.0},
        note="the higher score is preferred, equal scores are a tie",
    ),
)

NAMED = (
    Example(
        "columns of other names",
        {"query": "Name a prime.", "better": "Seven.", "worse": "Nine."},
        {"prompt": "query", "chosen": "better", "rejected": "worse"},
    ),
    Example(
        "a choice by name",
        {"question": "Name a prime.", "first": "Nine.", "second": "Seven.", "winner": "model_b"},
        {"response_1": "first", "response_2": "second", "overall_response": "winner"},
        {"model_a": "first", "model_b": "second", "tie": "drop"},
    ),
    Example(
        "a signed strength: the sign says who, 0 is a tie",
        {**_QUESTION, "strength": -2},
        {"overall_response": "strength"},
        {"<0": "response_1", "0": "drop", ">0": "response_2"},
        note="the size is the pair's margin",
    ),
    Example(
        "a column for each outcome",
        {**_QUESTION, "first_wins": 1, "second_wins": 0, "tie": 0},
        {},
        {"first_wins": "a", "second_wins": "b", "tie": "drop"},
    ),
    Example(
        "graded labels, with a threshold of your own",
        {"prompt": "Name a prime.", "completion": "Seven.", "rating": 5},
        {"label": "rating"},
        {">=4": "desirable", "<=2": "undesirable", "3": "drop"},
    ),
    Example(
        "two whole conversations and a choice",
        {
            "left": [_USER, {"role": "assistant", "content": "Nine."}],
            "right": [_USER, {"role": "assistant", "content": "Seven."}],
            "better": 2,
        },
        {"response_1": "left", "response_2": "right", "overall_response": "better"},
    ),
)

CELLS = (
    Example("a transcript", {**_PAIR, "prompt": "\n\nHuman: Hello.\n\nAssistant: Hi!\n\nHuman: Name a prime."}),
    Example("roles of other names", {**_PAIR, "prompt": [{"role": "Human", "content": "Name a prime."}]}),
    Example("turns of `from` and `value`", {**_PAIR, "prompt": [{"from": "human", "value": "Name a prime."}]}),
    Example(
        "content in parts of text",
        {**_PAIR, "prompt": [{"role": "user", "content": [{"type": "text", "text": "Name a prime."}]}]},
        note="a part that is an image drops the row as `image`",
    ),
    Example("a turn whose fields are lists", {**_PAIR, "prompt": {"role": ["user"], "content": ["Name a prime."]}}),
    Example("one object as the answer", {**_PAIR, "chosen": {"role": "assistant", "content": "Seven."}}),
    Example("turns written as text, as JSON or by Python", {**_PAIR, "prompt": repr([_USER])}),
    Example(
        "several answers",
        {**_PAIR, "rejected": ["Nine.", "Ten."]},
        note="each chosen one with each rejected one: pairs of one prompt",
    ),
    Example("a system text", {"system": "Answer in one word.", **_PAIR}),
    Example(
        "an instruction with an input",
        {"instruction": "Translate:", "input": "bonjour", "chosen": "hello", "rejected": "bye", "id": 1},
        {"prompt": "instruction"},
    ),
    Example("a margin", {**_PAIR, "margin": 1.5}),
    Example(
        "scores of both answers",
        {**_PAIR, "score_chosen": 9, "score_rejected": 4},
        note="their difference is the margin, equal ones are a tie",
    ),
)


def known_example(known: KnownSet) -> Example:
    """A public set's example; its mapping is in the code."""
    return Example(known.name, known.example)


def page() -> str:
    """The page, as Markdown."""
    return "\n\n".join(_parts()) + "\n"


def _parts() -> Iterator[str]:
    yield "# Rows that are read"
    yield (
        "This page is written by [align_bench/data/shapes_page.py](../align_bench/data/shapes_page.py), and a test "
        "reads every example. `align-bench data FILE` says which shape a file has, what is dropped and what is unread."
    )
    yield "## Standard columns"
    yield _table(STANDARD)
    yield "## Columns and choices that you name"
    yield (
        "`columns:` and `choice:` stand beside `path:` in a suite's data entry; `align-bench data` takes `--column` "
        "and `--choice`. A choice or label column is looked at first: if more than 5% of its values are none of those "
        "that are expected, the file is refused, with the values and a line to paste. In `choice:`, a value (or a "
        "comparison with a number) stands for an answer's column, `a`, `b`, `desirable`, `undesirable`, or `drop`."
    )
    yield _table(NAMED)
    yield "## Cells, and what may stand beside"
    yield (
        "Rows with images, videos, sounds, `tools` or tool calls are dropped under that name. Labels may be true and "
        "false, 1 and 0, 1 and -1, or desirable and undesirable. A dropped row is counted under its reason."
    )
    yield _table(CELLS)
    yield "## Public sets that are recognised"
    yield "By their columns, without `columns:` or `choice:`; what you write yourself goes first."
    yield _table([known_example(known) for known in KNOWN_SETS], KNOWN_SETS)


def _table(examples: Sequence[Example], sets: Sequence[KnownSet] = ()) -> str:
    lines = ["| row | example | read as | the mapping it stands for |", "|---|---|---|---|"]
    for place, example in enumerate(examples):
        known = sets[place] if sets else None
        title = f"[{known.name}]({known.source})" if known else example.title
        cells = (title, _code(json.dumps(example.row, ensure_ascii=False)), _read_as(example), _mapping(example, known))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _read_as(example: Example) -> str:
    pairs = example.pairs()
    more = len(pairs) - SHOWN_PAIRS
    return "<br>".join([*map(_shown, pairs[:SHOWN_PAIRS]), *([f"and {more} more pairs"] if more > 0 else [])])


def _shown(pair: Answered) -> str:
    parts = [f"{turn.role}: {_code(turn.content)}" for turn in pair.prompt]
    parts += [
        f"{name}: {_code(answer)}"
        for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected))
        if answer is not None
    ]
    return ", ".join(parts + ([] if pair.margin is None else [f"margin: {pair.margin:g}"]))


def _mapping(example: Example, known: KnownSet | None) -> str:
    columns, choice, note = (
        (known.names, known.choice, known.note) if known else (example.columns, example.choice, example.note)
    )
    parts = [_code(f"columns: {line(columns)}")] if columns else []
    parts += [_code(f"choice: {line(choice)}")] if choice else []
    return "; ".join([*parts, *([note] if note else [])]) or "the standard names"


def _code(text: str) -> str:
    return "`" + text.replace("\n", "\\n").replace("|", "\\|") + "`"
