"""The tables of the course's analyses, and of keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align_bench.report.formatting import UNDEFINED, interval, number, one_line, p_value
from align_bench.report.section import Column, Section, detectable, text

Report = Mapping[str, Any]
# Keywords that every table shows; the others need room.
FIRST = 5


def score_groups(report: Report) -> Section:
    """Every reward model's higher scores, of preferred answers against the others."""
    rows = [
        (
            one_line(found["cell"]),
            str(found["correct"]["n"]),
            number(found["correct"]["mean"]),
            str(found["wrong"]["n"]),
            number(found["wrong"]["mean"]),
            number(found["test"]["difference"], signed=True),
            interval(found["test"]["low"], found["test"]["high"]),
            number(found["test"]["t"]),
            p_value(found["test"]["p"]),
        )
        for found in report["course"]["scores"]
    ]
    headings = ("correct", "mean correct", "wrong", "mean wrong", "diff", "95% interval", "Welch t", "p")
    captions = [
        "The higher of a question's two scores is correct when the preferred answer has it, else wrong; ties are in "
        "neither. The two groups hold different questions; Welch's t-test is not adjusted for the number of models.",
        *detectable(report, "pairs"),
    ]
    return Section(
        "Scores of correct and wrong choices", [text("model"), *map(Column, headings)], rows, captions, chapter="scores"
    )


def favoured_answers(report: Report) -> Section:
    """Length and readability of the validation answers that the label and each model favour, and of the others."""
    rows = [
        (
            one_line(found["by"]),
            found["side"],
            *_middle(found["words"], "{:.0f}"),
            *_middle(found["grade"], "{:.1f}"),
            str(found["grade"]["n_valid"]),
        )
        for found in report["course"]["answers"]
    ]
    columns = [text("by"), text("answers", wraps=False)]
    columns += [Column(f"{what} {kind}") for what in ("words", "grade") for kind in ("mean", "median", "quartiles")]
    captions = [
        "favoured: the answer with the higher score, or the one that the data prefers (label); ties are left out.",
        "grade: Flesch–Kincaid; graded: answers that have one.",
        *detectable(report, "pairs"),
    ]
    return Section("Length and readability of favoured answers", [*columns, Column("graded")], rows, captions, "length")


def keyword_lists(report: Report) -> Section:
    """The keywords of favoured answers, of the training set, of each policy and of the base."""
    training = report.get("training_keywords")
    lists = [*([training] if training else []), *report["keywords"]["lists"]]
    bases = {found["cell"] for found in report["results"] if found["kind"] == "base"}
    base = next((found for found in lists if found["of"] in bases), None)
    rows = []
    for found in lists:
        terms = _terms(found)
        rows.append(
            (
                one_line(found["of"]),
                one_line(found["kind"]),
                str(found["texts"]),
                _shared(found, training),
                _shared(found, base),
                one_line(", ".join(terms[:FIRST])) or UNDEFINED,
                one_line(", ".join(terms[FIRST:])),
            )
        )
    columns = [text("of"), text("answers", wraps=False), Column("texts")]
    columns += [Column("as train"), Column("as base"), text("keywords"), text("further keywords")]
    captions = [
        "The 20 terms of highest mean TF-IDF over the texts (scikit-learn, English stop words), each list by itself; "
        f"terms: {one_line(report['keywords']['segmentation'])}.",
        "train: the training set's chosen answers; as train, as base: terms in common with these lists.",
    ]
    return Section("Keywords", columns, rows, captions, chapter="keywords")


def _middle(found: Mapping[str, Any], form: str) -> Sequence[str]:
    mean, median, q1, q3 = (
        UNDEFINED if found[name] is None else form.format(found[name]) for name in ("mean", "median", "q1", "q3")
    )
    return mean, median, UNDEFINED if found["q1"] is None else f"{q1}–{q3}"


def _terms(found: Mapping[str, Any]) -> list[str]:
    return [one["term"] for one in found["keywords"]]


def _shared(found: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
    return UNDEFINED if other is None else str(len({*_terms(found)} & {*_terms(other)}))
