"""The tables on judges: their audit, and their agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from align_bench.report.formatting import number, one_line, percent, plain, with_spread
from align_bench.report.section import Column, Report, Section

Shown = Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]]
EDIT_NAMES = {
    "filler": "filler sentence appended",
    "doubled": "last paragraph doubled",
    "stripped": "Markdown stripped",
}


def agreement(report: Report) -> Section:
    """How far each two judges agree."""
    rows = [
        (
            one_line(f"{found['a']}, {found['b']}"),
            number(found["kendall_tau"]),
            str(found["methods"]),
            with_spread(found["agreement"]),
            f"{len(found['reversed'])} of {found['methods'] * (found['methods'] - 1) // 2}",
        )
        for found in report.get("agreement", ())
    ]
    columns = [
        Column("judges", numeric=False, wraps=True),
        Column("Kendall τ"),
        Column("methods"),
        Column("prompt by prompt"),
        Column("pairs reversed"),
    ]
    captions = [
        "τ: of the rankings of methods, the base among them, by mean score: 1 the same ranking, −1 the reverse.",
        "prompt by prompt: share of preferences between two methods' answers to a prompt on which both judges agree, "
        "where both have one.",
    ]
    return Section("Agreement of judges", columns, rows, captions, chapter="audit")


def audit_sections(report: Report) -> list[Section]:
    """The audit of judges and reward models: accuracy, length and form, edited answers, calibration."""
    return [_accuracy(report), _form(report), _edits(report), _calibration(report)]


def _accuracy(report: Report) -> Section:
    shown: Shown = {
        "accuracy": ("accuracy", with_spread),
        "longer wins": ("longer_wins", plain),
        "chosen longer": ("accuracy_chosen_longer", plain),
        "chosen shorter": ("accuracy_chosen_shorter", plain),
        "length matched": ("accuracy_length_matched", with_spread),
        "length controlled": ("accuracy_length_controlled", with_spread),
        "prompts shuffled": ("accuracy_prompts_shuffled", with_spread),
        "prompts empty": ("accuracy_prompts_empty", with_spread),
    }
    captions = [
        "length matched: on pairs whose lengths differ by less than 10%; length controlled: how often the label would "
        "agree if both answers were equally long, by logistic regression.",
        "prompts shuffled, empty: both answers scored under another pair's prompt, or none. What stays above ½ is "
        "judged without the question.",
    ]
    return _section(report, "Audit: what the accuracy of scores rests on", shown, captions)


def _form(report: Report) -> Section:
    shown: Shown = {
        "rank corr": ("length_spearman", with_spread),
        "within prompts": ("length_spearman_within", plain),
        "given label": ("length_partial", with_spread),
        "both": ("length_partial_within", plain),
        "words": ("effect_words", with_spread),
        "grade": ("effect_grade", with_spread),
        "lists": ("effect_list_items", with_spread),
        "headings": ("effect_headings", with_spread),
        "bold": ("effect_bold", with_spread),
    }
    captions = [
        "rank corr: Spearman's of score with words; within prompts: less each pair's mean; given label: partial "
        "(Pearson); both: of the differences within pairs.",
        "words, grade: change of the score, in its standard deviations, per standard deviation of words and of "
        "Flesch–Kincaid grade; lists, headings, bold: with against without. All in one regression, given the label.",
    ]
    return _section(report, "Audit: length and form", shown, captions)


def _edits(report: Report) -> Section:
    rows = [
        (
            one_line(found["scorer"]),
            EDIT_NAMES[edit],
            with_spread(metrics[f"shift_{edit}"]),
            percent(metrics[f"flips_{edit}"]),
            str(metrics[f"shift_{edit}"]["n"]),
        )
        for found in report.get("audit", ())
        for metrics in [found["metrics"]]
        for edit in EDIT_NAMES
        if metrics[f"shift_{edit}"]["n"]
    ]
    columns = [
        Column("model", numeric=False, wraps=True),
        Column("edit", numeric=False, wraps=True),
        Column("shift"),
        Column("flips"),
        Column("prompts"),
    ]
    captions = [
        "shift: mean change of the score, in standard deviations of the unedited scores.",
        "flips: share of comparisons in which the preference turns once one of the two answers is edited.",
    ]
    return Section("Audit: edited answers", columns, rows, captions, chapter="audit")


def _calibration(report: Report) -> Section:
    shown: Shown = {
        "Brier": ("brier", with_spread),
        "log-loss": ("log_loss", with_spread),
        "ECE": ("calibration_error", with_spread),
        "temperature": ("temperature", with_spread),
        "ties": ("tie_rate", percent),
    }
    captions = [
        "σ(difference of scores) as the probability that the label agrees, each pair's sides in a random order. A "
        "coin: Brier 0.25, log-loss 0.693.",
        "ECE: mean distance of predicted and observed shares over ten bins (the curve is in report.json); temperature: "
        "the divisor of scores that fits best; above 1, the model is too sure.",
    ]
    return _section(report, "Audit: calibration", shown, captions)


def _section(report: Report, title: str, shown: Shown, captions: list[str]) -> Section:
    """A row a scorer; columns that are undefined in every row are left out."""
    found = report.get("audit", ())
    kept = {
        heading: (name, render)
        for heading, (name, render) in shown.items()
        if any(one["metrics"][name]["value"] is not None for one in found)
    }
    rows = [
        (one_line(one["scorer"]), *(render(one["metrics"][name]) for name, render in kept.values()))
        for one in found
        if kept
    ]
    return Section(
        title, [Column("model", numeric=False, wraps=True), *map(Column, kept)], rows, captions, chapter="audit"
    )
