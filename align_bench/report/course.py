"""The course's analyses, from exported rows: groups of scores, lengths and grades, keywords; and quality per cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from align_bench.metrics.distribution import describe
from align_bench.metrics.keywords import SEGMENTATION, keywords
from align_bench.metrics.pareto import pareto
from align_bench.metrics.score_groups import score_groups, welch_test
from align_bench.records import PairTexts
from align_bench.report.cells import Cell
from align_bench.suite.names import JUDGE_CELL

Row = Mapping[str, Any]
LABEL = "label"
MEASURES = ("words", "grade")
# Kind of the contestants → the metrics that their cost is held against.
QUALITIES = {
    "reward models": ("accuracy", "accuracy_gold_choice"),
    "policies": ("judge_reward_mean", "gold_accuracy", "accuracy"),
}


def course(cells: Sequence[Cell]) -> dict[str, Any]:
    """Every reward model's and judge's groups of scores, and the answers that they and the label favour.

    Returns:
        `scores`: by cell, the distributions of `correct` and `wrong` scores, the `ties` left out, and the `test`
        between the two; `answers`: by who favours them (`label`, or a cell) and side, the distributions of words and
        of Flesch–Kincaid grades over the validation pairs.
    """
    models = _reward_models(cells)
    pairs = list({row["pair"]: row for cell in cells for row in cell.scores}.values())
    labelled = _answers(LABEL, [(row, "chosen", "rejected") for row in pairs]) if pairs else []
    return {
        "scores": [_scores(cell) for cell in models],
        "answers": [*labelled, *(found for cell in models for found in _answers(cell.name, list(_favoured(cell))))],
    }


def keyword_lists(cells: Sequence[Cell], pairs: Sequence[PairTexts]) -> dict[str, Any]:
    """The keywords of the favoured answers (by the label, and by each model), and of each policy's and the base's.

    Returns:
        `segmentation`: what a term is; `lists`: of, kind (`favoured` | `generated`), texts, keywords.
    """
    texts = {pair.pair: {"chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs}
    found = [_keywords(LABEL, "favoured", [pair.chosen for pair in pairs])] if pairs else []
    for cell in _reward_models(cells):
        favoured = [texts[row["pair"]][side] for row, side, _ in _favoured(cell) if row["pair"] in texts]
        found.append(_keywords(cell.name, "favoured", favoured))
    for cell in cells:
        if cell.generations:
            found.append(_keywords(cell.name, "generated", [answer.text for answer in cell.generations]))
    return {"segmentation": SEGMENTATION, "lists": found}


def training_keywords(answers: Iterable[str]) -> dict[str, Any]:
    """The keywords of the training set's chosen (desirable) answers. No exported row holds these texts."""
    return _keywords("train", "favoured", list(answers))


def pareto_sets(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whom no other beats on a metric and seconds, among reward models (the judge apart) and among policies and base.

    Returns:
        For each group and metric that any of its cells has: `among`, `metric`, `cost`, and the `cells` in the set.
    """
    done = [result for result in results if result["status"] == "done" and result["cost"]]
    groups = {
        "reward models": [one for one in done if one["kind"] == "reward" and one["algorithm"] != JUDGE_CELL],
        "policies": [one for one in done if one["kind"] != "reward"],
    }
    found = []
    for among, members in groups.items():
        for metric in QUALITIES[among]:
            values = [one["metrics"].get(metric, {}).get("value") for one in members]
            marks = pareto([one["cost"]["seconds"] for one in members], values)
            if any(marks):
                kept = [one["cell"] for one, mark in zip(members, marks, strict=True) if mark]
                found.append({"among": among, "metric": metric, "cost": "seconds", "cells": kept})
    return found


def _reward_models(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.outcome.kind == "reward" and cell.scores]


def _scores(cell: Cell) -> dict[str, Any]:
    groups = score_groups(cell.column("chosen_reward"), cell.column("rejected_reward"))
    return {
        "cell": cell.name,
        "correct": asdict(describe(groups.correct)),
        "wrong": asdict(describe(groups.wrong)),
        "ties": groups.ties,
        "test": {"name": "Welch t", **asdict(welch_test(groups.correct, groups.wrong))},
    }


def _favoured(cell: Cell) -> Iterator[tuple[Row, str, str]]:
    """Every row with the side that has the higher score and the other side; ties and missing scores are left out."""
    for row in cell.scores:
        chosen, rejected = row["chosen_reward"], row["rejected_reward"]
        if chosen is None or rejected is None:
            continue
        if chosen > rejected:
            yield row, "chosen", "rejected"
        elif rejected > chosen:
            yield row, "rejected", "chosen"


def _answers(by: str, rows: Sequence[tuple[Row, str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "by": by,
            "side": side,
            **{name: asdict(describe([row[0].get(f"{row[place]}_{name}") for row in rows])) for name in MEASURES},
        }
        for place, side in ((1, "favoured"), (2, "unfavoured"))
    ]


def _keywords(of: str, kind: str, texts: Sequence[str]) -> dict[str, Any]:
    return {"of": of, "kind": kind, "texts": len(texts), "keywords": [asdict(one) for one in keywords(texts)]}
