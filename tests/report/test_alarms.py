"""Alarms: each is raised by what is planted for it, at its threshold, and by nothing sound."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from align_bench.records import CellId, Estimate, Generation, Outcome
from align_bench.report.alarms import FEWEST, alarms
from align_bench.report.build import build_report
from align_bench.report.export import read_report
from align_bench.report.render.html import render_page
from align_bench.report.render.markdown import render
from align_bench.report.render.terminal import comparison_tables
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Alarm, CheckedRows, DataFacts, ExaminedRows, Header, MethodCheck, Report
from align_bench.report.verdict import NAMED, alarm_lines, headline
from tests.report.conftest import BASE, DPO, SIMPO, answer, header, outcome, score

ROOT = Path(__file__).parents[2]
RM = CellId("rm")
COUNT = 60
CELLS = {BASE: "base", RM: "reward", DPO: "policy", SIMPO: "policy"}

Planted = Callable[[Generation], Generation]


def sound_rows(right: int = 57, logp: float = -4.0) -> list[ScoreRow]:
    """A reward model that is right on so many of 60 pairs, of which the chosen answer is the longer one in half."""
    rows: list[ScoreRow] = []
    for pair in range(COUNT):
        chosen, rejected = (8, 4) if pair % 2 else (4, 8)
        made = (score(RM, pair, float(pair < right), 0.5), score(BASE, pair, logp, logp))
        rows += [replace(row, chosen_words=chosen, rejected_words=rejected, prompt_id=pair) for row in made]
    return rows


def sound_answers(cell: CellId, change: Planted = lambda one: one) -> list[Generation]:
    kl = None if cell == BASE else 0.4
    return [change(replace(answer(cell, prompt, 0.1 * prompt), kl=kl)) for prompt in range(COUNT)]


def built(
    known: Header | None = None,
    rows: list[ScoreRow] | None = None,
    base: Planted = lambda one: one,
    dpo: Planted = lambda one: one,
) -> Report:
    """A report of a reward model, two policies and the base; nothing is wrong with it but what is planted."""
    outcomes: list[Outcome] = [replace(outcome(cell, kind), trainable=7) for cell, kind in CELLS.items()]  # type: ignore[arg-type]
    answers = [*sound_answers(BASE, base), *sound_answers(DPO, dpo), *sound_answers(SIMPO)]
    return build_report(known or header(), outcomes, sound_rows() if rows is None else rows, answers)


def only(report: Report) -> Alarm:
    """The one alarm, with which the verdict begins."""
    (alarm,) = report.alarms
    assert headline(report)[0].startswith(f"Alarm, {alarm.kind}: {alarm.sentence}.")
    assert headline(report)[0].endswith(f"Usual cure: {alarm.cure}.")
    assert alarm.about in alarm.sentence
    return alarm


def with_rows(split: str, rows: CheckedRows, shape: str = "question + response_1/2 + overall_response") -> Header:
    facts = DataFacts(shape=shape, read={"read": 200, "kept": 200}, tokens={"kept": 200}, checked=rows)
    settings = {
        "data": {"train": {"path": "mine.parquet"}, "val": {"path": "val.parquet"}},
        "judge": [{"data": {"path": "other.parquet"}}],
    }
    return header(settings=settings).model_copy(update={"data": {split: facts}})  # type: ignore[arg-type]


def with_base(vocabulary: int | None) -> Header:
    known = header()
    return known.model_copy(update={"base": known.base.model_copy(update={"vocabulary": vocabulary})})


def test_a_sound_report_raises_none() -> None:
    report = built()
    assert report.alarms == []
    assert not headline(report)[0].startswith("Alarm")


@pytest.mark.parametrize(
    ("right", "words"), [(30, "not shown to be better than chance"), (36, "not shown"), (6, "worse than chance")]
)
def test_a_judge_at_chance(right: int, words: str) -> None:
    alarm = only(built(rows=sound_rows(right)))
    assert (alarm.kind, alarm.about, alarm.threshold) == ("judge at chance", "rm", 0.5)
    assert words in alarm.sentence
    assert alarm.found == right / 60
    assert headline(built(rows=sound_rows(right)), short=True)[0].startswith(
        f"Alarm, judge at chance: rm ({right / 60:.3f}); not shown to be above 0.500. Check which"
    )


def test_a_judge_no_better_than_preferring_the_longer_answer() -> None:
    rows = [replace(row, chosen_words=8, rejected_words=4) if row.pair < 54 else row for row in sound_rows(52)]
    alarm = only(built(rows=rows))
    assert (alarm.kind, alarm.about) == ("judge by length", "rm")
    assert alarm.threshold == pytest.approx(57 / 60)  # 54 pairs, and half of the 6 of equal length
    assert "is not shown to be better than preferring the longer answer" in alarm.sentence
    assert alarm.found == pytest.approx(52 / 60)


def test_a_judge_that_is_worse_than_preferring_the_longer_answer() -> None:
    rows = [replace(row, chosen_words=8, rejected_words=4) for row in sound_rows(48)]
    alarm = only(built(rows=rows))
    assert alarm.kind == "judge by length"
    assert "rm is worse than preferring the longer answer: right on 0.800 of 60 pairs, the other on 1.000" in (
        alarm.sentence
    )


@pytest.mark.parametrize(("distance", "raised"), [(0.24, False), (0.26, True)])
def test_a_judge_of_other_data(distance: float, raised: bool) -> None:
    report = built(with_rows("judge", CheckedRows(distance=distance, distance_by_chance=0.05)))
    assert bool(report.alarms) == raised
    if raised:
        alarm = only(report)
        assert (alarm.kind, alarm.about, alarm.threshold) == ("other data", "judge", 0.2)
        assert alarm.found == pytest.approx(0.21)
        assert "(other.parquet instead of mine.parquet)" in alarm.sentence


@pytest.mark.parametrize(("cut", "raised"), [(6, False), (7, True)])
def test_answers_that_are_cut_off(cut: int, raised: bool) -> None:
    report = built(dpo=lambda one: replace(one, finished=one.prompt_id >= cut))
    assert bool(report.alarms) == raised
    if raised:
        alarm = only(report)
        assert (alarm.kind, alarm.about, alarm.found, alarm.threshold) == ("cut-off answers", "dpo", cut / COUNT, 0.1)


def test_the_base_s_answers_count_only_beside_a_policy() -> None:
    def cut(one: Generation) -> Generation:
        return replace(one, finished=False)

    assert only(built(base=cut)).about == "base"
    alone = build_report(header(), [outcome(BASE, "base")], [], sound_answers(BASE, cut))
    assert alone.alarms == []


@pytest.mark.parametrize(("kl", "raised"), [(0.0, True), (0.0003, True), (0.0005, False)])
def test_a_policy_that_learned_nothing(kl: float, raised: bool) -> None:
    report = built(dpo=lambda one: replace(one, kl=kl))  # of 4 tokens
    assert [(one.kind, one.about, one.threshold) for one in report.alarms] == [
        ("nothing learned", "dpo", 1e-4)
    ] * raised


def test_a_reward_model_of_equal_scores() -> None:
    rows = [replace(row, chosen_reward=1.0, rejected_reward=1.0) if row.cell == "rm" else row for row in sound_rows()]
    report = built(rows=rows)
    assert [one.kind for one in report.alarms] == ["judge at chance", "equal scores"]
    assert (report.alarms[1].about, report.alarms[1].found) == ("rm", 1.0)


@pytest.mark.parametrize(("kl", "raised"), [(1.9, False), (2.1, True)])
def test_a_policy_that_drifted_away(kl: float, raised: bool) -> None:
    report = built(dpo=lambda one: replace(one, kl=kl))
    assert [(one.kind, one.about, one.threshold) for one in report.alarms] == [("drifted away", "dpo", 0.5)] * raised


def test_a_policy_that_repeats_itself() -> None:
    report = built(dpo=lambda one: replace(one, text="so it is " * 10))
    alarm = only(report)
    assert (alarm.kind, alarm.about, alarm.threshold) == ("repeats itself", "dpo", 0.2)
    assert alarm.found is not None
    assert alarm.found > 0.8


def test_repetition_is_held_against_the_base_s() -> None:
    def say(text: str) -> Planted:
        return lambda one: replace(one, text=text)

    assert built(base=say("so it is " * 10), dpo=say("so it is " * 11)).alarms == []


def test_a_policy_that_never_ends() -> None:
    report = built(dpo=lambda one: replace(one, finished=False))
    assert [one.kind for one in report.alarms] == ["never ends", "cut-off answers"]
    assert (report.alarms[0].about, report.alarms[0].found, report.alarms[0].threshold) == ("dpo", 1.0, 0.9)


def test_a_short_limit_is_no_collapse() -> None:
    def cut(one: Generation) -> Generation:
        return replace(one, finished=one.prompt_id % 3 > 0)

    report = built(base=cut, dpo=lambda one: replace(one, finished=False))
    assert {one.kind for one in report.alarms} == {"cut-off answers"}


def test_long_sound_answers_are_no_collapse() -> None:
    """Answers of 4 KB: 1,000 tokens at 0.05 nats, and the little that long texts repeat."""
    words = [f"word{place * place % 613}" for place in range(600)]

    def long(shift: int, kl: float | None) -> Planted:
        text = " ".join([*words[shift:], *words[:shift], *words[:60]])
        assert len(text) > 4_000
        return lambda one: replace(one, text=text, tokens=1_000, kl=kl)

    assert built(base=long(0, None), dpo=long(17, 50.0)).alarms == []


@pytest.mark.parametrize(
    ("first", "words"), [(196, "0.980 of its 200 labels say the first answer"), (4, "say the second answer")]
)
def test_labels_that_follow_the_place_of_the_answer(first: int, words: str) -> None:
    alarm = only(built(with_rows("train", CheckedRows(labels=200, labels_first=first))))
    assert (alarm.kind, alarm.about, alarm.found, alarm.threshold) == ("one-sided labels", "train", 0.98, 0.95)
    assert words in alarm.sentence


def test_unpaired_labels_of_one_kind() -> None:
    shape = "prompt + completion + label (unpaired)"
    alarm = only(built(with_rows("train", CheckedRows(labels=200, labels_first=200), shape)))
    assert "1.000 of its 200 labels say desirable" in alarm.sentence
    assert alarm.cure == "give rows of both labels"


def test_labels_on_both_sides_are_sound() -> None:
    for first in (10, 100, 190):
        assert built(with_rows("train", CheckedRows(labels=200, labels_first=first))).alarms == []


def test_a_few_labels_say_nothing() -> None:
    few = CheckedRows(labels=FEWEST - 1, labels_first=FEWEST - 1)
    assert built(with_rows("train", few)).alarms == []


@pytest.mark.parametrize(("shared", "raised"), [(2, False), (3, True)])
def test_validation_prompts_in_training(shared: int, raised: bool) -> None:
    report = built(with_rows("val", CheckedRows(prompts_in_train=shared)))
    assert bool(report.alarms) == raised
    if raised:
        alarm = only(report)
        assert (alarm.kind, alarm.about, alarm.found, alarm.threshold) == (
            "validation in training",
            "val",
            shared / 200,
            0.01,
        )


def test_a_judge_s_prompts_in_training_are_a_note_only() -> None:
    assert built(with_rows("judge", CheckedRows(prompts_in_train=200, distance=0.0))).alarms == []


@pytest.mark.parametrize(("logp", "raised"), [(-4.7, False), (-4.8, True)])
def test_tokens_that_the_base_does_not_know(logp: float, raised: bool) -> None:
    """ln(900) is 6.80, and 0.7 of it 4.76; the base's own reward is its mean log-probability per token."""
    report = built(with_base(900), rows=sound_rows(logp=logp))
    assert bool(report.alarms) == raised
    if raised:
        alarm = only(report)
        assert (alarm.kind, alarm.about, alarm.threshold) == ("shifted tokens", "base", 0.7)
        assert alarm.found == pytest.approx(0.7056, abs=1e-3)


