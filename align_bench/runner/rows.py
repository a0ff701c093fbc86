"""What cells left, as the rows of a report: of `scores.parquet`, `generations.jsonl` and the others. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from align_bench.judge.ensemble import combine
from align_bench.judge.gold import gold_score
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.metrics.format_effects import Form, features
from align_bench.records import Generation, PairTexts, TrainingText
from align_bench.report.rows import AttackedScores, AuditRow, ScoreRow, Side, TrainingRow
from align_bench.stages.audit import Audit
from align_bench.stages.columns import attacked
from align_bench.stages.judge import Judge
from align_bench.stages.proxy import Proxy
from align_bench.stages.validate_reward import ValidateReward
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell, Panelist
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.records import CellId, Preference, TokenRow
    from align_bench.runner.results import Results
    from align_bench.stages.columns import Columns, Measured
    from align_bench.suite.models import Ensemble

SIDES: tuple[Side, ...] = ("chosen", "rejected")


class _Split:
    """Pairs that cells are measured on, as tokens and as texts.

    Attributes:
        rows: the tokenised table.
        texts: the rows by their number, as texts.
        places: of the rows that have both answers.
        first: prompt → number of the first pair with it.
    """

    def __init__(self, rows: Sequence[TokenRow], texts: Mapping[int, Preference]) -> None:
        self.rows, self.texts = rows, texts
        self.places = [place for place, row in enumerate(rows) if row.chosen is not None and row.rejected is not None]
        self.first: dict[tuple[int, ...], int] = {}
        for row in rows:
            self.first.setdefault(row.prompt, row.pair)
        self._features: dict[tuple[int, Side], Form] = {}

    def features(self, pair: int, side: Side) -> Form:
        """The form of an answer."""
        if (pair, side) not in self._features:
            self._features[pair, side] = features(getattr(self.texts[pair], side) or "")
        return self._features[pair, side]


class Rows:
    """The rows of a graph's cells."""

    def __init__(self, prepared: Prepared, graph: Graph, results: Results) -> None:
        self._prepared = prepared
        self._graph = graph
        self._results = results

    @cached_property
    def _validation(self) -> _Split:
        return self._split("val")

    @cached_property
    def _test(self) -> _Split:
        return self._split("test")

    def _split(self, name: str) -> _Split:
        texts = self._results.preferences(self._prepared.inputs.rows[name]).rows
        return _Split(self._results.load(self._graph.tables[name]).rows, {one.pair: one for one in texts})

    def scores(self, cell: Cell) -> list[ScoreRow]:
        """A row per validation pair that has both answers; none of a selection."""
        if cell.validation is None:
            return []
        return self._score_rows(cell, self._validation, cell.validation, self._graph.base.validation)

    def tested(self, cell: Cell) -> list[ScoreRow]:
        """The same of the test pairs; none of reward models and selections, nor where the suite has no such pairs."""
        return [] if cell.test is None else self._score_rows(cell, self._test, cell.test, self._graph.base.test)

    def _score_rows(self, cell: Cell, split: _Split, measured: Measured, base: Measured | None) -> list[ScoreRow]:
        assert base is not None, "the base has log-probabilities"
        reference = self._results.load(base) if cell.kind != "reward" else None
        columns = self._results.load(measured)
        name = str(cell.id)  # one text for all rows
        return [_score_row(cell, name, split, place, columns, reference) for place in split.places]

    def pairs(self) -> list[PairTexts]:
        """The texts of every validation pair that has both answers, as `pairs.parquet` shows them."""
        split = self._validation
        found = [split.texts[split.rows[place].pair] for place in split.places]
        return [
            PairTexts(
                pair=one.pair,
                prompt=one.prompt[-1].content,
                chosen=one.chosen or "",
                rejected=one.rejected or "",
                label_probability=one.label_probability,
                gold=one.gold,
            )
            for one in found
        ]

    def texts(self) -> list[TrainingText]:
        """The preferred answers of the training set, as `training_texts.parquet` shows them."""
        rows = self._results.preferences(self._prepared.inputs.rows["train"]).rows
        return [TrainingText(row.pair, row.chosen) for row in rows if row.chosen is not None]

    def generations(self, cell: Cell, judges: Collection[str]) -> list[Generation]:
        """A record per answer, with its drift, and its scores by these judges and, where the data has one, by gold."""
        if cell.answers is None:
            return []
        answers = self._results.load(cell.answers)
        panel = [judge for judge in self._graph.panel if judge.name in judges]
        scores: dict[str, Sequence[float | None]] = {}
        for judge in panel:  # gold keeps its place among them
            scores[judge.name] = self._scores_of(judge, cell)
        scores[GOLD] = [gold_score(self._validation.texts[line["pair"]], line["text"]) for line in answers]
        proxies = {
            str(proxy.reward_cell): self._results.load(proxy) for proxy in cell.all(Proxy) if self._results.has(proxy)
        }
        moved, from_start = (
            self._results.load(drift) if drift else [dict[str, float]()] * len(answers)
            for drift in (cell.drift, cell.drift_from_start)
        )
        name = str(cell.id)
        return [
            Generation(
                cell=name,
                algorithm=cell.algorithm,
                seed=cell.seed,
                prompt_id=line["pair"],
                sample=line["sample"],
                prompt=self._validation.texts[line["pair"]].prompt[-1].content,
                text=line["text"],
                tokens=len(line["ids"]),
                finished=line["finished"],
                scores=_known(scores, place),
                proxies=_known(proxies, place),
                logp=moved[place].get("logp"),
                ref_logp=moved[place].get("ref_logp"),
                kl=moved[place].get("kl"),
                start_logp=from_start[place].get("ref_logp"),
                start_kl=from_start[place].get("kl"),
            )
            for place, line in enumerate(answers)
        ]

    def training(self, cell: Cell) -> list[TrainingRow]:
        """A row per optimizer step of a cell's training; none for the base, and of a trial that has no result."""
        if cell.adapter is None or not self._results.has(cell.adapter):
            return []
        return [_training_row(cell, step) for step in self._results.load(cell.adapter)]

    def _scores_of(self, judge: Panelist, cell: Cell) -> Sequence[float | None]:
        """A judge's scores of a cell's answers; NaN where it could not score one."""
        if not judge.members:  # gold: the caller's
            return []
        by_member = {scores.judge_cell: scores for scores in cell.all(Judge)}
        members = [self._results.load(by_member[member.id]) for member in judge.members]
        return combine(members, judge.ensemble)

    def audited(self, done: Collection[CellId]) -> list[AuditRow]:
        """A row per answer of a validation pair and reward model, or judge.

        Args:
            done: cells that finished. An ensemble of judges is one, if all of its members are there.
        """
        panel = [judge for judge in self._graph.panel if judge.members]
        scorers = [(judge.members[0].id.method, judge.members, judge.ensemble) for judge in panel]
        scorers += [(cell.id, (cell,), None) for cell in self._graph.cells if cell.kind == "reward"]
        return [
            row
            for scorer, group, ensemble in scorers
            if all(cell.id in done for cell in group)
            for row in self._audit_rows(str(scorer), group, ensemble)
        ]

    def _audit_rows(self, scorer: str, group: Sequence[Cell], ensemble: Ensemble | None) -> Iterator[AuditRow]:
        plain = [self.scores(cell) for cell in group]
        changed = [self._audit_scores(cell) for cell in group]
        for members in zip(*plain, strict=True):
            first = members[0]
            assert first.prompt_id is not None, "every row made here has one"
            for side in SIDES:
                form = self._validation.features(first.pair, side)
                versions = {
                    f"score_{version}": _combined(
                        [own.get((first.pair, side), {}).get(version) for own in changed], ensemble
                    )
                    for version in VERSIONS
                }
                rewards = [row.chosen_reward if side == "chosen" else row.rejected_reward for row in members]
                yield AuditRow(
                    scorer=scorer,
                    pair=first.pair,
                    prompt=first.prompt_id,
                    side=side,
                    score=_combined(rewards, ensemble),
                    words=form.words,
                    grade=form.grade,
                    list_items=form.list_items,
                    headings=form.headings,
                    bold=form.bold,
                    **versions,
                )

    def _audit_scores(self, cell: Cell) -> Mapping[tuple[int, str], Mapping[str, float | None]]:
        audit = cell.the(Audit)
        return self._results.load(audit) if audit is not None and self._results.has(audit) else {}


