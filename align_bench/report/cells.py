"""The exported rows, gathered by cell: all that the report computes, it computes from these."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from align_bench.metrics.accuracy import correctness
from align_bench.metrics.finite import is_finite
from align_bench.metrics.mean import cluster_means
from align_bench.records import CellId, Generation, MetricKey, Outcome
from align_bench.report.files import unicode
from align_bench.report.rows import ScoredAnswer, ScoreRow
from align_bench.suite.names import GOLD

Column = list[float | None]


@dataclass(frozen=True, slots=True)
class ByGold:
    """A pair of which one answer is right and the other wrong.

    Attributes:
        pair, prompt: the pair, and what pairs of one prompt share.
        right, wrong: the answers.
    """

    pair: int
    prompt: Hashable
    right: ScoredAnswer
    wrong: ScoredAnswer


@dataclass(frozen=True, slots=True)
class Cell:
    """One finished cell with its rows; a failed or skipped one has none.

    Attributes:
        outcome: what the run says of it.
        scores: its rows of `scores.parquet`, sorted by pair.
        generations: its lines of `generations.jsonl`, sorted by prompt and sample.
    """

    outcome: Outcome
    scores: tuple[ScoreRow, ...]
    generations: tuple[Generation, ...]

    @property
    def id(self) -> CellId:
        """Which cell it is."""
        return self.outcome.cell

    @property
    def name(self) -> str:
        """How rows, tables and files call it."""
        return str(self.id)

    @property
    def prompts(self) -> list[int]:
        """The prompt of each generation."""
        return [answer.prompt_id for answer in self.generations]

    @property
    def one_sample(self) -> bool:
        """Whether no prompt was answered twice."""
        return len(set(self.prompts)) == len(self.prompts)

    @property
    def sides(self) -> tuple[list[ScoredAnswer], list[ScoredAnswer]]:
        """Each pair's chosen and rejected answer."""
        return [row.chosen for row in self.scores], [row.rejected for row in self.scores]

    @property
    def rewards(self) -> tuple[Column, Column]:
        """The cell's own reward of each pair's chosen and rejected answer."""
        return [row.chosen_reward for row in self.scores], [row.rejected_reward for row in self.scores]

    @property
    def words(self) -> tuple[Column, Column]:
        """Length in words of each pair's chosen and rejected answer."""
        return [row.chosen_words for row in self.scores], [row.rejected_words for row in self.scores]

    @property
    def pair_prompts(self) -> list[Hashable]:
        """The prompt of each score row."""
        return [row.prompt for row in self.scores]

    def right_by_pair(self, measure: Callable[[ScoredAnswer], float | None] | None = None) -> dict[Hashable, float]:
        """Pair → 1, ½ or 0: whether the chosen answer has the higher value, by default the cell's own reward."""
        value = measure or (lambda answer: answer.reward)
        both = [(row.pair, value(row.chosen), value(row.rejected)) for row in self.scores]
        known = [
            (pair, chosen, rejected) for pair, chosen, rejected in both if is_finite(chosen) and is_finite(rejected)
        ]
        marks = correctness([chosen for _, chosen, _ in known], [rejected for _, _, rejected in known])
        return {pair: mark for (pair, _, _), mark in zip(known, marks, strict=True)}

    def by_gold(self) -> list[ByGold]:
        """The pairs with one right answer, where the data knows it."""
        known = [(row, row.chosen, row.rejected) for row in self.scores if row.gold_choice in (1, 2)]
        return [
            ByGold(row.pair, row.prompt, *((chosen, rejected) if row.gold_choice == 1 else (rejected, chosen)))
            for row, chosen, rejected in known
        ]

    def right_shorter(self) -> list[ByGold]:
        """Those whose right answer has fewer words than the wrong one."""
        return [
            found
            for found in self.by_gold()
            if found.right.words is not None and found.wrong.words is not None and found.right.words < found.wrong.words
        ]

    def judged(self, judge: str) -> Column:
        """A judge's score of each generation; None where it gave none."""
        return [answer.scores.get(judge) for answer in self.generations]

    def judged_by_prompt(self, judge: str) -> dict[Hashable, float]:
        """Prompt → the judge's score, averaged over the prompt's samples."""
        return cluster_means(self.judged(judge), self.prompts)

    def samples_by_prompt(self, judge: str) -> dict[Hashable, list[float]]:
        """Prompt → the judge's score of each of its samples; those without a finite one are left out."""
        found: dict[Hashable, list[float]] = {}
        for answer in self.generations:
            score = answer.scores.get(judge)
            if score is not None and is_finite(score):
                found.setdefault(answer.prompt_id, []).append(score)
        return found

    def proxied(self, reward: str) -> Column:
        """The score of each generation by a reward model that policies learned from or picked by, or None."""
        return [answer.proxies.get(reward) for answer in self.generations]

    def proxied_by_prompt(self, reward: str) -> dict[Hashable, float]:
        """Prompt → that score, averaged over the prompt's samples."""
        return cluster_means(self.proxied(reward), self.prompts)


