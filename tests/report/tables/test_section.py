from __future__ import annotations

from dataclasses import replace

from align_bench.records import CellId, Comparison, Estimate, MetricKey
from align_bench.report.tables.section import UNADJUSTED, MetricColumn, comparison_section, metric_section
from align_bench.report.tables.values import Spread
from align_bench.report.verdict import verdict

FOUND = Comparison(
    a=CellId("dpo"),
    b=CellId("base"),
    level="checkpoint",
    metric=MetricKey("accuracy"),
    unit="share",
    difference=0.1,
    low=0.01,
    high=0.2,
    bootstrap_low=-0.01,
    bootstrap_high=0.2,
    test="paired t",
    p=0.001,
    p_holm=0.04,
    p_wilcoxon=None,
    effect=0.2,
    margin=0.15,
    p_tost=None,
    p_tost_holm=0.06,
    n=60,
    prompts=60,
)


def test_verdict_follows_the_adjusted_p() -> None:
    assert verdict(FOUND) == "dpo checkpoint higher"
    assert verdict(replace(FOUND, difference=-0.1)) == "base checkpoint higher"
    assert verdict(replace(FOUND, p_holm=0.06)) == "inconclusive"
    assert verdict(replace(FOUND, p_holm=0.06, p_tost_holm=0.04)) == "equivalent"
    assert verdict(replace(FOUND, p_tost_holm=0.04)) == "dpo checkpoint higher"  # small, but shown
    assert verdict(replace(FOUND, p_holm=None)) == "dpo checkpoint higher"  # without a test, the interval decides
    assert verdict(replace(FOUND, p_holm=None, low=-0.01)) == "inconclusive"
    assert verdict(replace(FOUND, p_holm=None, low=None, high=None)) == "undefined"


def test_methods_are_called_higher_by_the_same_numbers_and_without_a_word_of_checkpoints() -> None:
    """Nothing but the test decides: the bootstrap beside it includes 0."""
    of_methods = replace(FOUND, level="method")
    assert verdict(of_methods) == "dpo higher"
    assert verdict(replace(of_methods, p_holm=0.06, p_tost_holm=0.04, margin=0.001)) == "equivalent"


def test_a_kept_decision_is_shown() -> None:
    assert verdict(replace(FOUND, decision="lower")) == "base checkpoint higher"


def test_a_comparison_lacks_the_columns_that_none_fills() -> None:
    section = comparison_section("t", [FOUND, replace(FOUND, p_wilcoxon=0.5)], [], chapter="more")
    headings = [column.heading for column in section.columns]
    assert headings[:4] == ["a − b", "metric", "diff", "95% interval"]
    assert "Wilcoxon p" in headings
    (row,) = comparison_section("t", [FOUND], [], chapter="more", who=None).texts()
    assert row == (
        *("accuracy", "+0.100", "[+0.010, +0.200]", "[-0.010, +0.200]", "paired t"),
        *("0.001", "0.040", "0.060", "+0.200", "60", "dpo checkpoint higher"),
    )


def test_metrics_without_any_value_have_no_column() -> None:
    columns: list[MetricColumn[tuple[Estimate, Estimate]]] = [
        MetricColumn("first", lambda both: both[0], Spread),
        MetricColumn("second", lambda both: both[1], Spread),
    ]
    nothing = Estimate(None)
    found = metric_section(
        "t", "of", [("a", (nothing, Estimate(0.5))), ("b", (nothing, nothing))], columns, [], chapter=""
    )
    assert [column.heading for column in found.columns] == ["of", "second"]
    assert found.texts() == [("a", "0.500"), ("b", "n/a")]
    assert not metric_section("t", "of", [("a", (nothing, nothing))], columns, [], chapter="").rows


def test_a_caption_says_the_n_of_each_column_that_rests_on_another() -> None:
    columns: list[MetricColumn[tuple[Estimate, Estimate, Estimate]]] = [
        MetricColumn("accuracy", lambda three: three[0], Spread),
        MetricColumn("gold", lambda three: three[1], Spread),
        MetricColumn("matched", lambda three: three[2], Spread),
    ]
    rows = [
        ("a", (Estimate(0.5, n=1000), Estimate(0.5, n=694), Estimate(0.5, n=83))),
        ("b", (Estimate(0.5, n=1000), Estimate(0.5, n=694), Estimate(0.5, n=90))),
        ("c", (Estimate(0.5, n=1000), Estimate(None, n=7), Estimate(0.5, n=83))),  # undefined: it rests on nothing
    ]
    said = "n differs: gold 694; matched 83 to 90."
    assert metric_section("t", "of", rows, columns, ["told"], chapter="", n=1000).captions == ["told", said]
    assert metric_section("t", "of", rows, columns, ["told"], chapter="").captions == ["told", f"n = 1000; {said}"]
    alike = [("a", (Estimate(0.5, n=9), Estimate(0.5, n=9), Estimate(0.5, n=9)))]
    assert metric_section("t", "of", alike, columns, [], chapter="").captions == ["n = 9."]
    assert metric_section("t", "of", alike, columns, [], chapter="", n=9).captions == []
    assert metric_section("t", "of", alike, columns, [], chapter="", n=10).captions == [
        "n differs: accuracy, gold, matched 9."
    ]


def test_what_n_counts_is_named_where_it_is_no_row() -> None:
    columns: list[MetricColumn[Estimate]] = [
        MetricColumn("words", lambda one: one, Spread),
        MetricColumn("distinct", lambda one: Estimate(one.value, n=99), Spread, counted="n-grams"),
    ]
    found = metric_section("t", "of", [("a", Estimate(0.5, n=9))], columns, [], chapter="")
    assert found.captions == ["n = 9; n differs: distinct 99 n-grams."]


def test_intervals_are_said_to_be_unadjusted_where_there_are_any() -> None:
    columns: list[MetricColumn[Estimate]] = [MetricColumn("accuracy", lambda one: one, Spread)]
    bare = metric_section("t", "of", [("a", Estimate(0.5, n=9))], columns, [], chapter="", n=9)
    assert bare.captions == []
    shown = metric_section("t", "of", [("a", Estimate(0.5, 0.4, 0.7, n=9))], columns, [], chapter="", n=9)
    assert shown.captions == [UNADJUSTED]
