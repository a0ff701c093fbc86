"""The leaderboard: who has a row, in which order, and what it says of the base."""

from __future__ import annotations

import csv
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from align_bench.records import CellId, Comparison, Cost, Generation, MetricKey, Outcome
from align_bench.report.build import build_report
from align_bench.report.claims import claims
from align_bench.report.decision import turned
from align_bench.report.export import read_report
from align_bench.report.labels import called, labels, names_of, of_method
from align_bench.report.leaderboard import leaderboard
from align_bench.report.render.csv import write_tables
from align_bench.report.render.html import render_page
from align_bench.report.render.markdown import render
from align_bench.report.schema import LeaderboardRow, Report
from align_bench.report.tables.pairwise import members
from tests.report.conftest import BASE, DPO, KTO, SIMPO, answer, header, outcome, score

GOLD, JUDGE = MetricKey("gold_accuracy"), MetricKey("judge_reward")
PUBLISHED = Path(__file__).parents[2] / "reports" / "published"


def seeds(method: CellId, count: int = 3) -> list[CellId]:
    return [replace(method, seed=seed) for seed in range(count)]


def answered(
    levels: Mapping[CellId, float],
    gold: Mapping[CellId, float] | None = None,
    unfinished: Sequence[Outcome] = (),
    against: Sequence[str] = (),
) -> Report:
    """A report of policies by their mean score, and where it is known by their share of right answers."""
    rng = random.Random(5)
    difficulty = [rng.gauss(0, 1) for _ in range(60)]
    rows: list[Generation] = []
    for cell, level in levels.items():
        for prompt, shared in enumerate(difficulty):
            scores = {"rm": level + shared + rng.gauss(0, 0.5)}
            if gold is not None:
                scores["gold"] = float(prompt < 60 * gold[cell])
            rows.append(replace(answer(cell, prompt), scores=scores))
    ended = [
        replace(outcome(cell, "base" if cell.name == "base" else "policy"), cost=Cost(10.0 + (cell.seed or 0), 1, 1))
        for cell in levels
    ]
    known = header(settings={"report": {"against": [*against]}} if against else None)
    return build_report(known, [*ended, *unfinished], [], rows)


def row_of(report: Report, method: CellId) -> LeaderboardRow:
    return next(row for row in report.leaderboard if row.method == method)


def test_gold_decides_the_order_where_every_row_has_it() -> None:
    judged = {BASE: 0.0, DPO: 3.0, KTO: 1.0}
    assert [row.label for row in answered(judged).leaderboard] == ["dpo", "kto", "base"]
    report = answered(judged, {BASE: 0.5, DPO: 0.4, KTO: 0.8})
    assert [(row.label, row.rank, row.ranked_by) for row in report.leaderboard] == [
        ("kto", 1, GOLD),
        ("base", 2, GOLD),
        ("dpo", 3, GOLD),
    ]


def test_equal_values_share_a_rank() -> None:
    report = answered({BASE: 0.0, DPO: 1.0, KTO: 1.0, SIMPO: 1.0}, dict.fromkeys((BASE, DPO, KTO), 0.5) | {SIMPO: 0.2})
    assert [row.rank for row in report.leaderboard] == [1, 1, 1, 4]


def test_a_method_is_the_mean_of_its_seeds_and_one_seed_has_its_interval() -> None:
    report = answered({BASE: 0.0, **{cell: 1.0 + 0.1 * (cell.seed or 0) for cell in seeds(DPO)}, KTO: 0.5})
    own = [one.metrics.judge_reward_mean.value for one in report.results if one.cell.method == DPO]
    row, base = row_of(report, DPO), row_of(report, BASE)
    known = [value for value in own if value is not None]
    assert (row.seeds, row.judge.n, row.level) == ([0, 1, 2], 3, "method")
    assert row.judge.mean == pytest.approx(statistics.mean(known))
    assert row.judge.sd == pytest.approx(statistics.stdev(known))
    assert (row.judge.low, row.judge.high) == (None, None)
    assert row.seconds.mean == 11.0
    alone = next(one for one in report.results if one.cell == BASE).metrics.judge_reward_mean
    assert (base.judge.sd, base.judge.low, base.judge.high) == (None, alone.low, alone.high)
    (between,) = [one.rate for one in report.policies.win_rates if (one.a, one.b, one.level) == (DPO, BASE, "method")]
    assert row.win_rate == between
    assert base.win_rate.value is None