def _score_row(
    cell: Cell, name: str, split: _Split, place: int, measured: Columns, reference: Columns | None
) -> ScoreRow:
    row = split.rows[place]
    chosen, rejected = (split.features(row.pair, side) for side in SIDES)
    logps = None if cell.kind == "reward" else measured
    return ScoreRow(
        cell=name,
        algorithm=cell.algorithm,
        seed=cell.seed,
        pair=row.pair,
        chosen_reward=_reward(cell, measured, "chosen", place, row),
        rejected_reward=_reward(cell, measured, "rejected", place, row),
        chosen_tokens=len(row.chosen or ()),
        rejected_tokens=len(row.rejected or ()),
        gold_choice=row.gold_choice,
        chosen_logp=_number(logps, "chosen", place),
        rejected_logp=_number(logps, "rejected", place),
        ref_chosen_logp=_number(reference, "chosen", place),
        ref_rejected_logp=_number(reference, "rejected", place),
        chosen_words=chosen.words,
        rejected_words=rejected.words,
        prompt_id=split.first[row.prompt],
        chosen_grade=chosen.grade,
        rejected_grade=rejected.grade,
        attacked=tuple(_attacked(epsilon, measured, place) for epsilon in _epsilons(cell)),
    )


def _reward(cell: Cell, measured: Columns, side: str, place: int, row: TokenRow) -> float:
    """The method's own reward of an answer: a score; what its loss says; s̄ of the base, which has no loss."""
    if cell.kind == "reward":
        return float(measured[side][place])
    if cell.plugin is None:
        import numpy as np

        return float(measured[side][place] / np.float32(len(getattr(row, side))))
    return float(measured[f"{side}_reward"][place])


