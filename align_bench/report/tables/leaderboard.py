"""The leaderboard as a table: policies with the base, and reward models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from align_bench.records import Estimate, MetricKey
from align_bench.report.formatting import UNDEFINED, one_line
from align_bench.report.tables import values
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import OfSeeds, Spread, Value

if TYPE_CHECKING:
    from align_bench.report.schema import LeaderboardRow, OverSeeds, Report, RewardModelRow

Row = TypeVar("Row")
OPENING = "verdict"  # the chapter of these tables, which stand before all others
SHOWN = {MetricKey("gold_accuracy"): "gold", MetricKey("judge_reward"): "judge"}
BY = {
    "gold_accuracy": "gold accuracy",
    "judge_reward": "the judge's score",
    "accuracy_gold_choice": "accuracy against the right answers",
    "accuracy": "accuracy",
}


def leaderboard(report: Report) -> Section:
    """Policies and the base, the best first."""
    rows = report.leaderboard
    around = over_seeds(rows)
    columns: list[tuple[Column, Callable[[LeaderboardRow], Value]]] = [
        (text("method"), lambda row: one_line(row.label)),
        (text("vs base", wraps=False), mark),
        (Column("judge"), lambda row: with_margin(row.judge, around)),
        (Column("gold"), lambda row: with_margin(row.gold, around)),
        (Column("win rate"), lambda row: Spread(row.win_rate, even=True)),
        (Column("LC win rate", optional=True), lambda row: with_margin(row.win_rate_length_controlled, around)),
        (Column("words"), lambda row: tenths(row.words)),
        (Column("unfin."), lambda row: percent(row.unfinished)),
        (Column("KL", optional=True), lambda row: with_margin(row.kl, around)),
        (Column("seconds", optional=True), lambda row: tenths(row.seconds)),
        (Column("seeds", optional=True), lambda row: seeds(row)),
    ]
    captions = list(_captions(rows)) if rows else []
    return _section("Leaderboard", columns, rows, captions)


def reward_leaderboard(report: Report) -> Section:
    """Reward models, the best first."""
    rows = report.reward_leaderboard
    around = over_seeds(rows)
    columns: list[tuple[Column, Callable[[RewardModelRow], Value]]] = [
        (text("model"), lambda row: one_line(row.label)),
        (text("vs longer", wraps=False), beside_longer),
        (Column("accuracy"), lambda row: with_margin(row.accuracy, around)),
        (Column("acc. (gold)"), lambda row: with_margin(row.accuracy_gold, around)),
        (Column("right shorter"), lambda row: with_margin(row.accuracy_right_shorter, around)),
        (Column("ties"), lambda row: percent(row.ties)),
        (Column("seconds", optional=True), lambda row: tenths(row.seconds)),
        (Column("seeds", optional=True), lambda row: seeds(row)),
    ]
    captions = []
    if rows:
        captions = [
            f"Ranked by {_by(rows)}. acc. (gold): against the right answers; right shorter: where the right answer has "
            "fewer words.",
            "vs longer: every checkpoint was shown to be above (↑) or below (↓) preferring the longer answer, on the "
            "same pairs (Holm-adjusted 5%).",
            _margins(around),
            *_tied(rows),
        ]
    return _section("Leaderboard of reward models" if report.leaderboard else "Leaderboard", columns, rows, captions)


def over_seeds(rows: Sequence[LeaderboardRow] | Sequence[RewardModelRow]) -> bool:
    """Whether ± is a standard deviation over seeds: where any method has several. Else it is a 95% interval."""
    return any(len(row.seeds) > 1 for row in rows)


def with_margin(found: OverSeeds, around: bool, decimals: int = 3) -> Spread | OfSeeds:
    """A mean with its standard deviation over seeds (`around`), or else with its interval over prompts."""
    if around:
        return OfSeeds(found.mean, found.sd, decimals)
    return Spread(Estimate(found.mean, found.low, found.high), even=True, decimals=decimals)


def tenths(found: OverSeeds) -> Value:
    """A mean to one decimal."""
    return values.tenths(Estimate(found.mean))


def percent(found: OverSeeds) -> Value:
    """A mean share as a percentage."""
    return values.percent(Estimate(found.mean))


def mark(row: LeaderboardRow) -> str:
    """On what it was shown to be above the base or below it: `gold↑ judge↑`."""
    shown = [f"{SHOWN[one]}↑" for one in row.above_base] + [f"{SHOWN[one]}↓" for one in row.below_base]
    return " ".join(shown) or "–"


def beside_longer(row: RewardModelRow) -> str:
    """Whether it was shown to be above or below preferring the longer answer."""
    return UNDEFINED if row.against_longer is None else {"above": "↑", "below": "↓", "none": "–"}[row.against_longer]


def seeds(row: LeaderboardRow | RewardModelRow) -> Value:
    """Seeds that finished, of how many where some did not."""
    count = len(row.seeds)
    return f"{count} of {count + row.unfinished_cells}" if row.unfinished_cells else values.count(count)


def _by(rows: Sequence[LeaderboardRow] | Sequence[RewardModelRow]) -> str:
    metric = rows[0].ranked_by
    return "nothing: no measure is there for all of them" if metric is None else BY[metric.name]


def _captions(rows: Sequence[LeaderboardRow]) -> Iterator[str]:
    few = any(row.level == "checkpoint" for row in rows if row.kind == "policy")
    yield (
        f"Ranked by {_by(rows)}. vs base: shown to be above (↑) or below (↓) the base at a Holm-adjusted 5%"
        f"{'; the claim is about these checkpoints, where a method has several about each of them' if few else ''}."
    )
    yield (
        "win rate: against the base by the judge; LC: at equal length; unfin.: answers truncated at the token "
        "limit; KL: to the base, nats per answer; seconds: to train and evaluate one checkpoint."
    )
    yield _margins(over_seeds(rows))
    yield from _tied(rows)


def _margins(around: bool) -> str:
    if around:
        return (
            "± is the standard deviation over seeds; of win rates a 95% interval over seeds and prompts, the larger "
            "distance, not adjusted for their number."
        )
    return "±: 95% interval, by its longer side where the two differ, not adjusted for the number of intervals."


def _tied(rows: Sequence[LeaderboardRow] | Sequence[RewardModelRow]) -> list[str]:
    """A caption with the methods that share a rank."""
    shared: dict[int, list[str]] = {}
    for row in rows:
        if row.rank is not None:
            shared.setdefault(row.rank, []).append(one_line(row.label))
    found = [" = ".join(labels) for labels in shared.values() if len(labels) > 1]
    return [f"Tied: {'; '.join(found)}."] if found else []


def _section(
    title: str, columns: Sequence[tuple[Column, Callable[[Row], Value]]], rows: Sequence[Row], captions: Sequence[str]
) -> Section:
    """Without the columns that no row has a value for."""
    cells = [(column, [cell(row) for row in rows]) for column, cell in columns]
    kept = [(column, own) for column, own in cells if any(str(value) != UNDEFINED for value in own)]
    shown = list(zip(*(own for _, own in kept), strict=True))
    return Section(title, [column for column, _ in kept], shown, captions, OPENING)