def test_the_marks_are_the_claims() -> None:
    report = answered({BASE: 0.0, DPO: 2.0, KTO: 0.0}, {BASE: 0.6, DPO: 0.1, KTO: 0.6})
    assert (row_of(report, DPO).above_base, row_of(report, DPO).below_base) == ([JUDGE], [GOLD])
    assert (row_of(report, KTO).above_base, row_of(report, KTO).below_base) == ([], [])
    assert (row_of(report, BASE).above_base, row_of(report, BASE).below_base) == ([], [])
    assert row_of(report, DPO).level == "checkpoint"
    silent = leaderboard(report.results, [replace(one, decision="none") for one in report.claims], [])
    assert not any(row.above_base or row.below_base for row in silent)


def test_of_two_seeds_both_must_have_been_shown() -> None:
    both = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO, 2), 2.0)})
    assert (row_of(both, DPO).above_base, row_of(both, DPO).level) == ([JUDGE], "checkpoint")
    one = answered({BASE: 0.0, replace(DPO, seed=0): 2.0, replace(DPO, seed=1): 0.0})
    assert row_of(one, DPO).above_base == []


def test_three_seeds_are_marked_by_the_test_of_the_method() -> None:
    report = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO), 2.0)})
    assert (row_of(report, DPO).above_base, row_of(report, DPO).level) == ([JUDGE], "method")
    without = [replace(one, decision="none") for one in report.claims if one.level == "method"]
    assert leaderboard(report.results, without, [])[0].above_base == []


def test_the_side_of_the_base_does_not_matter() -> None:
    report = answered({BASE: 0.0, DPO: 2.0})
    mirrored: list[Comparison] = [turned(one) for one in report.comparisons]
    again = leaderboard(report.results, claims(report.results, mirrored), report.policies.win_rates)
    assert again == report.leaderboard


def test_cells_that_did_not_finish_are_counted_and_have_no_row_of_their_own() -> None:
    lost = [
        replace(outcome(replace(DPO, seed=2), "policy"), status="failed", reason="loss is NaN"),
        replace(outcome(KTO, "policy"), status="skipped", reason="no reward model"),
    ]
    report = answered({BASE: 0.0, **dict.fromkeys(seeds(DPO, 2), 1.0)}, unfinished=lost)
    assert [(row.label, row.unfinished_cells) for row in report.leaderboard] == [("dpo", 1), ("base", 0)]


def test_reward_models_have_one_of_their_own_and_a_base_alone_has_none() -> None:
    rm, poe, judge = CellId("rm"), CellId("poe_rm"), CellId("judge")
    rows = [
        replace(score(cell, pair, float(pair % 10 < right), 0.5), gold_choice=1 if pair % 10 < 5 else 2)
        for cell, right in ((rm, 9), (poe, 5), (judge, 10))
        for pair in range(60)
    ]
    report = build_report(header(), [outcome(cell, "reward") for cell in (rm, poe, judge)], rows, [])
    assert report.leaderboard == []
    assert [(row.label, str(row.ranked_by)) for row in report.reward_leaderboard] == [
        ("poe_rm", "accuracy_gold_choice"),
        ("rm", "accuracy_gold_choice"),
    ]
    assert report.reward_leaderboard[1].accuracy.mean == pytest.approx(0.9)
    assert answered({BASE: 0.0}).leaderboard == []
    assert build_report(header(), [], [], []).leaderboard == []


