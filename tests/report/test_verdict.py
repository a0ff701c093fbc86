"""The verdict in words, and the tests and ranks that it rests on."""

from __future__ import annotations

import html
import io
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from align_bench.records import CellId, Comparison, Generation, Level
from align_bench.report.build import build_report
from align_bench.report.decision import turned
from align_bench.report.render.html import render_page
from align_bench.report.render.markdown import render
from align_bench.report.render.terminal import comparison_tables
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Header, Report
from align_bench.report.tables import report_sections
from align_bench.stats.paired import holm, paired_t
from tests.report.conftest import BASE, DPO, KTO, answer, header, outcome, score, score_rows

REWARD, POE = CellId("rm"), CellId("poe")


def seeds(*names: str, count: int = 3) -> list[CellId]:
    return [CellId(name, seed=seed) for name in names for seed in range(count)]


def answers(cell: CellId, scores: Sequence[float]) -> list[Generation]:
    return [answer(cell, prompt, score) for prompt, score in enumerate(scores)]


def judged(
    levels: Mapping[CellId, float], noise: float = 1.0, prompts: int = 60, known: Header | None = None
) -> Report:
    """A report of policies whose judged rewards share the prompts' difficulty."""
    rng = random.Random(11)
    shared = [rng.gauss(0, 1) for _ in range(prompts)]
    outcomes = [outcome(cell, "base" if cell == BASE else "policy") for cell in levels]
    generations = [
        own
        for cell, level in levels.items()
        for own in answers(cell, [level + difficulty + rng.gauss(0, noise) for difficulty in shared])
    ]
    return build_report(known or header(), outcomes, [], generations)


def found_in(report: Report, a: CellId, b: CellId, level: Level = "checkpoint") -> Comparison:
    return next(found for found in report.comparisons if (found.a, found.b, found.level) == (a, b, level))


def known(number: float | None) -> float:
    assert number is not None
    return number


def test_a_method_of_two_seeds_is_no_checkpoint() -> None:
    levels = {BASE: 0.0} | dict.fromkeys(seeds("dpo", count=2), 1.5)
    report = judged(levels)
    assert any(": highest mean over checkpoints dpo (" in line for line in report.verdict)
    assert any(": highest checkpoint base (" in line for line in judged(levels | {BASE: 9.0}).verdict)


def test_one_seed_is_a_verdict_on_checkpoints() -> None:
    report = judged({BASE: 0.0, DPO: 1.5, KTO: 1.5})
    first, seeds, second, *rest = report.verdict
    assert seeds.startswith("What another seed would change is unknown")
    assert "about three in four suites of one seed show some difference" in seeds
    assert first.startswith("Claims about checkpoints only: a claim about a method needs at least 3 seeds")
    assert first.endswith("These may not hold under another seed.")
    assert "within ±0.1 standard deviations" in second
    assert rest[0].startswith("The judge's reward (judge_reward), checkpoints, 60 prompts: highest checkpoint ")
    found = found_in(report, DPO, BASE)
    assert f"dpo over base by {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], Holm p " in rest[1]
    assert rest[1].startswith("Higher on judge_reward, these checkpoints (seed 0): ")
    assert "kto over base" in rest[1]
    assert rest[2].startswith("Inconclusive on judge_reward, these checkpoints (seed 0) (Holm p from ")
    assert "dpo and kto" in rest[2]
    assert len(rest) == 3


def test_three_seeds_are_a_verdict_on_methods() -> None:
    levels = {cell: 2.0 if cell.method == DPO else 0.0 for cell in seeds("dpo", "kto")}
    report = judged({BASE: 0.0, **levels}, noise=0.3)
    assert report.verdict[0].startswith("Claims about methods: dpo, kto (3 or more seeds each).")
    (claims,) = [line for line in report.verdict if line.startswith("Higher on")]
    assert claims.startswith("Higher on judge_reward: ")
    assert "dpo over kto by" in claims
    assert "#" not in claims
    assert not any("checkpoints only" in line for line in report.verdict)


def test_a_difference_of_seeds_must_hold_over_prompts_too() -> None:
    """Seeds that agree on a handful of prompts say nothing of other prompts."""
    lucky = [6.0] + [0.0] * 11
    generations = answers(BASE, [0.0] * 12)
    for seed, cell in enumerate(seeds("dpo")):
        generations += answers(cell, [score + 0.01 * seed for score in lucky])
    outcomes = [outcome(BASE, "base"), *(outcome(cell, "policy") for cell in seeds("dpo"))]
    report = build_report(header(), outcomes, [], generations)
    found = found_in(report, DPO, BASE, "method")
    assert known(found.p_holm) > 0.3  # over seeds alone it is below 0.001
    assert known(found.low) < 0 < known(found.difference) < 1 < known(found.high)
    assert found.decision == "none"
    assert not any(line.startswith("Higher on") for line in report.verdict)


