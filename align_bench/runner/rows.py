"""What cells left, as the rows of a report: of `scores.parquet`, `generations.jsonl` and the others. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from align_bench.judge.ensemble import combine
from align_bench.judge.gold import gold_score
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.metrics.format_effects import features
from align_bench.metrics.length import count_words
from align_bench.records import PROXY, Generation, PairTexts, Preference, TokenRow
from align_bench.stages.audit import Audit
from align_bench.stages.drift import Drift
from align_bench.stages.judge import Judge
from align_bench.stages.proxy import Proxy
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell, Panelist
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.runner.results import Results
    from align_bench.stages.columns import Columns
    from align_bench.suite.models import Ensemble

SIDES = ("chosen", "rejected")


class Rows:
    """The rows of a graph's cells."""

    def __init__(self, prepared: Prepared, graph: Graph, results: Results) -> None:
        self._prepared = prepared
        self._graph = graph
        self._results = results
        self._measured: dict[tuple[int, str], Mapping[str, float | None]] = {}

    @cached_property
    def _validation(self) -> Mapping[int, Preference]:
        """The validation rows by their number, as texts."""
        found = self._results.preferences(self._prepared.inputs.rows["val"]).rows
        return {preference.pair: preference for preference in found}

    @cached_property
    def _pairs(self) -> list[tuple[int, TokenRow]]:
        """Place and row of each validation pair that has both answers."""
        rows = self._results.load(self._graph.tables["val"]).rows
        return [(place, row) for place, row in enumerate(rows) if row.chosen is not None and row.rejected is not None]

    def scores(self, cell: Cell) -> list[dict[str, Any]]:
        """A row per validation pair that has both answers, as `scores.parquet` shows it.

        `prompt_id` is the first pair with the same prompt. Scores under an attack of size ε are `chosen_reward@ε` and
        `rejected_reward@ε`. A selection has no row.
        """
        if cell.validation is None:
            return []
        measured = self._results.load(cell.validation)
        assert self._graph.base.validation is not None, "the base has log-probabilities"
        policy = cell.kind != "reward"
        reference = self._results.load(self._graph.base.validation) if policy else None
        logps = measured if policy else None
        first: dict[tuple[int, ...], int] = {}
        for row in self._results.load(self._graph.tables["val"]).rows:
            first.setdefault(row.prompt, row.pair)
        return [
            {
                "cell": cell.id,
                "algorithm": cell.algorithm,
                "seed": cell.seed,
                "pair": row.pair,
                **{f"{side}_reward": _reward(cell, measured, side, place, row) for side in SIDES},
                **{f"{side}_tokens": len(getattr(row, side) or ()) for side in SIDES},
                **{f"{side}_logp": _number(logps, side, place) for side in SIDES},
                **{f"ref_{side}_logp": _number(reference, side, place) for side in SIDES},
                **{f"{side}_words": count_words(getattr(self._validation[row.pair], side) or "") for side in SIDES},
                **{f"{side}_grade": self._features(row.pair, side)["grade"] for side in SIDES},
                "gold_choice": row.gold_choice,
                "prompt_id": first[row.prompt],
                **{
                    name.replace("@", "_reward@"): float(values[place])
                    for name, values in measured.items()
                    if "@" in name
                },
            }
            for place, row in self._pairs
        ]

    def pairs(self) -> list[PairTexts]:
        """The texts of every validation pair that has both answers, as `pairs.parquet` shows them."""
        found = [self._validation[row.pair] for _, row in self._pairs]
        return [PairTexts(one.pair, one.prompt[-1].content, one.chosen or "", one.rejected or "") for one in found]

    def generations(self, cell: Cell, judges: Collection[str]) -> list[Generation]:
        """A record per answer, with its drift, and its scores by these judges and, where the data has one, by gold."""
        if cell.answers is None:
            return []
        answers = self._results.load(cell.answers)
        panel = [judge for judge in self._graph.panel if judge.name in judges]
        scores: dict[str, Sequence[float | None]] = {}
        for judge in panel:  # gold keeps its place among them
            scores[judge.name] = self._scores_of(judge, cell)
        scores[GOLD] = [gold_score(self._validation[line["pair"]], line["text"]) for line in answers]
        for proxy in cell.all(Proxy):
            if self._results.has(proxy):
                scores[f"{PROXY}{proxy.reward_cell}"] = self._results.load(proxy)
        drift = cell.the(Drift)
        moved = self._results.load(drift) if drift else [{}] * len(answers)
        return [
            Generation(
                cell=cell.id,
                algorithm=cell.algorithm,
                seed=cell.seed,
                prompt_id=line["pair"],
                sample=line["sample"],
                prompt=self._validation[line["pair"]].prompt[-1].content,
                text=line["text"],
                tokens=len(line["ids"]),
                finished=line["finished"],
                scores={name: own for name, every in scores.items() if (own := every[place]) is not None},
                **moved[place],
            )
            for place, line in enumerate(answers)
        ]

    def training(self, cell: Cell) -> list[dict[str, Any]]:
        """A row per optimizer step of a cell's training, as `training.parquet` shows it; none for the base."""
        if cell.adapter is None:
            return []
        known = {"cell": cell.id, "algorithm": cell.algorithm, "seed": cell.seed}
        return [{**known, **step} for step in self._results.load(cell.adapter)]

    def _scores_of(self, judge: Panelist, cell: Cell) -> Sequence[float | None]:
        """A judge's scores of a cell's answers; NaN where it could not score one."""
        if not judge.members:  # gold: the caller's
            return []
        by_member = {scores.judge_cell: scores for scores in cell.all(Judge)}
        members = [self._results.load(by_member[member.id]) for member in judge.members]
        return combine(members, judge.ensemble)

    def audited(self, done: Collection[str]) -> list[dict[str, Any]]:
        """Rows of `audit.parquet`: one an answer of a validation pair and a reward model, or a judge.

        Args:
            done: cells that finished. An ensemble of judges is one, if all of its members are there.
        """
        panel = [judge for judge in self._graph.panel if judge.members]
        scorers = [(judge.members[0].name, judge.members, judge.ensemble) for judge in panel]
        scorers += [(cell.id, (cell,), None) for cell in self._graph.cells if cell.kind == "reward"]
        return [
            row
            for name, group, ensemble in scorers
            if all(cell.id in done for cell in group)
            for row in self._audit_rows(name, group, ensemble)
        ]

    def _audit_rows(self, name: str, group: Sequence[Cell], ensemble: Ensemble | None) -> Iterator[dict[str, Any]]:
        plain = [self.scores(cell) for cell in group]
        changed = [self._audit_scores(cell) for cell in group]
        for number, row in enumerate(plain[0]):
            for side in SIDES:
                place = row["pair"], side
                versions = {
                    version: _combined([own.get(place, {}).get(version) for own in changed], ensemble)
                    for version in VERSIONS
                }
                yield {
                    "scorer": name,
                    "pair": row["pair"],
                    "prompt": row["prompt_id"],
                    "side": side,
                    "score": _combined([own[number][f"{side}_reward"] for own in plain], ensemble),
                    **self._features(row["pair"], side),
                    **{f"score_{version}": value for version, value in versions.items()},
                }

    def _audit_scores(self, cell: Cell) -> Mapping[tuple[int, str], Mapping[str, float | None]]:
        audit = cell.the(Audit)
        return self._results.load(audit) if audit is not None and self._results.has(audit) else {}

    def _features(self, pair: int, side: str) -> Mapping[str, float | None]:
        if (pair, side) not in self._measured:
            self._measured[pair, side] = features(getattr(self._validation[pair], side) or "")
        return self._measured[pair, side]


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