def test_a_vocabulary_that_is_unknown_raises_nothing() -> None:
    assert built(with_base(None), rows=sound_rows(logp=-40.0)).alarms == []


def test_a_method_that_failed_a_check() -> None:
    failed = MethodCheck(
        cell=DPO, check="signs", found="∂loss/∂chosen = 0.05, expected below 0", hint="look for a sign"
    )
    alarm = only(built(header().model_copy(update={"failed_checks": [failed]})))
    assert (alarm.kind, alarm.about) == ("flipped sign", "dpo")
    assert "expected below 0" in alarm.sentence
    other = failed.model_copy(update={"check": "extremes"})
    assert only(built(header().model_copy(update={"failed_checks": [other]}))).kind == "not finite"


def test_many_cells_are_one_line() -> None:
    one = Alarm(kind="drifted away", about="a", found=1.0, threshold=0.5, sentence="a has collapsed", cure="train less")
    others = [one.model_copy(update={"about": f"b{place}", "found": 2.0}) for place in range(NAMED + 2)]
    (line,) = alarm_lines([one, *others])
    assert line.startswith("Alarm, drifted away: a has collapsed. Likewise: b0 (2.000), b1 (2.000), ")
    assert line.endswith("b5 (2.000) and 2 more. Usual cure: train less.")