def test_equivalence_can_be_claimed_where_the_suite_sets_its_margin() -> None:
    levels = {BASE: 0.0, DPO: 0.0, KTO: 3.0}
    report = judged(levels, prompts=200, known=header(settings={"report": {"equivalence_dz": 0.8}}))
    found = found_in(report, DPO, BASE)
    assert known(found.p_tost_holm) < 0.05
    (line,) = [line for line in report.verdict if line.startswith("Equivalent on judge_reward, these checkpoints")]
    assert "dpo and base" in line
    assert "within ±0.8 standard deviations" in report.verdict[2]
    strict = judged(levels, prompts=200)
    assert not any(line.startswith("Equivalent on") for line in strict.verdict)


def test_equivalence_margin_and_its_family() -> None:
    report = judged({BASE: 0.0, DPO: 0.5, KTO: 0.2})
    found = found_in(report, DPO, BASE)
    assert found.margin == pytest.approx(0.1 * known(found.difference) / known(found.effect))
    assert (found.unit, found.n, found.prompts) == ("reward", 60, 60)
    assert [one.p_tost_holm for one in report.comparisons] == holm([one.p_tost for one in report.comparisons])


def pairs(cell: CellId, right: Sequence[bool], per_prompt: int) -> list[ScoreRow]:
    return [
        replace(score(cell, pair, float(is_right), 0.5), prompt_id=pair - pair % per_prompt)
        for pair, is_right in enumerate(right)
    ]


