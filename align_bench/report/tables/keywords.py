"""The keywords of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.report.formatting import UNDEFINED, one_line
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Number, count

if TYPE_CHECKING:
    from align_bench.report.schema import KeywordList, Report

# Keywords that every table shows; the others need room.
FIRST = 5


def keyword_lists(report: Report) -> Section:
    """The keywords of favoured answers, of the training set, of each policy and of the base."""
    training = report.training_keywords
    lists = [*([training] if training else []), *report.keywords.lists]
    bases = {found.name for found in report.results if found.kind == "base"}
    base = next((found for found in lists if found.of in bases), None)
    rows = []
    for found in lists:
        terms = _terms(found)
        rows.append(
            (
                one_line(found.of),
                found.kind,
                count(found.texts),
                _shared(found, training),
                _shared(found, base),
                one_line(", ".join(terms[:FIRST])) or UNDEFINED,
                one_line(", ".join(terms[FIRST:])),
            )
        )
    columns = [
        text("of"),
        text("answers", wraps=False),
        Column("texts"),
        Column("shared with train"),
        Column("shared with base"),
        text("keywords"),
        text("further keywords", optional=True),
    ]
    captions = [
        "The 20 terms of highest mean TF-IDF over the texts (scikit-learn, English stop words), each list on its own; "
        f"terms: {one_line(report.keywords.segmentation)}.",
        "train: the training set's chosen answers; shared with train, with base: terms in common with these lists.",
    ]
    return Section("Keywords", columns, rows, captions, chapter="keywords")


def _terms(found: KeywordList) -> list[str]:
    return [one.term for one in found.keywords]


def _shared(found: KeywordList, other: KeywordList | None) -> Number:
    return count(None if other is None else len({*_terms(found)} & {*_terms(other)}))