def test_every_form_begins_with_the_alarms() -> None:
    report = built(dpo=lambda one: replace(one, kl=9.0))
    said = "Alarm, drifted away: dpo has collapsed"
    console = Console(file=io.StringIO(), width=200)
    console.print(*comparison_tables(report))
    assert console.file.getvalue().split("\n")[1].strip().startswith(f"• {said}")  # type: ignore[attr-defined]
    assert f"## Verdict\n\n- {said}" in render(report)
    page = render_page(report, [], [])
    assert page.index(said) < page.index("Claims about checkpoints only")


COMMITTED = {
    "assignment": {("judge by length", "judge"), ("judge by length", "poe_rm")},
    "debias": {
        ("judge by length", "poe_rm[noise=1.0,length_expert=False,bias_weight=0.0]"),
        ("judge by length", "poe_rm[noise=1.0,length_expert=True,bias_weight=1.0]"),
        ("judge at chance", "odin_rm"),
    },
    "ppo": set(),
    "sft_then": set(),
    "smollm2": {("cut-off answers", "base")}
    | {("cut-off answers", f"{method}#{seed}") for method in ("dpo", "simpo") for seed in range(3)},
    "smollm2_small": {
        ("judge by length", scorer) for scorer in ("judge", "judge2", "rm#0", "rm#1", "poe_rm#0", "poe_rm#1")
    }
    | {("cut-off answers", policy) for policy in ("base", "sft#1", "dpo#0", "kto#0", "kto#1", "simpo#1", "ppo#0")},
    "smollm2_small_base": {("judge by length", scorer) for scorer in ("judge", "judge2")}
    | {("cut-off answers", policy) for policy in ("base", "dpo", "kto", "simpo", "orpo")},
    "overoptimisation": {
        (kind, f"ppo[kl_coef={weight},reward={reward}]")
        for kind in ("drifted away", "repeats itself")
        for weight in ("0.0", "0.02")
        for reward in ("rm", "poe_rm")
    }
    - {("drifted away", f"ppo[kl_coef=0.02,reward={reward}]") for reward in ("rm", "poe_rm")}
    | {("judge by length", "poe_rm")},
}


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_what_the_committed_reports_raise(name: str) -> None:
    """Each of these is right: see `reports/README.md`. A report that is built again may raise others."""
    report = read_report(ROOT / "reports" / "published" / name)
    found = alarms(report, report.results, report.against_longer)
    assert {(one.kind, one.about) for one in found} == COMMITTED[name]