def prompt_by_pair(cells: Sequence[Cell]) -> dict[Hashable, Hashable]:
    """Pair → its prompt, which other pairs may share."""
    return {row.pair: row.prompt for cell in cells for row in cell.scores}


def gather(outcomes: Sequence[Outcome], scores: Sequence[ScoreRow], generations: Sequence[Generation]) -> list[Cell]:
    """One `Cell` per outcome, in the outcomes' order.

    Raises:
        ValueError: two outcomes, two score rows or two generations with one key, or rows of an unknown cell.
    """
    # Rows that were read from files have their lone surrogates escaped.
    names = [unicode(str(outcome.cell)) for outcome in outcomes]
    _unique("outcome", names)
    _unique("score row", ((row.cell, row.pair) for row in scores))
    _unique("generation", ((answer.cell, answer.prompt_id, answer.sample) for answer in generations))
    rows: dict[str, list[ScoreRow]] = {}
    answers: dict[str, list[Generation]] = {}
    for row in scores:
        rows.setdefault(unicode(row.cell), []).append(row)
    for answer in generations:
        answers.setdefault(unicode(answer.cell), []).append(answer)
    unknown = (rows.keys() | answers.keys()) - set(names)
    if unknown:
        raise ValueError(f"rows of cells that are in no outcome: {', '.join(sorted(unknown))}")
    return [
        _cell(outcome, rows.get(name, []), answers.get(name, [])) for outcome, name in zip(outcomes, names, strict=True)
    ]


def judges_of(generations: Sequence[Generation], panel: Sequence[str] = ()) -> list[str]:
    """Names of the judges whose rewards are reported, the main one first.

    Those of the panel, or, where the generations name none of these, whatever they name, in their order. `gold`, which
    has metrics of its own, is one only where it is the main judge.

    Args:
        generations: lines of `generations.jsonl`.
        panel: names of the header's judges, in order.
    """
    found = _named(answer.scores for answer in generations)
    seated = [name for place, name in enumerate(panel) if name != GOLD or place == 0]
    if any(name in found for name in seated):  # one that failed keeps its place: no other is taken for the main one
        return seated
    return [name for name in found if name != GOLD]


def proxies_of(generations: Sequence[Generation]) -> list[str]:
    """Names of the reward models that policies learned from or picked by."""
    return _named(answer.proxies for answer in generations)


def judge_metric(metric: str, judge: str, judges: Sequence[str]) -> MetricKey:
    """A judge's metric, which names the judge unless it is the main one."""
    return MetricKey(metric) if judge == judges[0] else MetricKey(metric, judge)


def _cell(outcome: Outcome, rows: list[ScoreRow], answers: list[Generation]) -> Cell:
    if outcome.status != "done":
        return Cell(outcome, (), ())
    by_prompt = sorted(answers, key=lambda answer: (answer.prompt_id, answer.sample))
    return Cell(outcome, tuple(sorted(rows, key=lambda row: row.pair)), tuple(by_prompt))


def _named(scores: Iterable[Mapping[str, float]]) -> list[str]:
    """Every scorer, in order of first appearance."""
    return list(dict.fromkeys(name for own in scores for name in own))


def _unique(what: str, keys: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"more than one {what} of {key!r}")
        seen.add(key)


def log_ratio(answer: Generation | ScoredAnswer) -> float | None:
    """log π(y|x) − log π_ref(y|x) of an answer, nats."""
    return None if answer.logp is None or answer.ref_logp is None else answer.logp - answer.ref_logp


def logp_mean(answer: ScoredAnswer) -> float | None:
    """Mean log-probability of an answer's tokens, nats per token."""
    return answer.logp / answer.tokens if answer.logp is not None and answer.tokens else None