def _number(columns: Columns | None, side: str, place: int) -> float | None:
    return None if columns is None else float(columns[side][place])


def _combined(members: Sequence[float | None], ensemble: Ensemble | None) -> float | None:
    known = [[score] for score in members if score is not None]
    return combine(known, ensemble)[0] if len(known) == len(members) else None


def _epsilons(cell: Cell) -> Sequence[float]:
    """The sizes of the attacks that a reward model was measured under."""
    return cell.validation.epsilons if isinstance(cell.validation, ValidateReward) else ()


def _attacked(epsilon: float, measured: Columns, place: int) -> AttackedScores:
    chosen, rejected = (_number(measured, attacked(side, epsilon), place) for side in SIDES)
    return AttackedScores(epsilon, chosen, rejected)


def _known(scores: Mapping[str, Sequence[float | None]], place: int) -> dict[str, float]:
    return {name: own for name, every in scores.items() if (own := every[place]) is not None}


def _training_row(cell: Cell, step: Mapping[str, float]) -> TrainingRow:
    own = ("step", "loss", "learning_rate", "gradient_norm", "seconds")
    return TrainingRow(
        cell=str(cell.id),
        algorithm=cell.algorithm,
        seed=cell.seed,
        step=int(step["step"]),
        loss=step.get("loss"),
        learning_rate=step.get("learning_rate"),
        gradient_norm=step.get("gradient_norm"),
        seconds=step.get("seconds"),
        measures={name: value for name, value in step.items() if name not in own},
    )
