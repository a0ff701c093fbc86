"""A report's numbers are those that its rows say, by code that shares nothing with the product."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.recomputed.ledger import Leaf, Ledger, pattern, shown
from tests.recomputed.ledger import Path as Place
from tests.recomputed.numbers import GIVEN, found_in, recomputed, unchecked, unused
from tests.recomputed.rich_suite import rich_suite

HERE = Path(__file__).parent
# What makes rows and a report of them, and this test; all else reads the files of a folder.
OF_THE_PRODUCT = {"rich_suite.py", "test_recomputed.py"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_bench.report.figures.DRAWN", ())  # figures take seconds, and no number is in one alone
        return rich_suite().write(tmp_path_factory.mktemp("rich") / "report")


@pytest.fixture(scope="module")
def found(folder: Path) -> Ledger:
    return found_in(folder)


def wrong(folder: Path, found: Ledger) -> list[str]:
    """The places where `report.json` says something else than its rows."""
    return [shown(one.path) for one in recomputed(folder, found) if not one.agrees]


def test_nothing_of_the_product_is_imported() -> None:
    for path in HERE.glob("*.py"):
        if path.name in OF_THE_PRODUCT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "align_bench"], path.name
            own = [name.rsplit(".", 1)[-1] for name in names if name.startswith("tests")]
            assert not {f"{name}.py" for name in own} & OF_THE_PRODUCT, path.name


def test_every_number_is_what_its_rows_say(folder: Path, found: Ledger) -> None:
    assert wrong(folder, found) == []
    assert len(found.numbers) > 5_000


def test_every_number_of_chosen_comparisons_is_what_its_rows_say(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_bench.report.figures.DRAWN", ())
        chosen = replace(rich_suite(), against=["dpo"]).write(tmp_path / "report")
    report = json.loads((chosen / "report.json").read_text(encoding="utf-8"))
    named = [{one["a"]["name"], one["b"]["name"]} for one in report["comparisons"]]
    assert {"dpo", "kto"} in named
    assert {"kto", "base"} in named
    assert {"rm", "rm_plain"} in named, "no reward model is named, so they are compared as always"
    assert {"kto", "simpo"} not in named
    assert wrong(chosen, found_in(chosen)) == []


def test_what_is_not_recomputed_is_a_given_fact(folder: Path, found: Ledger) -> None:
    assert sorted({pattern(place) for place in unchecked(folder, found)}) == []
    assert unused(folder) == set()
    assert all(reason for reason in GIVEN.values())


def test_the_readme_says_where_every_block_comes_from(folder: Path) -> None:
    text = (HERE.parents[1] / "reports" / "README.md").read_text(encoding="utf-8")
    table = text.split("## Which number comes from which rows")[1].split("## ")[0]
    blocks = json.loads((folder / "report.json").read_text(encoding="utf-8")).keys() - {"version", "command"}
    assert [name for name in sorted(blocks) if f"`{name}" not in table] == []
    for files in (".parquet", ".jsonl"):
        assert [path.name for path in folder.glob(f"*{files}") if f"`{path.name}`" not in table] == []


# One leaf of each: the first whose number is not null. What is a number is moved by 3% and 0.003, or by 1.
LEAVES = [
    "results[].metrics.accuracy.value",
    "results[].metrics.accuracy.low",
    "results[].metrics.tie_rate.high",
    "results[].metrics.accuracy_right_shorter.n",
    "results[].metrics.attacked[].accuracy.value",
    "results[].metrics.length_correlation_given_label.value",
    "results[].metrics.accuracy_logratio.value",
    "results[].metrics.log_ratio_chosen.value",
    "results[].metrics.log_ratio_rejected.high",
    "results[].metrics.reward_std.value",
    "results[].metrics.margin.high",
    "results[].metrics.other_judges[].mean.value",
    "results[].metrics.proxies[].mean.low",
    "results[].metrics.gold_accuracy.value",
    "results[].metrics.win_rate_vs_base.value",
    "results[].metrics.win_rate_length_controlled.value",
    "results[].metrics.judge_gain_within_length.value",
    "results[].metrics.length_words.value",
    "results[].metrics.readability_grade.value",
    "results[].metrics.distinct_2.value",
    "results[].metrics.repetition.value",
    "results[].metrics.unfinished_share.low",
    "results[].metrics.kl_per_token.value",
    "results[].metrics.log_ratio.value",
    "results[].metrics.kl_from_start_per_token.value",
    "results[].metrics.win_rate_vs_start.value",
    "alarms[].found",
    "alarms[].threshold",
    "baselines.longer_wins.value",
    "baselines.labels_agree_with_gold.low",
    "audit[].metrics.accuracy_length_controlled.value",
    "audit[].metrics.length_spearman_within.value",
    "audit[].metrics.effects.grade.high",
    "audit[].metrics.edits[].flips.value",
    "audit[].metrics.brier.value",
    "audit[].metrics.calibration_error.value",
    "audit[].metrics.temperature.value",
    "audit[].reliability[].observed",
    "comparisons[].difference",
    "comparisons[].high",
    "comparisons[].bootstrap_low",
    "comparisons[].p",
    "comparisons[].p_holm",
    "comparisons[].p_wilcoxon",
    "comparisons[].p_tost_holm",
    "comparisons[].effect",
    "comparisons[].test",
    "comparisons[].a.text",
    "leaderboard[].rank",
    "leaderboard[].label",
    "leaderboard[].judge.mean",
    "leaderboard[].words.sd",
    "leaderboard[].gold.low",
    "leaderboard[].win_rate.value",
    "leaderboard[].seconds.mean",
    "leaderboard[].level",
    "reward_leaderboard[].accuracy.sd",
    "reward_leaderboard[].against_longer",
    "rankings[].methods[].value",
    "rankings[].friedman.p",
    "policies.win_rates[].rate.value",
    "policies.frontier[].on_frontier",
    "policies.gold_against_judge[].correlation.low",
    "agreement[].kendall_tau",
    "agreement[].agreement.value",
    "course.scores[].test.t",
    "course.answers[].words.median",
    "keywords.lists[].keywords[].weight",
    "keywords.lists[].keywords[].term",
    "training_keywords.keywords[].weight",
    "pareto[].cells[].text",
    "detectable.pairs.dz_holm",
    "tested[].accuracy_logp_mean.low",
    "tested[].reward_std.value",
    "tested[].difference",
    "tested[].p_holm",
]


@pytest.mark.parametrize("which", LEAVES)
def test_a_number_made_wrong_by_hand_is_found(which: str, folder: Path, found: Ledger, tmp_path: Path) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    place = next(
        place for place, number in found.numbers.items() if pattern(place) == which and number.value is not None
    )
    _replace(report, place)
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert wrong(tmp_path, found) == [shown(place)]


def _replace(report: Any, place: Place) -> None:
    *path, last = place
    for part in path:
        report = report[part]
    report[last] = _other(report[last], str(last))


def _other(value: Leaf, name: str) -> Leaf:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    assert value is not None
    if isinstance(value, int):
        return value + 1
    # A bound that was drawn may be off by the luck of the draws.
    return value * 1.5 + 0.3 if name.startswith("bootstrap") else value * 1.03 + 0.003


def test_a_row_made_wrong_by_hand_is_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "report"
    shutil.copytree(folder, copy)
    rows = pq.read_table(copy / "scores.parquet").to_pylist()
    row = next(row for row in rows if row["cell"] == "rm#1" and row["chosen_reward"] is not None)
    row["chosen_reward"] = row["rejected_reward"] - row["chosen_reward"] - 1
    pq.write_table(pa.Table.from_pylist(rows), copy / "scores.parquet")
    places = wrong(copy, found_in(copy))
    names = [result["name"] for result in json.loads((copy / "report.json").read_text(encoding="utf-8"))["results"]]
    assert f"results[{names.index('rm#1')}].metrics.reward_mean.value" in places
    assert not _of_others(places, names.index("rm#1"))


def _of_others(places: Sequence[str], cell: int) -> list[str]:
    return [place for place in places if place.startswith("results[") and not place.startswith(f"results[{cell}]")]


def test_a_number_that_is_new_has_to_be_recomputed(folder: Path, found: Ledger, tmp_path: Path) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["results"][0]["metrics"]["new"] = 1.0
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert [shown(place) for place in unchecked(tmp_path, found)] == ["results[0].metrics.new"]