def test_undefined_numbers_raise_nothing() -> None:
    report = built()
    for result in report.results:
        undefined = {
            name: Estimate(None) for name, value in result.metrics.__dict__.items() if isinstance(value, Estimate)
        }
        blank = result.model_copy(update={"metrics": result.metrics.model_copy(update=undefined)})
        assert alarms(report, [blank], []) == []


@pytest.mark.parametrize(
    ("contradictions", "duplicates", "kinds"),
    [
        (4, 20, []),
        (5, 20, ["contradictory rows"]),
        (4, 21, ["duplicate rows"]),
        (9, 50, ["contradictory rows", "duplicate rows"]),
    ],
)
def test_rows_that_repeat_or_contradict_each_other(contradictions: int, duplicates: int, kinds: list[str]) -> None:
    known = with_rows("train", CheckedRows())
    examined = ExaminedRows(
        rows=200,
        duplicates=duplicates,
        near_duplicates=200,
        contradictions=contradictions,
        repeated_prompts=200,
        pairs=200,
        longer_preferred=100,
        equally_long=0,
        scripts={},
    )
    facts = known.data["train"].model_copy(update={"examined": examined})
    found = built(known.model_copy(update={"data": {"train": facts}})).alarms
    assert [one.kind for one in found] == kinds
    for one in found:
        assert (one.about, one.found) == ("train", {"c": contradictions, "d": duplicates}[one.kind[0]] / 200)
        assert f"{one.found:.3f} of its 200 rows" in one.sentence


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_reward_model_whose_scores_are_missing_or_not_finite(missing: float | None) -> None:
    def with_holes(count: int) -> list[ScoreRow]:
        return [
            replace(row, rejected_reward=missing) if row.cell == "rm" and row.pair < count else row
            for row in sound_rows()
        ]

    assert built(rows=with_holes(0)).alarms == []
    alarm = only(built(rows=with_holes(3)))
    assert (alarm.kind, alarm.about, alarm.found, alarm.threshold) == ("missing scores", "rm", 3 / COUNT, 0.01)
    assert "rm has no finite score of both answers of 0.050 of 60 pairs" in alarm.sentence
