from __future__ import annotations

import doctest
import io
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console, RenderableType

from align_bench.errors import MissingResultError
from align_bench.report import formatting, markdown, naming
from align_bench.report.report_sections import against_base, pairwise, report_sections
from align_bench.report.section import verdict
from align_bench.report.tables import HIDDEN, _Cell, comparison_tables, pairwise_table, section_table


def shown(*renderables: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("module", [markdown, naming, formatting])
def test_examples_in_docstrings(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_every_section_is_printed_within_a_hundred_columns(run: Any) -> None:
    text = shown(*comparison_tables(run.report()))
    titles = ["Reward models on", "Policies on", "Generations, judged", "Policies against the base", "Cost", "Notes"]
    positions = [text.index(title) for title in [*titles[:4], "Without a result"]]
    assert positions == sorted(positions)
    assert all(title in text for title in titles)
    assert max(map(len, text.splitlines())) <= 100


def test_captions_say_what_the_numbers_are(run: Any) -> None:
    text = " ".join(shown(*comparison_tables(run.report()), width=400).split())
    assert "β·ρ (dpo)" in text
    assert "n = 60 pairs; smallest detectable dz" in text
    assert "Preferring the longer answer: accuracy 0." in text
    assert "kto failed loss is NaN" in text
    assert "ppo skipped its reward model failed" in text


def tuning(hostile: str) -> dict[str, Any]:
    """The block of a suite with `tune`: two methods, one of them without ranges."""
    cost = {"seconds": 90.0, "tokens": 54_321, "peak_bytes": 2**20}
    accuracy = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 100}
    undefined = {"value": None, "low": None, "high": None, "n": 0}
    trials = [
        {"cell": "dpo trial 0", "parameters": {"beta": 0.1, "kind": hostile}, "status": "done", "reason": None},
        {"cell": "dpo trial 1", "parameters": {"beta": 0.2, "kind": hostile}, "status": "failed", "reason": hostile},
    ]
    both = [{**trials[0], "accuracy": accuracy, "cost": cost}, {**trials[1], "accuracy": undefined, "cost": None}]
    return {
        "settings": {"trials": 2, "search": "grid", "seed": 3, "holdout": 0.1},
        "held_out": {"pairs": 100, "prompts": 99},
        "base": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100},
        "methods": {
            "dpo": {"trials": both, "kept": 0, "cost": cost},
            hostile: {"trials": [], "kept": None, "cost": None},
        },
        "shared": None,
        "cost": cost,
    }


def test_trials_are_shown_with_their_budget(run: Any) -> None:
    report = {**run.report(), "tuning": tuning(run.outcomes[5].cell)}
    narrow = shown(*comparison_tables(report))
    assert max(map(len, narrow.splitlines())) <= 100
    found = next(section for section in report_sections(report) if section.title.startswith("Trials"))
    assert [tuple(row) for row in found.rows] == [
        ("dpo", "0", "beta=0.1", "0.750 ±0.050", "kept"),
        ("dpo", "1", "beta=0.2", "n/a", ""),
    ]
    captions = " ".join(found.captions)
    assert "2 trials (grid search, seed 3)" in captions
    assert "without 100 pairs of 99 prompts" in captions
    assert "The base, by the measure of policies: 0.500 ±0.100." in captions
    assert "nothing tuned: [red]x[/red]" in captions
    assert "1 min 30 s, 54,321 tokens" in captions
    text = markdown.render(report)
    assert "| trials of dpo | 1 min 30 s | 54,321 | 1.0 MiB |" in text
    assert "| dpo trial 1 | failed | " in text
    assert "<script>" not in text


def test_hostile_text_stays_literal_in_tables(run: Any) -> None:
    text = shown(*comparison_tables(run.report()), width=400)
    assert "[red]x[/red]<script>alert(1)</script>|`a|b` \\x1b[2J" in text
    assert "\x1b[2J" not in text
    assert text.count("[red]x[/red]") == text.count("<script>")


