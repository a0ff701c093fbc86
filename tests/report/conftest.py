from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from align_bench.records import Cost, Generation, Kind, Outcome, PairTexts
from align_bench.report.build import build_report

HOSTILE = "[red]x[/red]<script>alert(1)</script>|`a|b`\n\x1b[2J"


@dataclass(frozen=True)
class Run:
    """All that a report is built from."""

    header: dict[str, Any]
    outcomes: list[Outcome]
    scores: list[dict[str, Any]]
    generations: list[Generation]
    pairs: list[PairTexts]

    def report(self) -> dict[str, Any]:
        return build_report(self.header, self.outcomes, self.scores, self.generations, pairs=self.pairs)


def outcome(cell: str, kind: Kind, **own: Any) -> Outcome:
    fields = {"algorithm": cell.partition("#")[0].partition("[")[0], "parameters": {}, "seed": 0, "status": "done"}
    return Outcome(cell=cell, kind=kind, **{**fields, **own})


def score_rows(done: Outcome, skill: float, count: int, rng: random.Random) -> list[dict[str, Any]]:
    policy, log = done.kind == "policy", done.kind != "reward"
    rows = []
    for pair in range(count):
        rows.append(
            {
                "cell": done.cell,
                "algorithm": done.algorithm,
                "seed": done.seed,
                "pair": pair,
                "chosen_reward": rng.gauss(skill, 1),
                "rejected_reward": rng.gauss(0, 1),
                "chosen_tokens": 5 + pair % 3,
                "rejected_tokens": 5 + pair % 4,
                "gold_choice": (1, 2, None)[pair % 3],
                "chosen_logp": rng.gauss(-10, 1) if log else None,
                "rejected_logp": rng.gauss(-10, 1) if log else None,
                "ref_chosen_logp": rng.gauss(-10, 1) if policy else None,
                "ref_rejected_logp": rng.gauss(-10, 1) if policy else None,
                "chosen_words": 4 + pair % 3,
                "rejected_words": 4 + pair % 4,
                "prompt_id": pair,
                "chosen_grade": rng.gauss(6, 2) if pair % 7 else None,
                "rejected_grade": rng.gauss(5, 2),
            }
        )
    return rows


def answers(done: Outcome, skill: float, count: int, rng: random.Random, samples: int = 1) -> list[Generation]:
    return [
        Generation(
            cell=done.cell,
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
        outcome("base", "base", reward="mean log-probability a token"),
        outcome("rm[learning_rate=1e-05]", "reward", parameters={"learning_rate": 1e-5}, cost=cost),
        outcome("rm[learning_rate=2e-05]", "reward", parameters={"learning_rate": 2e-5}),
        outcome("dpo", "policy", parameters={"beta": 0.1, "betas": (0.9, 0.95)}, reward="β·ρ", cost=cost),
        outcome("simpo", "policy", reward="β·s̄"),
        outcome(HOSTILE, "policy", reward=HOSTILE),
    ]
    scores, generations = [], []
    for index, cell in enumerate(done):
        scores += score_rows(cell, 0.3 * index, 60, rng)
        if cell.kind != "reward":
            generations += answers(cell, 0.3 * index, 40, rng)
    unfinished = [
        outcome("kto", "policy", status="failed", reason=f"loss is NaN {HOSTILE}"),
        outcome("ppo", "policy", status="skipped", reason="its reward model failed"),
    ]
    header = {
        "suite": {"name": f"demo {HOSTILE}"},
        "base": HOSTILE,
        "data": {"val": {"counts": {"read": 61, "kept": 60}}},
        "judge": {"name": "rm", "cell": "judge", "status": "done", "trained": []},
        "environment": {"python": "3.12", "packages": ["scipy", "rich"]},
        "command": "align-bench run suites/demo.yaml",
    }
    return Run(header, [*done, *unfinished], scores, generations, texts(60))
