"""Rows of a suite with a bit of everything: repeated prompts, samples, judges, seeds, ties, missing scores, attacks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from align_bench.metrics.length import count_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.records import CellId, Cost, Generation, Kind, Outcome, PairTexts, TrainingText
from align_bench.report.build import build_report
from align_bench.report.course import training_keywords
from align_bench.report.export import ReportRows, write_report
from align_bench.report.rows import AttackedScores, AuditRow, ScoreRow, Side, TrainingRow
from align_bench.report.schema import CheckedRows, DataFacts, ExaminedRows, JudgeFacts, MethodCheck, Report
from tests.report.conftest import header

BASE = CellId("base")
JUDGES = CellId("judge"), CellId("judge2")
REWARDS = [CellId("rm", seed=seed) for seed in range(3)] + [CellId("rm_plain", seed=seed) for seed in range(2)]
POLICIES = [CellId(name, (("beta", 0.1),), seed) for name in ("dpo", "kto") for seed in range(3)]
SINGLE = CellId("simpo", seed=0)
FAILED = CellId("simpo", seed=1)
SIDES: tuple[Side, ...] = ("chosen", "rejected")
PROMPTS, SAMPLES = 26, 2
# Pairs of each prompt: unequal, so that a mean over pairs is none over prompts.
PAIRS = [prompt for prompt in range(PROMPTS) for _ in range(1 + prompt % 4)]
VOCABULARY = (
    *("the", "model", "gives", "an", "answer", "which", "area", "of", "science", "explains", "light", "water", "and"),
    *("stone", "because", "nobody", "knows", "better", "reasons", "however", "careful", "people", "measure", "twice"),
)


@dataclass(frozen=True)
class Suite:
    """All that a report is built from.

    Attributes:
        outcomes, rows: of its cells.
        against: the methods that others are compared with; none: each with every other one.
    """

    outcomes: list[Outcome]
    rows: ReportRows
    against: Sequence[str] = ()

    def report(self) -> Report:
        judges = [
            JudgeFacts(name="rm", cells=[JUDGES[0]], status="done", rewarded=[]),
            JudgeFacts(name="other", cells=[JUDGES[1]], status="done", rewarded=[]),
            JudgeFacts(name="gold", cells=[], status="done", rewarded=[]),
        ]
        settings: dict[str, JsonValue] = {"report": {"equivalence_dz": 0.25, "against": [*self.against] or None}}
        known, rows = header(judges, settings, name="rich"), self.rows
        data = {
            "val": DataFacts(
                shape="question",
                read={"read": len(PAIRS), "kept": len(PAIRS)},
                tokens={"kept": len(PAIRS)},
                checked=CheckedRows(labels=40, labels_first=1, prompts_in_train=2),
                examined=ExaminedRows(
                    rows=len(PAIRS),
                    duplicates=1,
                    near_duplicates=2,
                    contradictions=4,
                    repeated_prompts=5,
                    prompts_in_train=2,
                    pairs=len(PAIRS),
                    longer_preferred=30,
                    equally_long=1,
                    prompt_words=7.5,
                    scripts={"Latin": len(PAIRS)},
                ),
            ),
            "judge": DataFacts(
                shape="question",
                read={"read": 9, "kept": 9},
                tokens={"kept": 9},
                checked=CheckedRows(prompts_in_train=9, distance=0.5, distance_by_chance=0.1),
            ),
        }
        flipped = MethodCheck(cell=POLICIES[0], check="signs", found="∂loss/∂chosen above 0", hint="look for a sign")
        known = known.model_copy(
            update={
                "training_keywords": training_keywords(rows.texts),
                "data": data,
                "base": known.base.model_copy(update={"vocabulary": 2}),
                "failed_checks": [flipped],
            }
        )
        return build_report(
            known, self.outcomes, rows.scores, rows.generations, rows.audits, rows.pairs, tested=rows.tested
        )

    def write(self, folder: Path) -> Path:
        """Write the report's folder as a run does."""
        write_report(folder, self.report(), self.rows)
        return folder