def test_hostile_text_stays_literal_in_markdown(run: Any) -> None:
    text = markdown.render(run.report())
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\\[red\\]x\\[/red\\]&lt;script&gt;alert(1)&lt;/script&gt;\\|\\`a\\|b\\`" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_markdown_says_what_it_was_made_from(run: Any) -> None:
    text = markdown.render(run.report())
    assert "```\nalign-bench run suites/demo.yaml\n```" in text
    assert "- data.val.counts.kept: 60" in text
    assert "- judge.name: rm" in text
    assert "- environment.packages: scipy, rich" in text
    assert "| 12 min 34 s | 12,345 | 3.0 GiB |" in text
    titles = [section.title for section in report_sections(run.report())]
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "Verdict",
        *titles,
        "Notes",
        "Environment",
    ]


def test_a_command_cannot_leave_its_code_block() -> None:
    report = {"results": [], "comparisons": [], "baselines": {"longer_wins": {"value": None}}, "detectable": {}}
    report |= {"course": {"scores": [], "answers": []}, "keywords": {"segmentation": "", "lists": []}, "pareto": []}
    text = markdown.render({**report, "notes": [], "command": "x ```\n# y"})
    assert "````\nx ``` # y\n````" in text


def test_numbers_in_the_tables_are_those_of_the_report(run: Any) -> None:
    report = run.report()
    metrics = next(found for found in report["results"] if found["cell"] == "dpo")["metrics"]
    half = (metrics["accuracy"]["high"] - metrics["accuracy"]["low"]) / 2
    text = shown(*comparison_tables(report), width=200)
    assert f"{metrics['accuracy']['value']:.3f} ±{half:.3f}" in text
    assert f"{metrics['margin']['value']:.3f}" in text


def test_against_the_base_holds_every_policy(run: Any) -> None:
    rows = against_base(run.report()).rows
    assert len(rows) == 3 * 4
    assert {row[0] for row in rows} > {"dpo", "simpo"}
    assert "base" not in {row[0] for row in rows}


def test_pairwise_turns_with_its_arguments(run: Any) -> None:
    report = run.report()
    there, back = pairwise(report, "dpo", "simpo"), pairwise(report, "simpo", "dpo")
    assert (there.title, back.title) == ("dpo against simpo", "simpo against dpo")
    assert [row[0] for row in there.rows] == ["accuracy", "judge_reward", "judge_reward[other]", "gold_accuracy"]
    for row, turned in zip(there.rows, back.rows, strict=True):
        assert float(row[1]) == -float(turned[1])
        for column in (2, 3):
            bounds, mirrored = (re.findall(r"[+-][\d.]+", text) for text in (row[column], turned[column]))
            assert [float(bound) for bound in bounds] == [-float(bound) for bound in reversed(mirrored)]
        assert row[4:9] == turned[4:9]
        assert row[10] == turned[10]
    for width, test_shown in ((80, False), (200, True)):
        text = shown(pairwise_table(report, "dpo", "simpo"), width=width)
        assert ("exact McNemar" in text) == test_shown
        assert "verdict" in text
        assert max(map(len, text.splitlines())) <= width


def test_no_column_is_lost_in_a_narrow_terminal(run: Any) -> None:
    report = run.report()
    for section in report_sections(report):
        narrow, wide = (shown(section_table(section, hidden=HIDDEN), width=width) for width in (80, 400))
        headings = [column.heading for column in section.columns]
        assert all(word in wide for heading in headings for word in heading.split())
        assert all(word in narrow for heading in headings if heading not in HIDDEN for word in heading.split())


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (29, ["ppo[kl_weight=0.05,reward=rm]"]),
        (20, ["ppo[kl_weight=0.05,", "reward=rm]"]),
        (15, ["ppo[kl_weight=", "0.05,reward=rm]"]),
        (11, ["ppo", "[kl_weight=", "0.05,", "reward=rm]"]),
        (6, ["ppo", "[kl_we", "ight=", "0.05,", "reward", "=", "rm]"]),
    ],
)
def test_a_long_name_breaks_where_it_is_read(width: int, lines: list[str]) -> None:
    found = _Cell("ppo[kl_weight=0.05,reward=rm]").wrap(Console(width=80), width, overflow="fold")
    assert [line.plain for line in found] == lines


