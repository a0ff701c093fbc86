"""What a rendered report shows, table by table, whatever it is rendered to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.report.tables.audit import (
    agreement,
    calibration,
    edited_answers,
    length_and_form,
    length_controls,
    prompt_controls,
)
from align_bench.report.tables.baseline import against_longer
from align_bench.report.tables.beside_course import beside_course
from align_bench.report.tables.cost import costs
from align_bench.report.tables.data import data_sets
from align_bench.report.tables.differences import against_base, methods, own_reward, win_rates
from align_bench.report.tables.drift import against_start, drift_from_base, gold_against_judge
from align_bench.report.tables.keywords import keyword_lists
from align_bench.report.tables.leaderboard import leaderboard, reward_leaderboard
from align_bench.report.tables.length import favoured_answers, gains, length_bias, length_bias_against_first, texts
from align_bench.report.tables.ranks import policy_ranks, reward_model_ranks
from align_bench.report.tables.results import failures, judged, policies, reward_models
from align_bench.report.tables.scores import attacked, score_groups
from align_bench.report.tables.section import Section
from align_bench.report.tables.tested import tested
from align_bench.report.tables.tuning import trials

if TYPE_CHECKING:
    from align_bench.report.schema import Report

TABLES = (
    leaderboard,
    reward_leaderboard,
    reward_models,
    length_bias,
    length_bias_against_first,
    attacked,
    score_groups,
    favoured_answers,
    against_longer,
    length_controls,
    prompt_controls,
    length_and_form,
    edited_answers,
    calibration,
    policies,
    judged,
    tested,
    beside_course,
    agreement,
    gains,
    drift_from_base,
    against_start,
    gold_against_judge,
    win_rates,
    own_reward,
    texts,
    against_base,
    methods,
    reward_model_ranks,
    policy_ranks,
    keyword_lists,
    trials,
    data_sets,
    costs,
    failures,
)


def report_sections(report: Report) -> list[Section]:
    """The tables of a report, without the empty ones."""
    return [made for table in TABLES if (made := table(report)).rows]