def rich_suite(seed: int = 20) -> Suite:
    """The suite; every draw is from one seed."""
    rng = random.Random(seed)
    outcomes = [
        _outcome(BASE, "base", "base", None),
        *(_outcome(cell, "reward", "judge", 40.0) for cell in JUDGES),
        *(_outcome(cell, "reward", cell.name, rng.uniform(20, 90)) for cell in REWARDS),
        *(_outcome(cell, "policy", cell.name, rng.uniform(100, 900)) for cell in POLICIES),
        replace(
            _outcome(SINGLE, "policy", SINGLE.name, rng.uniform(100, 900)), start=POLICIES[0], chain=["dpo", "simpo"]
        ),
        replace(
            _outcome(FAILED, "policy", "simpo", None), status="failed", reason="loss is NaN", warnings=["beta is high"]
        ),
    ]
    pairs = [
        PairTexts(pair, f"Why {prompt}?", _text(rng), _text(rng), rng.choice((0.6, 0.9, None)))
        for pair, prompt in enumerate(PAIRS)
    ]
    golds = [rng.choice((1, 1, 2, None)) for _ in PAIRS]
    effects = {cell: [rng.gauss(0, 0.5) for _ in range(PROMPTS)] for cell in (*JUDGES, *REWARDS, *POLICIES, SINGLE)}
    done = [one for one in outcomes if one.status == "done"]
    scores = [row for one in done for row in _score_rows(one, pairs, golds, effects.get(one.cell), rng)]
    generations = [row for one in done if one.kind != "reward" for row in _answers(one, rng)]
    audits = [row for cell in (*JUDGES, *REWARDS[:1]) for row in _audits(cell, pairs, scores, rng)]
    training = [
        TrainingRow(str(cell), cell.name, cell.seed or 0, step, 0.7 - step / 10, 1e-3, 1.0, float(step), {"kl": 0.1})
        for cell in POLICIES
        for step in (1, 2)
    ]
    texts = [TrainingText(row, _text(rng)) for row in range(40)]
    others = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
    measured = [one for one in done if one.kind != "reward"]
    tested = [row for one in measured for row in _score_rows(one, others, golds, effects.get(one.cell), rng)]
    return Suite(outcomes, ReportRows(scores, generations, training, audits, pairs, texts, tested))


def _outcome(cell: CellId, kind: Kind, algorithm: str, seconds: float | None) -> Outcome:
    cost = None if seconds is None else Cost(seconds, 12_345, 3 * 2**30, 2.5e12, 0.125)
    return Outcome(
        cell, algorithm, kind, dict(cell.parameters), cell.seed or 0, "done", reward="r", cost=cost, remarks=["odd"]
    )


def _text(rng: random.Random) -> str:
    """A few sentences, some with Markdown, some Chinese, one empty now and then."""
    draw = rng.random()
    if draw < 0.03:
        return ""
    if draw < 0.08:
        return "我爱编程, 北京大学的学生 42"
    sentences = []
    for _ in range(rng.randint(1, 4)):
        drawn = rng.choices(VOCABULARY, k=rng.randint(3, 9))
        sentences.append(" ".join(drawn).capitalize() + rng.choice(".!?"))
    if draw < 0.4:
        heading, bold = rng.choice(("# A heading\n\n", "")), rng.choice(("**bold** words", "plain words"))
        return f"{heading}{rng.choice(('- ', ''))}{sentences[0]}\n- {bold}\n\n" + " ".join(sentences[1:])
    return " ".join(sentences)


