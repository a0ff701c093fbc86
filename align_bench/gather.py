"""Read a plan's artefacts back as records: token tables, answers, rows of `scores.parquet` and `generations.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from align_bench.data.chat import load_table
from align_bench.data.preferences import DataSource, read
from align_bench.errors import MissingResultError
from align_bench.evaluate.preference import Columns, rewards_of
from align_bench.judge.audit import SIDES
from align_bench.judge.ensemble import combine
from align_bench.judge.gold import gold_score
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.metrics.format_effects import features
from align_bench.metrics.length import count_words
from align_bench.plan import Address, Cell, Panelist, Plan
from align_bench.records import (
    PROXY,
    Conversation,
    Generation,
    PairTexts,
    Preference,
    PreferenceSet,
    TokenRow,
    TokenTable,
)
from align_bench.store import Artefact, Store
from align_bench.suite.models import GOLD, JUDGE_CELL, DataFile, Ensemble, Suite, TrainedJudge, judge_cell


class Results:
    """What the store holds of one plan."""

    def __init__(self, suite: Suite, plan: Plan, store: Store) -> None:
        self.suite = suite
        self.plan = plan
        self.store = store
        self._read: dict[str, PreferenceSet] = {}
        self._tables: dict[str, TokenTable] = {}
        self._measured: dict[tuple[int, str], Mapping[str, float | None]] = {}

    def artefact(self, address: Address) -> Artefact:
        """A stored artefact.

        Raises:
            MissingResultError: when it is not stored.
        """
        stored = self.store.get(address.kind, address.key)
        if stored is None:
            raise MissingResultError(
                f"{address.kind} {address.key} is not stored", fix="align-bench run computes what is missing"
            )
        return stored

    def preferences(self, split: str) -> PreferenceSet:
        """The rows of a split (`train`, `val`, `judge`, `judge2`, …), as read."""
        if split not in self._read:
            role = JUDGE_CELL if split.startswith(JUDGE_CELL) else split
            self._read[split] = read(source(data_file(self.suite, split), role))
        return self._read[split]

    def table(self, split: str) -> TokenTable:
        """The tokenised table of a split, which every method uses."""
        if split not in self._tables:
            self._tables[split] = load_table(self.artefact(self.plan.tokens[split]) / "tokens.parquet")
        return self._tables[split]

    @cached_property
    def prompts(self) -> list[TokenRow]:
        """The first validation rows with distinct prompts: the same prompt answered twice is no second observation."""
        distinct: dict[tuple[int, ...], TokenRow] = {}
        for row in self.table("val").rows:
            distinct.setdefault(row.prompt, row)
        return list(distinct.values())[: self.suite.generate.prompts]

    def columns(self, address: Address) -> Columns:
        """Stored log-probabilities or scores, each column of shape [rows]."""
        from safetensors.torch import load_file

        columns: Columns = load_file(self.artefact(address) / "columns.safetensors")
        return columns

    @property
    def base_columns(self) -> Columns:
        """The base's log-probabilities of the validation pairs."""
        assert self.plan.base.val is not None, "the base has log-probabilities"
        return self.columns(self.plan.base.val)

    def answers(self, cell: Cell) -> list[dict[str, Any]]:
        """A policy's (or the base's) generations: `pair`, `sample`, `ids`, `text`, `finished`."""
        assert cell.generations is not None, "reward models generate nothing"
        return self.answers_at(cell.generations)

    def answers_at(self, address: Address) -> list[dict[str, Any]]:
        """The same of any stored set of answers, such as a selection's draw."""
        text = (self.artefact(address) / "answers.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def scores(self, cell: Cell) -> list[dict[str, Any]]:
        """A row per validation pair that has both answers, as `scores.parquet` shows it.

        `prompt_id` is the first pair with the same prompt. Scores under an attack of size ε are `chosen_reward@ε` and
        `rejected_reward@ε`. A selection has no row.
        """
        if cell.val is None:
            return []
        every = self.table("val").rows
        places = [place for place, row in enumerate(every) if row.chosen is not None and row.rejected is not None]
        rows = [every[place] for place in places]
        first: dict[tuple[int, ...], int] = {}
        for row in every:
            first.setdefault(row.prompt, row.pair)
        measured = _at(places, self.columns(cell.val))
        rewards, logps, reference = measured, None, None
        if cell.kind != "reward":
            logps, reference = measured, _at(places, self.base_columns)
            rewards = _policy_rewards(cell, rows, logps, reference)
        return [
            {
                "cell": cell.id,
                "algorithm": cell.algorithm,
                "seed": cell.seed,
                "pair": row.pair,
                "chosen_reward": float(rewards["chosen"][place]),
                "rejected_reward": float(rewards["rejected"][place]),
                "chosen_tokens": len(row.chosen or ()),
                "rejected_tokens": len(row.rejected or ()),
                "chosen_logp": _number(logps, "chosen", place),
                "rejected_logp": _number(logps, "rejected", place),
                "ref_chosen_logp": _number(reference, "chosen", place),
                "ref_rejected_logp": _number(reference, "rejected", place),
                "chosen_words": count_words(self.validation[row.pair].chosen or ""),
                "rejected_words": count_words(self.validation[row.pair].rejected or ""),
                "chosen_grade": self._features(row.pair, "chosen")["grade"],
                "rejected_grade": self._features(row.pair, "rejected")["grade"],
                "gold_choice": row.gold_choice,
                "prompt_id": first[row.prompt],
                **{
                    name.replace("@", "_reward@"): float(values[place])
                    for name, values in measured.items()
                    if "@" in name
                },
            }
            for place, row in enumerate(rows)
        ]

    def pairs(self) -> list[PairTexts]:
        """The texts of every validation pair that has both answers, as `pairs.parquet` shows them."""
        kept = [row for row in self.table("val").rows if row.chosen is not None and row.rejected is not None]
        found = [self.validation[row.pair] for row in kept]
        return [PairTexts(one.pair, one.prompt[-1].content, one.chosen or "", one.rejected or "") for one in found]

    def conversations(self, cell: Cell) -> list[Conversation]:
        """A policy's (or the base's) generations as texts."""
        return [
            Conversation(self.validation[line["pair"]].prompt, line["text"], line["finished"])
            for line in self.answers(cell)
        ]

    def generations(self, cell: Cell, judges: Collection[str]) -> list[Generation]:
        """A record per answer, with its drift, and its scores by these judges and, where the data has one, by gold."""
        if cell.generations is None:
            return []
        answers = self.answers(cell)
        panel = [judge for judge in self.plan.panel if judge.name in judges]
        scores = {judge.name: self._scores_of(judge, cell) for judge in panel}  # gold keeps its place among them
        scores[GOLD] = [gold_score(self.validation[line["pair"]], line["text"]) for line in answers]
        for name, address in self._proxies(cell).items():
            scores[f"{PROXY}{name}"] = self._scores_at(address)
        drift = self._drift(cell) or [{}] * len(answers)
        return [
            Generation(
                cell=cell.id,
                algorithm=cell.algorithm,
                seed=cell.seed,
                prompt_id=line["pair"],
                sample=line["sample"],
                prompt=self.validation[line["pair"]].prompt[-1].content,
                text=line["text"],
                tokens=len(line["ids"]),
                finished=line["finished"],
                scores={name: own for name, every in scores.items() if (own := every[place]) is not None},
                **drift[place],
            )
            for place, line in enumerate(answers)
        ]

    def training(self, cell: Cell) -> list[dict[str, Any]]:
        """A row per optimizer step of a cell's training, as `training.parquet` shows it; none for the base."""
        if cell.adapter is None:
            return []
        text = (self.artefact(cell.adapter) / "log.jsonl").read_text(encoding="utf-8")
        known = {"cell": cell.id, "algorithm": cell.algorithm, "seed": cell.seed}
        return [{**known, **json.loads(line)} for line in text.split("\n") if line]

    def _drift(self, cell: Cell) -> list[dict[str, float]]:
        """`logp`, `ref_logp` and `kl` of each answer; empty for the base."""
        if cell.drift is None:
            return []
        drift: list[dict[str, float]] = json.loads(
            (self.artefact(cell.drift) / "drift.json").read_text(encoding="utf-8")
        )
        return drift

    def _scores_of(self, judge: Panelist, cell: Cell) -> Sequence[float | None]:
        """A judge's scores of a cell's answers; NaN where it could not score one."""
        if not judge.members:  # gold: the caller's
            return []
        members = [self._scores_at(cell.judged[member.id]) for member in judge.members]
        return combine(members, judge.ensemble)

    def _scores_at(self, address: Address) -> list[float]:
        scores = json.loads((self.artefact(address) / "scores.json").read_text(encoding="utf-8"))
        return [math.nan if score is None else score for score in scores]

    def audited(self, cells: Collection[Cell]) -> list[dict[str, Any]]:
        """Rows of `audit.parquet`: one an answer of a validation pair and a reward model, or a judge.

        Args:
            cells: the reward models that finished. An ensemble of judges is one, if all of its members are there.
        """
        done = {cell.id for cell in cells}
        scorers = [(_without_seed(judge.members), judge.members, judge.ensemble) for judge in self.plan.panel]
        scorers += [(cell.id, (cell,), None) for cell in self.plan.cells if cell.kind == "reward"]
        return [
            row
            for name, group, ensemble in scorers
            if group and all(cell.id in done for cell in group)
            for row in self._audit_rows(name, group, ensemble)
        ]

    def _audit_rows(self, name: str, group: Sequence[Cell], ensemble: Ensemble | None) -> Iterator[dict[str, Any]]:
        every = [self.scores(cell) for cell in group]
        changed = [self._audit_scores(cell) for cell in group]
        for number, row in enumerate(every[0]):
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
                    "score": _combined([own[number][f"{side}_reward"] for own in every], ensemble),
                    **self._features(row["pair"], side),
                    **{f"score_{version}": value for version, value in versions.items()},
                }

    def _audit_scores(self, cell: Cell) -> dict[tuple[int, str], Mapping[str, float | None]]:
        if cell.audit is None or (cell.audit.kind, cell.audit.key) not in self.store:
            return {}
        lines = (self.artefact(cell.audit) / "audit.jsonl").read_text(encoding="utf-8").splitlines()
        return {(line["pair"], line["side"]): line["scores"] for line in map(json.loads, lines)}

    def _proxies(self, cell: Cell) -> dict[str, Address]:
        """A reward model's cell → its scores of this cell's answers: of the base's, all that are stored."""
        if cell.plugin is not None:
            return {cell.reward.id: cell.proxy} if cell.reward is not None and cell.proxy is not None else {}
        found = {other.reward.id: other.base_proxy for other in self.plan.cells if other.reward and other.base_proxy}
        return {name: address for name, address in found.items() if (address.kind, address.key) in self.store}

    def _features(self, pair: int, side: str) -> Mapping[str, float | None]:
        if (pair, side) not in self._measured:
            self._measured[pair, side] = features(getattr(self.validation[pair], side) or "")
        return self._measured[pair, side]

    @cached_property
    def validation(self) -> Mapping[int, Preference]:
        """The validation rows by their number."""
        return {preference.pair: preference for preference in self.preferences("val").rows}


