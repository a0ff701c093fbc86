"""The report as one JSON-ready dict, computed from exported rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from align_bench.records import Comparison, Estimate, Generation, Outcome, PairTexts
from align_bench.report.agreement import agreement_notes, agreements, shared_rows_notes
from align_bench.report.audit import audit
from align_bench.report.cells import Cell, gather, judges_of
from align_bench.report.comparisons import compare_all
from align_bench.report.course import course, keyword_lists, pareto_sets
from align_bench.report.files import json_ready
from align_bench.report.notes import write_notes
from align_bench.report.policies import compare_policies, policy_metrics
from align_bench.report.rankings import rank_all
from align_bench.report.results import baselines, metrics
from align_bench.report.verdict import write_verdict
from align_bench.stats.power import detectable_between_seeds, detectable_effect
from align_bench.suite.models import Report


def build_report(
    header: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    scores: Sequence[Mapping[str, Any]],
    generations: Sequence[Generation],
    audits: Sequence[Mapping[str, Any]] = (),
    pairs: Sequence[PairTexts] = (),
) -> dict[str, Any]:
    """`report.json`: the header's blocks, then those named in `report.export.COMPUTED`.

    The order of the rows does not matter. Nothing but JSON's own types is left in it, and no number that is not
    finite: undefined is None.

    Args:
        header: passed through: `suite`, `base`, `data`, `judge`, `environment`, `training_keywords`, `command`. Of the
            suite's settings, `report` says what counts as equivalent.
        outcomes: every cell of the suite, the base included, in the order of the tables.
        scores: rows of `scores.parquet`.
        generations: lines of `generations.jsonl`. The first judge of the header's panel, or else the first one named
            in them, is the one of `judge_reward_mean`.
        audits: rows of `audit.parquet`.
        pairs: rows of `pairs.parquet`; without them the keywords of favoured answers are left out.

    Raises:
        ValueError: duplicate rows, or rows of a cell without an outcome.
    """
    cells = gather(outcomes, scores, generations)
    panel = (header.get("judge") or {}).get("panel", ())
    judges = judges_of([answer for cell in cells for answer in cell.generations], panel)
    base = next((cell for cell in cells if cell.outcome.kind == "base" and cell.outcome.status == "done"), None)
    results = [_result(cell, {**metrics(cell, base, judges), **policy_metrics(cell, base, judges)}) for cell in cells]
    margin = equivalence_dz(header)
    comparisons = compare_all(cells, judges, margin)
    tested = [asdict(found) for found in comparisons]
    rankings = rank_all(cells, judges)
    agreement = agreements(cells, judges, comparisons)
    detectable = _detectable(cells, comparisons)
    report: dict[str, Any] = json_ready(
        {
            **header,
            "verdict": write_verdict(results, tested, rankings, margin),
            "results": results,
            "comparisons": tested,
            "rankings": rankings,
            "policies": compare_policies(cells, results, judges),
            "baselines": {name: _numbers(found) for name, found in baselines(cells).items()},
            "agreement": agreement,
            "audit": audit(audits),
            "course": course(cells),
            "keywords": keyword_lists(cells, pairs),
            "pareto": pareto_sets(results),
            "detectable": detectable,
            "notes": [
                *write_notes(cells, results, comparisons, detectable),
                *agreement_notes(agreement),
                *shared_rows_notes(panel),
            ],
        }
    )
    return report


def _result(cell: Cell, found: Mapping[str, Estimate]) -> dict[str, Any]:
    outcome = cell.outcome
    return {
        "cell": outcome.cell,
        "algorithm": outcome.algorithm,
        "kind": outcome.kind,
        "parameters": outcome.parameters,
        "seed": outcome.seed,
        "status": outcome.status,
        "reason": outcome.reason,
        "reward": outcome.reward,
        "metrics": {name: _numbers(estimate) for name, estimate in found.items()},
        "cost": asdict(outcome.cost) if outcome.cost else None,
        "trainable": outcome.trainable,
        "warnings": outcome.warnings,
        "remarks": outcome.remarks,
    }


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def equivalence_dz(header: Mapping[str, Any]) -> float:
    """The margin of equivalence that the suite set, in standard deviations of the differences on one prompt."""
    suite = header.get("suite")
    settings = suite.get("settings", {}).get("report", {}) if isinstance(suite, Mapping) else {}
    return Report.model_validate(settings).equivalence_dz


def _detectable(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """What this many pairs, prompts and seeds could have shown; pairs that share a prompt count once."""
    pairs = {row["pair"] for cell in cells for row in cell.scores}
    of_pair = {pair: prompt for cell in cells for pair, prompt in cell.prompt_by_pair().items()}
    sizes = {
        "pairs": (len(pairs), len({of_pair.get(pair, ("pair", pair)) for pair in pairs})),
        "prompts": (len({answer.prompt_id for cell in cells for answer in cell.generations}),) * 2,
    }
    tests = sum(found.p is not None for found in comparisons if found.level == "checkpoint")
    detectable: dict[str, dict[str, Any]] = {
        what: {
            "n": n,
            "prompts": prompts,
            "tests": tests,
            "dz": detectable_effect(prompts),
            "dz_holm": detectable_effect(prompts, tests),
        }
        for what, (n, prompts) in sizes.items()
        if n
    }
    between = [found for found in comparisons if found.level == "method" and found.p is not None]
    if seeds := min((found.n for found in between), default=0):
        detectable["seeds"] = {
            "n": seeds,
            "tests": len(between),
            "d": detectable_between_seeds(seeds),
            "d_holm": detectable_between_seeds(seeds, len(between)),
        }
    return detectable