def _score_rows(
    one: Outcome,
    pairs: Sequence[PairTexts],
    golds: Sequence[int | None],
    effects: Sequence[float] | None,
    rng: random.Random,
) -> list[ScoreRow]:
    """Rewards with a part that is the prompt's own, rounded so that some tie; a few are missing."""
    log = one.kind != "reward"
    skill = 0.4 + 0.1 * (one.cell.seed or 0) + (0.3 if one.cell.name in ("dpo", "rm") else 0.0)
    found = []
    for pair, prompt in enumerate(PAIRS):
        texts = pairs[pair].chosen, pairs[pair].rejected
        words = [count_words(text) for text in texts]
        parts = skill + (0.0 if effects is None else effects[prompt]), 0.0
        rewards = [round(rng.gauss(part, 0.9) + 0.03 * count, 1) for part, count in zip(parts, words, strict=True)]
        missing = rng.random() < 0.03
        row = ScoreRow(
            cell=str(one.cell),
            algorithm=one.algorithm,
            seed=one.seed,
            pair=pair,
            chosen_reward=None if missing else rewards[0],
            rejected_reward=rewards[1],
            chosen_tokens=words[0] + 2,
            rejected_tokens=words[1] + 2,
            gold_choice=golds[pair],
            chosen_words=words[0],
            rejected_words=words[1],
            prompt_id=PAIRS.index(prompt),
            chosen_grade=flesch_kincaid(texts[0]),
            rejected_grade=flesch_kincaid(texts[1]),
        )
        if log:
            row = replace(row, chosen_logp=rng.gauss(-20, 4), rejected_logp=rng.gauss(-22, 4))
        if one.kind == "policy":
            row = replace(row, ref_chosen_logp=rng.gauss(-20.5, 4), ref_rejected_logp=rng.gauss(-21, 4))
        if one.cell.name == "rm":
            attacked = [[reward - rng.gauss(size, 0.2) for reward in rewards] for size in (0.1, 0.5)]
            sizes = zip((0.1, 0.5), attacked, strict=True)
            row = replace(row, attacked=tuple(AttackedScores(size, *own) for size, own in sizes))
        found.append(row)
    return found


def _answers(one: Outcome, rng: random.Random) -> list[Generation]:
    """Two samples of each prompt, now and then only one; scores of three judges, of which a few are missing."""
    skill = 0.0 if one.kind == "base" else 0.3 + 0.15 * (one.cell.seed or 0) + 0.3 * (one.cell.name == "dpo")
    found = []
    for prompt in range(PROMPTS):
        place = rng.gauss(0, 0.7)
        for sample in range(SAMPLES):
            if sample and rng.random() < 0.1:
                continue
            text = _text(rng)
            tokens = count_words(text) + rng.randint(1, 4)
            judged = round(rng.gauss(place + skill, 1) + 0.05 * count_words(text), 1)
            row = Generation(
                cell=str(one.cell),
                algorithm=one.algorithm,
                seed=one.seed,
                prompt_id=PAIRS.index(prompt),
                sample=sample,
                prompt=f"Why {prompt}?",
                text=text,
                tokens=tokens,
                finished=rng.random() < 0.8,
                scores={
                    "rm": math.nan if rng.random() < 0.03 else judged,
                    "other": round(0.5 * judged + rng.gauss(0, 1), 1),
                    "gold": float(rng.random() < 0.4 + 0.1 * judged),
                },
                proxies={} if one.cell == SINGLE else {str(REWARDS[0]): rng.gauss(skill, 1)},
            )
            if one.kind == "policy":
                ratio = rng.gauss(0.1, 0.3) * tokens
                row = replace(
                    row, logp=-2.0 * tokens + ratio, ref_logp=-2.0 * tokens, kl=abs(rng.gauss(0.2, 0.1)) * tokens
                )
            if one.chain:
                row = replace(row, start_logp=-1.9 * tokens, start_kl=0.03 * tokens * (1 + prompt % 3))
            found.append(row)
    return found


def _audits(cell: CellId, pairs: Sequence[PairTexts], scores: Sequence[ScoreRow], rng: random.Random) -> list[AuditRow]:
    """A row for each answer; every second prompt's were scored with other texts as well."""
    found = []
    for row in scores:
        if row.cell != str(cell):
            continue
        texts = pairs[row.pair].chosen, pairs[row.pair].rejected
        for side, text, answer in zip(SIDES, texts, (row.chosen, row.rejected), strict=True):
            score = answer.reward
            made = AuditRow(
                scorer=str(cell),
                pair=row.pair,
                prompt=row.prompt_id or 0,
                side=side,
                score=score,
                words=answer.words,
                grade=answer.grade,
                list_items=float(text.count("- ")),
                headings=float(text.startswith("#")),
                bold=float("**" in text),
            )
            if PAIRS[row.pair] % 2 == 0 and score is not None:
                shuffled, empty, filler, doubled, stripped = (round(score + rng.gauss(0.3, 0.8), 1) for _ in range(5))
                made = replace(made, score_plain=score, score_shuffled=shuffled, score_empty=empty, score_filler=filler)
                made = replace(made, score_doubled=doubled, score_stripped=stripped if "**" in text else None)
            found.append(made)
    return found
