from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from align_bench.records import MetricKey
from align_bench.report.tables.differences import own_reward

if TYPE_CHECKING:
    from tests.report.conftest import Run


def test_own_rewards_stand_beside_judge_and_gold(run: Run) -> None:
    own = {"dpo": 0.5, "simpo": 0.25, "base": 0.125}
    scored = [replace(each, proxies={"rm": own[each.cell]} if each.cell in own else {}) for each in run.generations]
    report = replace(run, generations=scored).report()
    gains = {
        (str(one.a), one.metric): one.difference
        for one in report.comparisons
        if one.level == "checkpoint" and str(one.b) == "base"
    }
    rows = {row[0]: row for row in own_reward(report).texts()}
    assert rows.keys() == {"dpo", "simpo"}
    for name, row in rows.items():
        assert row[1:4] == ("rm", f"{own[name]:.3f}", "0.125")
        assert row[4].startswith(f"{own[name] - own['base']:+.3f} ")
        assert row[5].startswith(f"{gains[name, MetricKey('judge_reward')]:+.3f} [")
        assert row[6].startswith(f"{gains[name, MetricKey('gold_accuracy')]:+.3f} [")


def test_without_own_rewards_there_is_no_such_table(run: Run) -> None:
    assert not own_reward(run.report()).rows