@pytest.mark.parametrize("name", ["assignment", "ppo", "smollm2", "overoptimisation"])
def test_a_report_from_before_there_was_one_has_it_when_it_is_read(name: str) -> None:
    report = read_report(PUBLISHED / name)
    assert {row.method for row in report.leaderboard} == {
        one.cell.method for one in report.results if one.kind != "reward"
    }


def test_labels_keep_what_varies() -> None:
    grid = [
        CellId("ppo", (("kl_coef", kl), ("batch_size", 8), ("reward", reward)))
        for kl in (0.02, 0.2)
        for reward in ("rm", "poe_rm")
    ]
    found = labels([BASE, replace(DPO, seed=1), *grid])
    assert list(found.values()) == [
        "base",
        "dpo",
        "ppo kl 0.02 · rm",
        "ppo kl 0.02 · poe_rm",
        "ppo kl 0.2 · rm",
        "ppo kl 0.2 · poe_rm",
    ]
    switched = [CellId("poe", (("noise", 1.0), ("expert", on))) for on in (True, False)]
    assert list(labels(switched).values()) == ["poe expert on", "poe expert off"]


def test_labels_that_would_be_the_same_are_the_full_names() -> None:
    alike = [CellId("ppo", (("reward", "1"),)), CellId("ppo", (("reward", 1),)), CellId("ppo", (("reward", "rm"),))]
    found = labels(alike)
    assert found[alike[0]] == str(alike[0])
    assert found[alike[2]] == "ppo rm"


def test_every_name_that_a_table_prints_stands_for_its_cells() -> None:
    low, high = (CellId("ppo", (("kl_coef", kl), ("reward", "rm")), seed) for kl, seed in ((0.02, 0), (0.2, 0)))
    cells = [low, replace(low, seed=1), high, replace(high, seed=1), CellId("dpo", seed=0), CellId("base")]
    assert called("ppo", cells) == cells[:4]
    assert called("ppo kl 0.02", cells) == called("ppo[kl_coef=0.02,reward=rm]", cells) == cells[:2]
    assert called("ppo[kl_coef=0.02,reward=rm]#1", cells) == [cells[1]]
    assert of_method("ppo[kl_coef=0.02,reward=rm]#1", cells) == []
    assert called("base", cells) == cells[-1:]
    assert called("ppo kl 0.3", cells) == []
    for name in names_of(cells):
        assert called(name, cells)


def test_a_label_names_its_method_in_a_comparison() -> None:
    first, second = (CellId("ppo", (("kl_coef", kl),)) for kl in (0.02, 0.2))
    report = answered({BASE: 0.0, first: 1.0, second: 0.5})
    assert members(report, "ppo kl 0.02") == {"checkpoint": {first}, "method": {first}}
    assert members(report, "ppo")["checkpoint"] == {first, second}


def test_every_rendering_has_the_same_table_and_opens_with_it(tmp_path: Path) -> None:
    report = answered({BASE: 0.0, **{cell: 1.0 + 0.1 * (cell.seed or 0) for cell in seeds(DPO)}})
    write_tables(tmp_path, report)
    with (tmp_path / "tables" / "leaderboard.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    own = row_of(report, DPO)
    assert [row["method"] for row in rows] == ["dpo", "base"]
    assert (rows[0]["judge"], rows[0]["judge sd"]) == (f"{own.judge.mean:.3f}", f"{own.judge.sd:.3f}")
    assert (rows[0]["win rate low"], rows[0]["vs base"]) == (f"{own.win_rate.low:.3f}", "judge↑")
    for text in (render(report), render_page(report, [], [])):
        assert f"{own.judge.mean:.3f} ±{own.judge.sd:.3f}" in text
        first = text.index("Leaderboard")
        assert text.index(report.summary[0][:40]) < first < text.index("The numbers behind it")
        assert first < text.index("Generations, judged")
