"""The verdict in words, and the tests and ranks that it rests on."""

from __future__ import annotations

import html
import io
import random
import statistics
from typing import Any

import pytest
from rich.console import Console

from align_bench.records import Generation, Outcome
from align_bench.report.build import build_report
from align_bench.report.decision import turned
from align_bench.report.html import render_page
from align_bench.report.markdown import render
from align_bench.report.report_sections import report_sections
from align_bench.report.tables import comparison_tables
from align_bench.stats.paired import holm, paired_t


def cell(name: str, kind: Any = "policy") -> Outcome:
    method, _, seed = name.partition("#")
    return Outcome(name, method, kind, {}, int(seed or 0), "done")


def answers(name: str, scores: list[float], judge: str = "rm") -> list[Generation]:
    method, _, seed = name.partition("#")
    return [
        Generation(name, method, int(seed or 0), prompt, 0, "?", "Yes.", 2, True, {judge: score})
        for prompt, score in enumerate(scores)
    ]


def judged(levels: dict[str, float], noise: float = 1.0, prompts: int = 60, **header: Any) -> dict[str, Any]:
    """A report of policies whose judged rewards share the prompts' difficulty."""
    rng = random.Random(11)
    shared = [rng.gauss(0, 1) for _ in range(prompts)]
    outcomes = [cell(name, "base" if name == "base" else "policy") for name in levels]
    generations = [
        answer
        for name, level in levels.items()
        for answer in answers(name, [level + own + rng.gauss(0, noise) for own in shared])
    ]
    return build_report(header, outcomes, [], generations)


def found_in(report: dict[str, Any], a: str, b: str, level: str = "checkpoint") -> dict[str, Any]:
    key = {"a": a, "b": b, "level": level}
    return next(found for found in report["comparisons"] if key.items() <= found.items())


def test_one_seed_is_a_verdict_on_checkpoints() -> None:
    report = judged({"base": 0.0, "dpo": 1.5, "kto": 1.5})
    first, second, *rest = report["verdict"]
    assert first.startswith("Claims about checkpoints only: a claim about a method needs at least 3 seeds")
    assert "within ±0.1 standard deviations" in second
    assert rest[0].startswith("The judge's reward (judge_reward), checkpoints, 60 prompts: highest ")
    found = found_in(report, "dpo", "base")
    claim = f"dpo over base by {found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}], Holm p "
    assert claim in rest[1]
    assert rest[1].startswith("Higher on judge_reward: ")
    assert "kto over base" in rest[1]
    assert rest[2].startswith("Not told apart on judge_reward")
    assert "dpo and kto" in rest[2]
    assert len(rest) == 3


def test_three_seeds_are_a_verdict_on_methods() -> None:
    levels = {f"{method}#{seed}": level for method, level in (("dpo", 2.0), ("kto", 0.0)) for seed in range(3)}
    report = judged({"base": 0.0, **levels}, noise=0.3)
    assert report["verdict"][0].startswith("Claims about methods: dpo, kto (3 or more seeds each).")
    (claims,) = [line for line in report["verdict"] if line.startswith("Higher on")]
    assert "dpo over kto by" in claims
    assert "#" not in claims
    assert not any("checkpoints only" in line for line in report["verdict"])


def test_a_difference_of_seeds_must_hold_over_prompts_too() -> None:
    """Seeds that agree on a handful of prompts say nothing of other prompts."""
    base = [0.0] * 12
    lucky = [6.0] + [0.0] * 11
    generations = answers("base", base)
    for seed in range(3):
        generations += answers(f"dpo#{seed}", [score + 0.01 * seed for score in lucky])
    outcomes = [cell("base", "base"), *(cell(f"dpo#{seed}") for seed in range(3))]
    report = build_report({}, outcomes, [], generations)
    found = found_in(report, "dpo", "base", "method")
    assert found["p_holm"] < 0.001
    assert found["bootstrap_low"] <= 0.011
    assert found["bootstrap_high"] > 1
    shown = any(line.startswith("Higher on judge_reward: dpo over base") for line in report["verdict"])
    assert shown == (found["bootstrap_low"] > 0)


