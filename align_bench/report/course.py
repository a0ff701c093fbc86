"""The course's analyses, from exported rows: groups of scores, lengths and grades, keywords; and quality per cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from align_bench.metrics.distribution import describe
from align_bench.metrics.keywords import SEGMENTATION, keywords
from align_bench.metrics.pareto import pareto
from align_bench.metrics.score_groups import score_groups, welch_test
from align_bench.records import CellId, Estimate, PairTexts, TrainingText
from align_bench.report.cells import Cell
from align_bench.report.rows import ScoredAnswer, ScoreRow, Side
from align_bench.report.schema import (
    Course,
    FavouredAnswers,
    KeywordList,
    Keywords,
    Metrics,
    ParetoSet,
    Result,
    ScoreGroups,
)
from align_bench.stats.paired import floored
from align_bench.suite.names import JUDGE_CELL

LABEL = "label"
Quality = Callable[[Metrics], Estimate]
# What the cost of reward models, and of policies, is held against.
OF_REWARD_MODELS: dict[str, Quality] = {
    "accuracy": lambda metrics: metrics.accuracy,
    "accuracy_gold_choice": lambda metrics: metrics.accuracy_gold_choice,
}
OF_POLICIES: dict[str, Quality] = {
    "judge_reward_mean": lambda metrics: metrics.judge_reward_mean,
    "gold_accuracy": lambda metrics: metrics.gold_accuracy,
    "accuracy_logp_mean": lambda metrics: metrics.accuracy_logp_mean,
}


def course(cells: Sequence[Cell]) -> Course:
    """Every reward model's and judge's groups of scores, and the answers that they and the label favour."""
    models = _reward_models(cells)
    pairs = {row.pair: row for cell in cells for row in cell.scores}.values()
    return Course(
        scores=[_scores(cell) for cell in models],
        answers=[
            *(_answers(LABEL, [(row.chosen, row.rejected) for row in pairs]) if pairs else []),
            *(found for cell in models for found in _answers(cell.name, _favoured_answers(cell))),
        ],
    )


def keyword_lists(cells: Sequence[Cell], pairs: Sequence[PairTexts]) -> Keywords:
    """The keywords of the favoured answers (by the label, and by each model), and of each policy's and the base's."""
    texts = {pair.pair: pair for pair in pairs}
    found = [_favoured_keywords(LABEL, [pair.chosen for pair in pairs])] if pairs else []
    for cell in _reward_models(cells):
        favoured = [_text(texts[row.pair], side) for row, side in _favoured(cell) if row.pair in texts]
        found.append(_favoured_keywords(cell.name, favoured))
    for cell in cells:
        if cell.generations:
            own = [answer.text for answer in cell.generations]
            found.append(KeywordList(of=cell.name, kind="generated", texts=len(own), keywords=keywords(own)))
    return Keywords(segmentation=SEGMENTATION, lists=found)


def training_keywords(texts: Sequence[TrainingText]) -> KeywordList:
    """The keywords of the training set's chosen (desirable) answers."""
    return _favoured_keywords("train", [text.chosen for text in texts])


def pareto_sets(results: Sequence[Result]) -> list[ParetoSet]:
    """Whom no other beats on a metric and seconds, among reward models (the judge apart) and among policies and base.

    There is one for each group and metric that any of its cells has.
    """
    rewards = [one for one in results if one.kind == "reward" and one.algorithm != JUDGE_CELL]
    policies = [one for one in results if one.kind != "reward"]
    found = [
        *(
            ParetoSet(among="reward models", metric=metric, cells=_unbeaten(rewards, quality))
            for metric, quality in OF_REWARD_MODELS.items()
        ),
        *(
            ParetoSet(among="policies", metric=metric, cells=_unbeaten(policies, quality))
            for metric, quality in OF_POLICIES.items()
        ),
    ]
    return [one for one in found if one.cells]


def _unbeaten(results: Sequence[Result], quality: Quality) -> list[CellId]:
    costs = [one.cost.seconds if one.cost is not None and one.status == "done" else None for one in results]
    marks = pareto(costs, [quality(one.metrics).value for one in results])
    return [one.cell for one, mark in zip(results, marks, strict=True) if mark]


def _reward_models(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.outcome.kind == "reward" and cell.scores]


def _scores(cell: Cell) -> ScoreGroups:
    groups = score_groups(*cell.rewards)
    test = welch_test(groups.correct, groups.wrong)
    return ScoreGroups(
        cell=cell.id,
        correct=describe(groups.correct),
        wrong=describe(groups.wrong),
        ties=groups.ties,
        test=replace(test, p=floored(test.p)),
    )


def _favoured(cell: Cell) -> Iterator[tuple[ScoreRow, Side]]:
    """Every row with the side that has the higher score; ties and missing scores are left out."""
    for row in cell.scores:
        if row.chosen_reward is None or row.rejected_reward is None:
            continue
        if row.chosen_reward > row.rejected_reward:
            yield row, "chosen"
        elif row.rejected_reward > row.chosen_reward:
            yield row, "rejected"


def _favoured_answers(cell: Cell) -> list[tuple[ScoredAnswer, ScoredAnswer]]:
    """The favoured answer and the other one."""
    return [
        (row.chosen, row.rejected) if side == "chosen" else (row.rejected, row.chosen) for row, side in _favoured(cell)
    ]


def _answers(by: str, pairs: Sequence[tuple[ScoredAnswer, ScoredAnswer]]) -> list[FavouredAnswers]:
    sides: tuple[tuple[Literal["favoured", "unfavoured"], list[ScoredAnswer]], ...] = (
        ("favoured", [favoured for favoured, _ in pairs]),
        ("unfavoured", [unfavoured for _, unfavoured in pairs]),
    )
    return [
        FavouredAnswers(
            by=by,
            side=side,
            words=describe([answer.words for answer in answers]),
            grade=describe([answer.grade for answer in answers]),
        )
        for side, answers in sides
    ]


def _text(pair: PairTexts, side: Side) -> str:
    return pair.chosen if side == "chosen" else pair.rejected


def _favoured_keywords(of: str, texts: Sequence[str]) -> KeywordList:
    return KeywordList(of=of, kind="favoured", texts=len(texts), keywords=keywords(texts))
