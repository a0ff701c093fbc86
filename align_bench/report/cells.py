"""The exported rows, gathered by cell: all that the report computes, it computes from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align_bench.metrics.accuracy import correctness
from align_bench.metrics.finite import is_finite
from align_bench.metrics.mean import cluster_means
from align_bench.records import PROXY, Generation, Outcome

GOLD = "gold"


@dataclass(frozen=True, slots=True)
class ByGold:
    """A pair of which one answer is right and the other wrong: the rewards and lengths in words of the two."""

    pair: int
    right_reward: float | None
    wrong_reward: float | None
    right_words: int | None
    wrong_words: int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished cell with its rows; a failed or skipped one has none.

    Attributes:
        outcome: what the run says of it.
        scores: its rows of `scores.parquet`, sorted by pair.
        generations: its lines of `generations.jsonl`, sorted by prompt and sample.
    """

    outcome: Outcome
    scores: tuple[Mapping[str, Any], ...]
    generations: tuple[Generation, ...]

    @property
    def name(self) -> str:
        """The cell's id."""
        return self.outcome.cell

    @property
    def prompts(self) -> list[int]:
        """The prompt of each generation."""
        return [answer.prompt_id for answer in self.generations]

    @property
    def one_sample(self) -> bool:
        """Whether no prompt was answered twice."""
        return len(set(self.prompts)) == len(self.prompts)

    def column(self, name: str) -> list[float | None]:
        """One column of the score rows; None where it is null."""
        return [row.get(name) for row in self.scores]

    def judged(self, judge: str) -> list[float | None]:
        """A judge's score of each generation; None where it gave none."""
        return [answer.scores.get(judge) for answer in self.generations]

    def right_by_pair(self) -> dict[Any, float]:
        """Pair → 1, ½ or 0: whether the chosen answer has the higher reward."""
        known = [row for row in self.scores if is_finite(row["chosen_reward"]) and is_finite(row["rejected_reward"])]
        marks = correctness([row["chosen_reward"] for row in known], [row["rejected_reward"] for row in known])
        return {row["pair"]: mark for row, mark in zip(known, marks, strict=True)}

    @property
    def pair_prompts(self) -> list[Any]:
        """The prompt of each score row; a pair whose prompt is not told is its own."""
        return prompts_of(self.scores)

    def prompt_by_pair(self) -> dict[Any, Any]:
        """Pair → the prompt that it shares with other pairs; pairs whose prompt is not told are absent."""
        return {row["pair"]: row["prompt_id"] for row in self.scores if row.get("prompt_id") is not None}

    def by_gold(self) -> list[ByGold]:
        """The pairs with one right answer, where the data knows it."""
        sides = {1: ("chosen", "rejected"), 2: ("rejected", "chosen")}
        known = [(row, sides[row["gold_choice"]]) for row in self.scores if row.get("gold_choice") in sides]
        return [
            ByGold(
                row["pair"],
                row[f"{right}_reward"],
                row[f"{wrong}_reward"],
                row.get(f"{right}_words"),
                row.get(f"{wrong}_words"),
            )
            for row, (right, wrong) in known
        ]

    def right_shorter(self) -> list[ByGold]:
        """Those whose right answer has fewer words than the wrong one."""
        measured = [found for found in self.by_gold() if None not in (found.right_words, found.wrong_words)]
        return [found for found in measured if (found.right_words or 0) < (found.wrong_words or 0)]

    def judged_by_prompt(self, judge: str) -> dict[Any, float]:
        """Prompt → the judge's score, averaged over the prompt's samples."""
        return dict(cluster_means(self.judged(judge), self.prompts))


def prompts_of(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The prompt of each score row; a pair whose prompt is not told is its own."""
    return [("pair", row["pair"]) if row.get("prompt_id") is None else row["prompt_id"] for row in rows]


def gather(
    outcomes: Sequence[Outcome], scores: Sequence[Mapping[str, Any]], generations: Sequence[Generation]
) -> list[Cell]:
    """One `Cell` an outcome, in the outcomes' order.

    Raises:
        ValueError: two outcomes, two score rows or two generations with one key, or rows of an unknown cell.
    """
    names = [outcome.cell for outcome in outcomes]
    _unique("outcome", names)
    _unique("score row", [(row["cell"], row["pair"]) for row in scores])
    _unique("generation", [(answer.cell, answer.prompt_id, answer.sample) for answer in generations])
    unknown = ({row["cell"] for row in scores} | {answer.cell for answer in generations}) - set(names)
    if unknown:
        raise ValueError(f"rows of cells that are in no outcome: {', '.join(sorted(unknown))}")
    rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    answers: dict[str, list[Generation]] = {name: [] for name in names}
    for row in scores:
        rows[row["cell"]].append(row)
    for answer in generations:
        answers[answer.cell].append(answer)
    return [_cell(outcome, rows[outcome.cell], answers[outcome.cell]) for outcome in outcomes]


def judges_of(generations: Sequence[Generation], panel: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Names of the judges whose rewards are reported, the main one first.

    Those of the panel, or, where the generations name none of these, whatever they name, in their order. `gold`, which
    has metrics of its own, is one only where it is the main judge. A policy's own reward model is none.

    Args:
        generations: lines of `generations.jsonl`.
        panel: the header's `judge.panel`.
    """
    found = _scorers(generations)
    names = [judge["name"] for judge in panel]
    seated = [name for place, name in enumerate(names) if name != GOLD or place == 0]
    if any(name in found for name in seated):  # one that failed keeps its place: no other is taken for the main one
        return seated
    return [name for name in found if name != GOLD and not name.startswith(PROXY)]


def proxies_of(generations: Sequence[Generation]) -> dict[str, str]:
    """Cell of each reward model that policies learned from or picked by → its name among the scores."""
    return {name.removeprefix(PROXY): name for name in _scorers(generations) if name.startswith(PROXY)}


def judge_metric(metric: str, judge: str, judges: Sequence[str]) -> str:
    """A judge's metric: the plain name for the first judge, `metric[judge]` for the others."""
    return metric if judge == judges[0] else f"{metric}[{judge}]"


def _cell(outcome: Outcome, rows: list[Mapping[str, Any]], answers: list[Generation]) -> Cell:
    if outcome.status != "done":
        return Cell(outcome, (), ())
    by_prompt = sorted(answers, key=lambda answer: (answer.prompt_id, answer.sample))
    return Cell(outcome, tuple(sorted(rows, key=lambda row: row["pair"])), tuple(by_prompt))


def _scorers(generations: Sequence[Generation]) -> list[str]:
    return list(dict.fromkeys(name for answer in generations for name in answer.scores))


def _unique(what: str, keys: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"more than one {what} of {key!r}")
        seen.add(key)
