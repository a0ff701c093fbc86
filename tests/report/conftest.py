from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from pydantic import JsonValue

from align_bench.records import CellId, Cost, Generation, Kind, Outcome, PairTexts
from align_bench.report.build import build_report
from align_bench.report.export import ReportRows
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import (
    BaseFacts,
    DataFacts,
    Environment,
    Header,
    JudgeFacts,
    Report,
    Result,
    SuiteFacts,
)

HOSTILE = "[red]x[/red]<script>alert(1)</script>|`a|b`\n\x1b[2J"
BASE = CellId("base")
RM, RM_FAST = (CellId("rm", (("learning_rate", rate),)) for rate in (1e-5, 2e-5))
DPO, SIMPO, KTO, PPO = map(CellId, ("dpo", "simpo", "kto", "ppo"))


@dataclass(frozen=True)
class Run:
    """All that a report is built from."""

    header: Header
    outcomes: list[Outcome]
    scores: list[ScoreRow]
    generations: list[Generation]
    pairs: list[PairTexts]

    def report(self) -> Report:
        return build_report(self.header, self.outcomes, self.scores, self.generations, pairs=self.pairs)

    @property
    def rows(self) -> ReportRows:
        return ReportRows(self.scores, self.generations, pairs=self.pairs)


def result_of(report: Report, cell: CellId) -> Result:
    return next(result for result in report.results if result.cell == cell)


def judge(name: str, cell: CellId | None = None) -> JudgeFacts:
    return JudgeFacts(name=name, cells=[] if cell is None else [cell], status="done", rewarded=[])


def header(
    judges: Sequence[JudgeFacts] = (), settings: dict[str, JsonValue] | None = None, name: str = "demo"
) -> Header:
    return Header(
        command="align-bench run suites/demo.yaml",
        suite=SuiteFacts(name=name, state="0", settings=settings or {}),
        base=BaseFacts(name="tiny", digest="d", precision="float32 on cpu"),
        data={},
        judges=list(judges),
        environment=Environment(
            align_bench="0.1.0",
            commit=None,
            python="3.12",
            system="Linux",
            processor="x86",
            threads=1,
            device="cpu",
            libraries={"scipy": "1.15", "rich": "14.0"},
        ),
    )


def outcome(cell: CellId, kind: Kind, algorithm: str | None = None) -> Outcome:
    return Outcome(cell, algorithm or cell.name, kind, {}, cell.seed or 0, "done")


def score(cell: CellId, pair: int, chosen: float | None, rejected: float | None) -> ScoreRow:
    return ScoreRow(
        cell=str(cell),
        algorithm=cell.name,
        seed=cell.seed or 0,
        pair=pair,
        chosen_reward=chosen,
        rejected_reward=rejected,
        chosen_tokens=2,
        rejected_tokens=4,
        chosen_words=3,
        rejected_words=2,
    )


def answer(cell: CellId, prompt: int, judge: float | None = None, sample: int = 0) -> Generation:
    """An answer, with its score by the judge `rm`."""
    return Generation(
        cell=str(cell),
        algorithm=cell.name,
        seed=cell.seed or 0,
        prompt_id=prompt,
        sample=sample,
        prompt="?",
        text="Yes it is.",
        tokens=4,
        finished=True,
        scores={} if judge is None else {"rm": judge},
    )


def score_rows(done: Outcome, skill: float, count: int, rng: random.Random) -> list[ScoreRow]:
    policy, log = done.kind == "policy", done.kind != "reward"
    return [
        ScoreRow(
            cell=str(done.cell),
            algorithm=done.algorithm,
            seed=done.seed,
            pair=pair,
            chosen_reward=rng.gauss(skill, 1),
            rejected_reward=rng.gauss(0, 1),
            chosen_tokens=5 + pair % 3,
            rejected_tokens=5 + pair % 4,
            gold_choice=(1, 2, None)[pair % 3],
            chosen_logp=rng.gauss(-10, 1) if log else None,
            rejected_logp=rng.gauss(-10, 1) if log else None,
            ref_chosen_logp=rng.gauss(-10, 1) if policy else None,
            ref_rejected_logp=rng.gauss(-10, 1) if policy else None,
            chosen_words=4 + pair % 3,
            rejected_words=4 + pair % 4,
            prompt_id=pair,
            chosen_grade=rng.gauss(6, 2) if pair % 7 else None,
            rejected_grade=rng.gauss(5, 2),
        )
        for pair in range(count)
    ]


def answers(done: Outcome, skill: float, count: int, rng: random.Random, samples: int = 1) -> list[Generation]:
    return [
        Generation(
            cell=str(done.cell),
            algorithm=done.algorithm,
            seed=done.seed,
            prompt_id=prompt,
            sample=sample,
            prompt="Why?",
            text="It is so. Nobody knows." if prompt % 2 else "我 42",
            tokens=6 + prompt % 3,
            finished=prompt % 5 > 0,
            scores={"rm": rng.gauss(skill, 1), "gold": float(rng.random() < 0.4 + skill / 5), "other": rng.gauss(0, 1)},
        )
        for prompt in range(count)
        for sample in range(samples)
    ]


def texts(count: int) -> list[PairTexts]:
    return [PairTexts(pair, f"Why {pair}?", f"It is an animal. {HOSTILE}", "我爱编程, 42") for pair in range(count)]


@pytest.fixture
def run() -> Run:
    """As `made_run` makes it, anew for each test."""
    return made_run()


@pytest.fixture(scope="session")
def shared_run() -> Run:
    """The same, once for tests that only look at it."""
    return made_run()


def made_run() -> Run:
    """Two reward models, three policies (one hostile by name), the base, and two cells that did not finish."""
    rng = random.Random(7)
    cost = Cost(seconds=754.0, tokens=12_345, peak_bytes=3 * 2**30, flops=2.5e12, utilisation=0.125)
    done = [
        replace(outcome(BASE, "base"), reward="mean log-probability per token"),
        replace(outcome(RM, "reward"), parameters={"learning_rate": 1e-5}, cost=cost),
        replace(outcome(RM_FAST, "reward"), parameters={"learning_rate": 2e-5}),
        replace(outcome(DPO, "policy"), parameters={"beta": 0.1, "loss": "sigmoid"}, reward="β·ρ", cost=cost),
        replace(outcome(SIMPO, "policy"), reward="β·s̄"),
        replace(outcome(CellId(HOSTILE), "policy"), reward=HOSTILE),
    ]
    scores: list[ScoreRow] = []
    generations: list[Generation] = []
    for index, cell in enumerate(done):
        scores += score_rows(cell, 0.3 * index, 60, rng)
        if cell.kind != "reward":
            generations += answers(cell, 0.3 * index, 40, rng)
    unfinished = [
        replace(outcome(KTO, "policy"), status="failed", reason=f"loss is NaN {HOSTILE}"),
        replace(outcome(PPO, "policy"), status="skipped", reason="its reward model failed"),
    ]
    known = header([judge("rm", CellId("judge")), judge("other", CellId("judge2"))], name=f"demo {HOSTILE}")
    data = {"val": DataFacts(shape=HOSTILE, read={"read": 61, "kept": 60}, tokens={"kept": 60})}
    known = known.model_copy(update={"base": BaseFacts(name=HOSTILE, digest="d", precision="float32"), "data": data})
    return Run(known, [*done, *unfinished], scores, generations, texts(60))