def test_other_words_wrap_as_they_do() -> None:
    found = _Cell("dpo[beta=0.1] over the base").wrap(Console(width=80), 14, overflow="fold")
    assert [line.plain.rstrip() for line in found] == ["dpo[beta=0.1]", "over the base"]


def test_pairwise_within_one_method(run: Any) -> None:
    found = pairwise(run.report(), "rm", "rm")
    assert found.title == "rm against rm"
    assert [row[0] for row in found.rows] == [
        "accuracy",
        "accuracy_right_shorter",
        "length_correlation_given_label",
        "length_correlation_given_gold",
    ]


def test_pairwise_of_reward_model_and_policy_says_why_it_is_empty(run: Any) -> None:
    section = pairwise(run.report(), "rm", "dpo")
    assert not section.rows
    assert "only among themselves" in section.captions[0]


def test_pairwise_names_what_it_cannot_find(run: Any) -> None:
    with pytest.raises(MissingResultError, match="Did you mean dpo"):
        pairwise_table(run.report(), "dop", "simpo")
    with pytest.raises(MissingResultError, match="its reward model failed"):
        pairwise_table(run.report(), "dpo", "ppo")


def test_verdict_follows_the_adjusted_p() -> None:
    found = {
        "a": "dpo",
        "b": "base",
        "level": "checkpoint",
        "difference": 0.1,
        "low": 0.01,
        "high": 0.2,
        "bootstrap_low": -0.01,
        "bootstrap_high": 0.2,
        "p": 0.001,
        "p_holm": 0.04,
        "p_tost_holm": 0.06,
        "margin": 0.15,
    }
    assert verdict(found) == "dpo higher"
    assert verdict({**found, "difference": -0.1}) == "base higher"
    assert verdict({**found, "p_holm": 0.06}) == "none shown"
    assert verdict({**found, "p_holm": 0.06, "p_tost_holm": 0.04}) == "equivalent"
    assert verdict({**found, "p_tost_holm": 0.04}) == "dpo higher"  # small, but shown
    assert verdict({**found, "level": "method"}) == "none shown"  # the bootstrap over prompts includes 0
    assert verdict({**found, "level": "method", "bootstrap_low": 0.001}) == "dpo higher"
    alike = {**found, "level": "method", "p_holm": 0.06, "p_tost_holm": 0.04}
    assert verdict(alike) == "none shown"  # the bootstrap over prompts leaves the margin
    assert verdict({**alike, "margin": 0.21}) == "equivalent"
    assert verdict({**found, "p_holm": None}) == "dpo higher"  # an interval without a test decides by itself
    assert verdict({**found, "p_holm": None, "low": -0.01}) == "none shown"
    assert verdict({**found, "p_holm": None, "low": None, "high": None}) == "undefined"


def test_tables_start_without_the_heavy_libraries() -> None:
    heavy = {"numpy", "scipy", "pandas", "statsmodels", "pyarrow", "torch", "transformers"}
    code = (
        f"import sys, align_bench.report.tables, align_bench.report.markdown; print(sorted({heavy} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_costs_show_operations_where_they_were_counted(run: Any) -> None:
    report = run.report()

    def table() -> Any:
        return next(section for section in report_sections(report) if section.title == "Cost")

    headings = [column.heading for column in table().columns]
    assert headings == ["cell", "wall time", "tokens", "peak memory", "TFLOP", "of peak", "trained", "Pareto"]
    row = next(row for row in table().rows if row[0] == "dpo")
    assert row[1:-2] == ("12 min 34 s", "12,345", "3.0 GiB", "2.5", "12.5%")
    for result in report["results"]:  # as in a report of an earlier version
        for name in ("flops", "utilisation"):
            (result["cost"] or {}).pop(name, None)
    assert [column.heading for column in table().columns] == [*headings[:4], *headings[6:]]
    assert not any("TFLOP" in caption for caption in table().captions)