def data_file(suite: Suite, split: str) -> DataFile:
    """The suite's data entry of a split (`train`, `val`, `judge`, `judge2`, …)."""
    for place, judge in enumerate(suite.judge):
        if split == judge_cell(place):
            assert isinstance(judge, TrainedJudge), "only a judge that is trained has rows"
            return judge.data
    return suite.data.train if split == "train" else suite.data.val


def source(file: DataFile, split: str) -> DataSource:
    """The reader's view of a suite's data entry; the embedded set's split falls back to the entry's own role."""
    embedded = file.path.startswith("embedded/")
    return DataSource(
        path=file.path,
        split=file.split or (split if embedded else None),
        columns=file.columns,
        rows=file.rows,
        skip=file.skip,
        revision=file.revision,
        bias=file.bias,
    )


def _policy_rewards(cell: Cell, rows: Sequence[TokenRow], logps: Columns, reference: Columns) -> Columns:
    if cell.plugin is None:  # the base has no loss; its s̄ stands in
        tokens = {side: torch.tensor([len(getattr(row, side)) for row in rows]) for side in logps}
        return {side: logps[side] / tokens[side] for side in logps}
    return rewards_of(cell.plugin.algorithm, cell.parameters, rows, logps, reference)


def _at(places: Sequence[int], columns: Columns) -> Columns:
    return {name: values[places] for name, values in columns.items()}


def _number(columns: Columns | None, side: str, place: int) -> float | None:
    return None if columns is None else float(columns[side][place])


def _without_seed(members: Sequence[Cell]) -> str:
    return members[0].id.partition("#")[0] if members else GOLD


def _combined(members: Sequence[float | None], ensemble: Ensemble | None) -> float | None:
    known = [[score] for score in members if score is not None]
    return combine(known, ensemble)[0] if len(known) == len(members) else None