def test_equivalence_can_be_claimed_where_the_suite_sets_its_margin() -> None:
    levels = {"base": 0.0, "dpo": 0.0, "kto": 3.0}
    loose = {"suite": {"name": "x", "settings": {"report": {"equivalence_dz": 0.8}}}}
    report = judged(levels, prompts=200, **loose)
    found = found_in(report, "dpo", "base")
    assert found["p_tost_holm"] < 0.05
    (line,) = [line for line in report["verdict"] if line.startswith("Equivalent on judge_reward (TOST")]
    assert "dpo and base" in line
    assert "within ±0.8 standard deviations" in report["verdict"][1]
    strict = judged(levels, prompts=200)
    assert not any(line.startswith("Equivalent on") for line in strict["verdict"])


def test_equivalence_margin_and_its_family() -> None:
    report = judged({"base": 0.0, "dpo": 0.5, "kto": 0.2})
    found = found_in(report, "dpo", "base")
    assert found["margin"] == pytest.approx(0.1 * found["difference"] / found["effect"])
    assert (found["unit"], found["n"], found["prompts"]) == ("reward", 60, 60)
    every = report["comparisons"]
    assert [one["p_tost_holm"] for one in every] == holm([one["p_tost"] for one in every])


def pairs(name: str, right: list[bool], per_prompt: int) -> list[dict[str, Any]]:
    return [
        {
            "cell": name,
            "pair": pair,
            "prompt_id": pair - pair % per_prompt,
            "chosen_reward": float(is_right),
            "rejected_reward": 0.5,
        }
        for pair, is_right in enumerate(right)
    ]