def test_pairs_of_one_prompt_are_a_cluster() -> None:
    rng = random.Random(0)
    by_prompt = [rng.random() < 0.8 for _ in range(30)]
    a = [own for own in by_prompt for _ in range(4)]
    b = [rng.random() < 0.5 for _ in a]
    outcomes = [outcome(REWARD, "reward"), outcome(POE, "reward")]
    report = build_report(header(), outcomes, pairs(REWARD, a, 4) + pairs(POE, b, 4), [])
    found = found_in(report, REWARD, POE)
    assert found.test == "clustered t"
    assert (found.n, found.prompts) == (120, 30)
    expected = paired_t(list(map(float, a)), list(map(float, b)), [pair // 4 for pair in range(120)])
    assert (found.p, found.low) == (expected.p, expected.low)
    assert report.detectable.pairs is not None
    assert report.detectable.pairs.prompts == 30
    captions = " ".join(caption for section in report_sections(report) for caption in section.captions)
    assert "n = 120 pairs of 30 prompts" in captions
    alone = build_report(header(), outcomes, pairs(REWARD, a, 1) + pairs(POE, b, 1), [])
    assert found_in(alone, REWARD, POE).test == "exact McNemar, paired t"


def test_ranks_and_friedman_of_all_methods() -> None:
    report = judged({BASE: 0.0, DPO: 5.0, KTO: 2.5}, noise=0.1)
    (ranking,) = report.rankings
    assert [(row.method, row.rank, row.low, row.high) for row in ranking.methods] == [
        (DPO, 1, 1, 1),
        (KTO, 2, 2, 2),
        (BASE, 3, 3, 3),
    ]
    assert (ranking.level, ranking.n, ranking.friedman.n) == ("checkpoint", 60, 60)
    assert ranking.friedman.p == pytest.approx(2.7182818284590452**-60, rel=1e-6)  # χ²_2 = 120: e^(−120/2)
    table = next(section for section in report_sections(report) if section.title == "Ranks of policies")
    assert table.texts() == [("dpo", "1 [1, 1]"), ("kto", "2 [2, 2]"), ("base", "3 [3, 3]")]


def test_what_could_have_been_shown_is_said_once_a_page() -> None:
    levels = {cell: 0.1 * (cell.seed or 0) for cell in seeds("dpo", "kto", "ipo")}
    report = judged({BASE: 0.0, **levels})
    captions = [caption for section in report_sections(report) for caption in section.captions]
    assert not any("detectable" in caption for caption in captions)
    assert sum(caption == "n = 60 prompts." for caption in captions) > 2
    assert "n = 3 seeds." in captions
    (prompts, seeds_) = [note for note in report.notes if note.startswith("Minimum detectable")]
    assert prompts.startswith("Minimum detectable effect with 60 prompts at 80% power: dz ")
    assert seeds_.startswith("Minimum detectable difference between methods of 3 seeds at 80% power: 3.071 ×")
    for text in (render(report), html.unescape(render_page(report, [], []))):
        assert text.count("Minimum detectable") == 2


def test_no_policy_is_ranked_by_its_own_reward() -> None:
    rng = random.Random(3)
    cells = [BASE, *seeds("dpo", "kto")]
    outcomes = [outcome(cell, "base" if cell == BASE else "policy") for cell in cells]
    rows = [row for done in outcomes for row in score_rows(done, 0.5, 40, rng)]
    report = build_report(header(), outcomes, rows, [])
    names = {"accuracy_logratio", "accuracy_logp_mean"}
    assert {one.metric.name for one in report.comparisons} == names
    assert {one.metric.name for one in report.claims} == names
    assert {one.metric.name for one in report.rankings} == names
    assert [one.metric for one in report.pareto] == []  # without a time
    ratio = next(one for one in report.rankings if one.metric.name == "accuracy_logratio")
    assert {row.method for row in ratio.methods} == {DPO, KTO}  # the base has none
    found = found_in(report, DPO, KTO, "method")
    own = {one.cell: one.metrics.accuracy_logratio.value for one in report.results}
    means = [statistics.mean(known(own[cell]) for cell in seeds(name)) for name in ("dpo", "kto")]
    assert found.difference == pytest.approx(means[0] - means[1])


def test_turned_mirrors_every_bound() -> None:
    found = found_in(judged({BASE: 0.0, DPO: 1.0}), DPO, BASE)
    mirrored = turned(found)
    assert (mirrored.a, mirrored.b) == (BASE, DPO)
    assert (mirrored.difference, mirrored.effect) == (-known(found.difference), -known(found.effect))
    assert (mirrored.low, mirrored.high) == (-known(found.high), -known(found.low))
    assert (mirrored.bootstrap_low, mirrored.bootstrap_high) == (
        -known(found.bootstrap_high),
        -known(found.bootstrap_low),
    )
    assert turned(mirrored) == found


def test_wilcoxon_stands_beside_the_paired_t_and_bca_beside_its_interval() -> None:
    found = found_in(judged({BASE: 0.0, DPO: 1.0}), DPO, BASE)
    assert known(found.p_wilcoxon) < 0.01
    assert found.bootstrap_low == pytest.approx(found.low, abs=0.1)
    assert found.bootstrap_high == pytest.approx(found.high, abs=0.1)


def test_no_more_pairs_are_named_than_a_reader_takes_in() -> None:
    report = judged({BASE: 0.0, **{CellId(f"m{k}"): float(k) for k in range(1, 8)}}, noise=0.1)
    (line,) = [line for line in report.verdict if line.startswith("Higher on")]
    assert line.count(" over ") == 6
    assert line.endswith("; and 22 more pairs.")


def test_every_rendering_begins_with_the_same_verdict() -> None:
    report = judged({BASE: 0.0, DPO: 1.5})
    console = Console(file=io.StringIO(), width=10_000)
    for part in comparison_tables(report):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    renderings = [console.file.getvalue(), render(report), html.unescape(render_page(report, [], []))]
    for text in renderings:
        places = [text.index(sentence.split(":")[0]) for sentence in report.verdict]
        assert places == sorted(places)
        assert places[-1] < text.index("Generations, judged")


def test_a_judge_is_no_method_of_the_verdict() -> None:
    rng = random.Random(0)
    judge = CellId("judge")
    cells = [judge, *seeds("rm", "poe")]
    rows = [row for cell in cells for row in pairs(cell, [rng.random() < 0.7 for _ in range(40)], 1)]
    report = build_report(header(), [outcome(cell, "reward") for cell in cells], rows, [])
    (ranking,) = report.rankings
    assert (ranking.level, {row.method for row in ranking.methods}) == ("method", {REWARD, POE})
    first = next(line for line in report.verdict if not line.startswith("Alarm, "))
    assert first.startswith("Claims about methods: rm, poe")
    *of_methods, beside_longer = report.verdict
    assert not any("judge" in line for line in of_methods)
    assert beside_longer.startswith("Preferring the longer answer is right on ")
    assert not any(judge in (found.a, found.b) for found in report.comparisons)


def test_nothing_to_compare_is_no_verdict() -> None:
    assert build_report(header(), [], [], []).verdict == []
    assert judged({BASE: 0.0}).verdict == []


def test_method_means_are_over_common_prompts() -> None:
    report = judged({BASE: 0.0, **dict(zip(seeds("dpo"), (1.0, 1.2, 0.9), strict=True))})
    found = found_in(report, DPO, BASE, "method")
    checkpoint = [known(found_in(report, cell, BASE).difference) for cell in seeds("dpo")]
    assert found.difference == pytest.approx(statistics.mean(checkpoint))
    assert (found.n, found.prompts) == (3, 60)
