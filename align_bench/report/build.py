"""The report, computed from exported rows alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from align_bench.records import Comparison, Generation, Outcome, PairTexts
from align_bench.report.agreement import agreement_notes, agreements, shared_rows_notes
from align_bench.report.alarms import alarms
from align_bench.report.audit import audit
from align_bench.report.baseline import against_longer, longer_wins_verdict
from align_bench.report.cells import Cell, gather, judges_of, prompt_by_pair
from align_bench.report.claims import claims
from align_bench.report.comparisons import Margins, compare_all, entrants, measures
from align_bench.report.course import course, keyword_lists, pareto_sets
from align_bench.report.files import json_ready, uncollected, unicode
from align_bench.report.findings import find
from align_bench.report.leaderboard import leaderboard, reward_leaderboard
from align_bench.report.notes import heavy_tail_notes, write_notes
from align_bench.report.policies import compare_policies
from align_bench.report.rankings import rank_all
from align_bench.report.results import baselines, result
from align_bench.report.rows import AuditRow, ScoreRow
from align_bench.report.schema import Detectable, DetectableBetweenSeeds, DetectableEffect, Header, Report
from align_bench.report.tested import on_test
from align_bench.report.verdict import summarise, write_verdict
from align_bench.stats.power import detectable_between_seeds, detectable_effect
from align_bench.suite.models import Report as ReportSettings

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@uncollected()
def build_report(
    header: Header,
    outcomes: Sequence[Outcome],
    scores: Sequence[ScoreRow],
    generations: Sequence[Generation],
    audits: Sequence[AuditRow] = (),
    pairs: Sequence[PairTexts] = (),
    tested: Sequence[ScoreRow] = (),
) -> Report:
    """The report as its file holds it: undefined and non-finite numbers are None, lone surrogates are escaped.

    The order of the rows does not matter.

    Args:
        header: what was run. Of the suite's settings, `report` says what counts as equivalent.
        outcomes: every cell of the suite, the base included, in the order of the tables.
        scores: rows of `scores.parquet`.
        generations: lines of `generations.jsonl`. The first judge of the header's panel, or else the first one named
            in them, is the one of `judge_reward_mean`.
        audits: rows of `audit.parquet`.
        pairs: rows of `pairs.parquet`; without them the keywords of favoured answers are left out, and how many labels
            can be known.
        tested: rows of `test_scores.parquet`.

    Raises:
        ValueError: duplicate rows, or rows of a cell without an outcome.
    """
    cells = gather(outcomes, scores, generations)
    answers = [answer for cell in cells for answer in cell.generations]
    judges = judges_of(answers, [judge.name for judge in header.judges])
    base = next((cell for cell in cells if cell.outcome.kind == "base" and cell.outcome.status == "done"), None)
    done = {cell.id: cell for cell in cells if cell.outcome.status == "done"}
    starts = [None if cell.outcome.start is None else done.get(cell.outcome.start) for cell in cells]
    results = [result(cell, base, judges, start) for cell, start in zip(cells, starts, strict=True)]
    margins = margins_of(header)
    every = measures(entrants(cells), judges)
    comparisons = compare_all(cells, every, margins)
    claimed = claims(results, comparisons)
    rankings = rank_all(cells, every, comparisons)
    agreement = agreements(cells, judges, claimed)
    detectable = _detectable(cells, comparisons)
    beside_longer = against_longer(cells, audits)
    audited, policies = audit(audits), compare_policies(cells, results, judges)
    without_training = baselines(cells, pairs)
    found = alarms(header, results, beside_longer)
    report = Report(
        **dict(header),
        alarms=found,
        verdict=[
            *write_verdict(results, claimed, rankings, margins.equivalence_dz, margins.against),
            *longer_wins_verdict(beside_longer),
        ],
        results=results,
        comparisons=comparisons,
        claims=claimed,
        leaderboard=leaderboard(results, claimed, policies.win_rates),
        reward_leaderboard=reward_leaderboard(results, beside_longer),
        rankings=rankings,
        policies=policies,
        baselines=without_training,
        agreement=agreement,
        audit=audited,
        against_longer=beside_longer,
        course=course(cells),
        tested=on_test(outcomes, tested),
        keywords=keyword_lists(cells, pairs),
        pareto=pareto_sets(results),
        detectable=detectable,
        notes=[
            *write_notes(cells, results, comparisons, detectable),
            *heavy_tail_notes(results, audited, without_training, policies),
            *agreement_notes(agreement, claimed),
            *shared_rows_notes(header.judges),
        ],
    )
    return _as_read(report.model_copy(update={"summary": summarise(find(report))}))


def margins_of(header: Header) -> Margins:
    """What the suite set for differences."""
    found = ReportSettings.model_validate(header.suite.settings.get("report", {}))
    return Margins(found.equivalence_dz, found.seed_noise, found.against or ())


def _as_read(report: Report) -> Report:
    """What is read from the file of this report."""
    text = json.dumps(json_ready(report.model_dump()), ensure_ascii=False, allow_nan=False)
    # JSON has an escape for a lone surrogate, which pydantic refuses: so what is escaped is the text in it.
    return Report.model_validate_json(_LONE_SURROGATE.sub(lambda found: "\\" + unicode(found[0]), text))


def _detectable(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> Detectable:
    """What this many pairs, prompts and seeds could have shown; pairs that share a prompt count once."""
    pairs = prompt_by_pair(cells)
    prompts = len({answer.prompt_id for cell in cells for answer in cell.generations})
    families = [found.family for found in comparisons if found.level == "checkpoint" and found.p is not None]
    tests = max(families, default=0)
    between = [found.n for found in comparisons if found.level == "method" and found.p is not None]
    return Detectable(
        pairs=_effect(len(pairs), len(set(pairs.values())), tests) if pairs else None,
        prompts=_effect(prompts, prompts, tests) if prompts else None,
        seeds=_between_seeds(min(between), len(between)) if between else None,
    )


def _effect(n: int, prompts: int, tests: int) -> DetectableEffect:
    return DetectableEffect(
        n=n, prompts=prompts, tests=tests, dz=detectable_effect(prompts), dz_holm=detectable_effect(prompts, tests)
    )


def _between_seeds(n: int, tests: int) -> DetectableBetweenSeeds:
    return DetectableBetweenSeeds(
        n=n, tests=tests, d=detectable_between_seeds(n), d_holm=detectable_between_seeds(n, tests)
    )