def test_pairs_of_one_prompt_are_a_cluster() -> None:
    rng = random.Random(0)
    by_prompt = [rng.random() < 0.8 for _ in range(30)]
    a = [own for own in by_prompt for _ in range(4)]
    b = [rng.random() < 0.5 for _ in a]
    rows = pairs("rm", a, 4) + pairs("poe", b, 4)
    report = build_report({}, [cell("rm", "reward"), cell("poe", "reward")], rows, [])
    found = found_in(report, "rm", "poe")
    assert found["test"] == "clustered t"
    assert (found["n"], found["prompts"]) == (120, 30)
    expected = paired_t(list(map(float, a)), list(map(float, b)), [pair // 4 for pair in range(120)])
    assert (found["p"], found["low"]) == (expected.p, expected.low)
    assert report["detectable"]["pairs"]["prompts"] == 30
    captions = " ".join(caption for section in report_sections(report) for caption in section.captions)
    assert "n = 120 pairs of 30 prompts" in captions
    alone = build_report({}, [cell("rm", "reward"), cell("poe", "reward")], pairs("rm", a, 1) + pairs("poe", b, 1), [])
    assert found_in(alone, "rm", "poe")["test"] == "exact McNemar"


def test_ranks_and_friedman_of_all_methods() -> None:
    report = judged({"base": 0.0, "dpo": 5.0, "kto": 2.5}, noise=0.1)
    (ranking,) = report["rankings"]
    assert [(row["name"], row["rank"], row["low"], row["high"]) for row in ranking["methods"]] == [
        ("dpo", 1, 1, 1),
        ("kto", 2, 2, 2),
        ("base", 3, 3, 3),
    ]
    assert (ranking["level"], ranking["n"], ranking["friedman"]["n"]) == ("checkpoint", 60, 60)
    assert ranking["friedman"]["p"] == pytest.approx(2.7182818284590452**-60, rel=1e-6)  # χ²_2 = 120: e^(−120/2)
    table = next(section for section in report_sections(report) if section.title == "Ranks of policies")
    assert [tuple(row) for row in table.rows] == [("dpo", "1 [1, 1]"), ("kto", "2 [2, 2]"), ("base", "3 [3, 3]")]


def test_every_table_of_results_says_what_it_could_have_shown() -> None:
    levels = {f"{method}#{seed}": 0.1 * seed for method in ("dpo", "kto", "ipo") for seed in range(3)}
    report = judged({"base": 0.0, **levels})
    silent = {"Cost", "Keywords", "Without a result"}
    for section in report_sections(report):
        told = any("smallest detectable" in caption for caption in section.captions)
        assert told or section.title in silent, section.title
    methods = next(section for section in report_sections(report) if section.title == "Methods, over their seeds")
    assert any(
        caption.startswith("n = 3 seeds; smallest detectable difference 3.071 ×") for caption in methods.captions
    )


def test_turned_mirrors_every_bound() -> None:
    found = found_in(judged({"base": 0.0, "dpo": 1.0}), "dpo", "base")
    mirrored = turned(found)
    assert (mirrored["a"], mirrored["b"]) == ("base", "dpo")
    assert (mirrored["low"], mirrored["high"]) == (-found["high"], -found["low"])
    assert (mirrored["bootstrap_low"], mirrored["bootstrap_high"]) == (
        -found["bootstrap_high"],
        -found["bootstrap_low"],
    )
    assert turned(mirrored) == found


def test_wilcoxon_stands_beside_the_paired_t_and_bca_beside_its_interval() -> None:
    found = found_in(judged({"base": 0.0, "dpo": 1.0}), "dpo", "base")
    assert found["p_wilcoxon"] < 0.01
    assert found["bootstrap_low"] == pytest.approx(found["low"], abs=0.1)
    assert found["bootstrap_high"] == pytest.approx(found["high"], abs=0.1)


def test_no_more_pairs_are_named_than_a_reader_takes_in() -> None:
    report = judged({"base": 0.0, **{f"m{k}": float(k) for k in range(1, 8)}}, noise=0.1)
    (line,) = [line for line in report["verdict"] if line.startswith("Higher on")]
    assert line.count(" over ") == 6
    assert line.endswith("; and 22 more pairs.")


def test_every_rendering_begins_with_the_same_verdict() -> None:
    report = judged({"base": 0.0, "dpo": 1.5}, suite={"name": "demo"})
    console = Console(file=io.StringIO(), width=10_000)
    for part in comparison_tables(report):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    renderings = [console.file.getvalue(), render(report), html.unescape(render_page(report, [], []))]
    for text in renderings:
        places = [text.index(sentence.split(":")[0]) for sentence in report["verdict"]]
        assert places == sorted(places)
        assert places[-1] < text.index("Generations, judged")


def test_a_judge_is_no_method_of_the_verdict() -> None:
    rng = random.Random(0)
    names = ["judge", *(f"{method}#{seed}" for method in ("rm", "poe") for seed in range(3))]
    rows = [row for name in names for row in pairs(name, [rng.random() < 0.7 for _ in range(40)], 1)]
    report = build_report({}, [cell(name, "reward") for name in names], rows, [])
    (ranking,) = report["rankings"]
    assert (ranking["level"], {row["name"] for row in ranking["methods"]}) == ("method", {"rm", "poe"})
    assert report["verdict"][0].startswith("Claims about methods: rm, poe")
    assert not any("judge" in line for line in report["verdict"])
    assert any(found["a"] == "judge" for found in report["comparisons"])


def test_nothing_to_compare_is_no_verdict() -> None:
    assert build_report({}, [], [], [])["verdict"] == []
    assert judged({"base": 0.0})["verdict"] == []


def test_method_means_are_over_common_prompts() -> None:
    levels = {"base": 0.0, "dpo#0": 1.0, "dpo#1": 1.2, "dpo#2": 0.9}
    report = judged(levels)
    found = found_in(report, "dpo", "base", "method")
    checkpoint = [found_in(report, f"dpo#{seed}", "base")["difference"] for seed in range(3)]
    assert found["difference"] == pytest.approx(statistics.mean(checkpoint))
    assert (found["n"], found["prompts"]) == (3, 60)
