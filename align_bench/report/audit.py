"""How far each judge and reward model can be trusted: all of it from the rows of `audit.parquet`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from align_bench.metrics.accuracy import accuracy, correctness, longer_wins, tie_rate
from align_bench.metrics.calibration import (
    brier,
    calibration_error,
    calibration_test,
    log_loss,
    longer_first,
    reliability,
    temperature,
)
from align_bench.metrics.counterfactual import flip_rate, mean_shift
from align_bench.metrics.finite import is_finite
from align_bench.metrics.format_effects import form_effects
from align_bench.metrics.length_bias import score_by_length
from align_bench.metrics.length_control import length_controlled, length_matched
from align_bench.records import Estimate
from align_bench.report.rows import AuditRow, Side
from align_bench.report.schema import Audit, AuditMetrics, Edit, EditEffect, Effects
from align_bench.stats.paired import floored, paired_t

Column = list[float | None]
Measure = Callable[[AuditRow], float | None]
EDITED: tuple[tuple[Edit, Measure], ...] = (
    ("filler", lambda row: row.score_filler),
    ("doubled", lambda row: row.score_doubled),
    ("stripped", lambda row: row.score_stripped),
)


def audit(rows: Sequence[AuditRow]) -> list[Audit]:
    """The audit of each scorer.

    Args:
        rows: of `audit.parquet`, in any order.
    """
    return [_audited(scorer, pairs) for scorer, pairs in pairs_by_scorer(rows).items()]


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """The pairs of one scorer: both answers' rows and the prompt of each pair, in the order of pairs."""

    chosen: Sequence[AuditRow]
    rejected: Sequence[AuditRow]

    @property
    def prompts(self) -> list[int]:
        """The prompt of each pair."""
        return [row.prompt for row in self.chosen]

    def columns(self, measure: Measure) -> tuple[Column, Column]:
        """Chosen answers', and rejected answers'."""
        return [measure(row) for row in self.chosen], [measure(row) for row in self.rejected]

    def both(self, measure: Measure) -> Column:
        """Chosen answers', then rejected answers'."""
        return [measure(row) for row in (*self.chosen, *self.rejected)]


def pairs_by_scorer(rows: Sequence[AuditRow]) -> dict[str, ScoredPairs]:
    """Scorer → its pairs of which both answers have a row.

    Args:
        rows: of `audit.parquet`, in any order.
    """
    sides: dict[str, dict[Side, dict[int, AuditRow]]] = {}
    for row in rows:
        sides.setdefault(row.scorer, {"chosen": {}, "rejected": {}})[row.side][row.pair] = row
    return {scorer: _of_sides(own["chosen"], own["rejected"]) for scorer, own in sides.items()}


def _of_sides(chosen: Mapping[int, AuditRow], rejected: Mapping[int, AuditRow]) -> ScoredPairs:
    pairs = sorted(chosen.keys() & rejected.keys())
    return ScoredPairs([chosen[pair] for pair in pairs], [rejected[pair] for pair in pairs])


def _audited(scorer: str, pairs: ScoredPairs) -> Audit:
    scores, words = pairs.columns(lambda row: row.score), pairs.columns(lambda row: row.words)
    margins, labels = longer_first(*scores, *words)
    tested = calibration_test(margins, labels, pairs.prompts)
    controlled = length_controlled(*scores, *words, pairs.prompts)
    by_length = score_by_length(*scores, *words, pairs.prompts)
    found = AuditMetrics(
        accuracy=accuracy(*scores, pairs.prompts),
        tie_rate=tie_rate(*scores, pairs.prompts),
        longer_wins=longer_wins(*words, pairs.prompts),
        accuracy_chosen_longer=_accuracy_where(pairs, operator.gt),
        accuracy_chosen_shorter=_accuracy_where(pairs, operator.lt),
        accuracy_length_matched=length_matched(*scores, *words, pairs.prompts),
        accuracy_length_controlled=controlled.accuracy,
        length_one_sided=controlled.one_sided,
        accuracy_audited=_audited_accuracy(pairs),
        accuracy_less_shuffled=_less_shuffled(pairs),
        accuracy_prompts_shuffled=accuracy(*pairs.columns(lambda row: row.score_shuffled), pairs.prompts),
        accuracy_prompts_empty=accuracy(*pairs.columns(lambda row: row.score_empty), pairs.prompts),
        length_spearman=by_length["spearman"],
        length_spearman_within=by_length["spearman_within"],
        length_partial=by_length["partial"],
        length_partial_within=by_length["partial_within"],
        effects=_effects(pairs),
        edits=list(_edited(pairs)),
        brier=brier(*scores, pairs.prompts),
        log_loss=log_loss(*scores, pairs.prompts),
        calibration_error=calibration_error(*scores, pairs.prompts),
        calibration_slope=tested.slope,
        calibration_intercept=tested.intercept,
        calibration_p=floored(tested.p),
        temperature=temperature(margins, labels, pairs.prompts),
    )
    changed = _changed(pairs)
    return Audit(
        scorer=scorer,
        metrics=found,
        reliability=reliability(*scores),
        audited_pairs=len(changed.chosen) or None,
        audited_prompts=len(set(changed.prompts)) or None,
    )


def _changed(pairs: ScoredPairs) -> ScoredPairs:
    """The pairs that were scored with other texts, too."""
    return _where(pairs, lambda row: row.score_plain)


def _where(pairs: ScoredPairs, *measures: Measure) -> ScoredPairs:
    """The pairs of which both answers have all of these measures."""
    kept = [
        (chosen, rejected)
        for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True)
        if all(is_finite(measure(row)) for measure in measures for row in (chosen, rejected))
    ]
    return ScoredPairs([chosen for chosen, _ in kept], [rejected for _, rejected in kept])


def _audited_accuracy(pairs: ScoredPairs) -> Estimate:
    changed = _changed(pairs)
    return accuracy(*changed.columns(lambda row: row.score_plain), changed.prompts)


def _less_shuffled(pairs: ScoredPairs) -> Estimate:
    """Accuracy with the right prompts less that with others; the interval of a paired t, clustered over prompts."""
    both = _where(pairs, lambda row: row.score_plain, lambda row: row.score_shuffled)
    right = correctness(*both.columns(lambda row: row.score_plain))
    shuffled = correctness(*both.columns(lambda row: row.score_shuffled))
    found = paired_t(right, shuffled, both.prompts)
    return Estimate(found.difference, found.low, found.high, found.n)


def _accuracy_where(pairs: ScoredPairs, holds: Callable[[float, float], bool]) -> Estimate:
    kept = [
        (chosen, rejected)
        for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True)
        if chosen.words is not None and rejected.words is not None and holds(chosen.words, rejected.words)
    ]
    return accuracy(
        [chosen.score for chosen, _ in kept],
        [rejected.score for _, rejected in kept],
        [chosen.prompt for chosen, _ in kept],
    )


def _effects(pairs: ScoredPairs) -> Effects:
    chosen = [True] * len(pairs.chosen) + [False] * len(pairs.rejected)
    columns = {
        "words": pairs.both(lambda row: row.words),
        "grade": pairs.both(lambda row: row.grade),
        "list_items": pairs.both(lambda row: row.list_items),
        "headings": pairs.both(lambda row: row.headings),
        "bold": pairs.both(lambda row: row.bold),
    }
    found = form_effects(pairs.both(lambda row: row.score), chosen, columns, [*pairs.prompts, *pairs.prompts])
    return Effects(**found)


def _edited(pairs: ScoredPairs) -> Iterator[EditEffect]:
    """Shift and flip rate of every edit, each answer edited alone while the other stays as it is."""
    plain, prompts = pairs.both(lambda row: row.score_plain), [*pairs.prompts, *pairs.prompts]
    others = [*plain[len(pairs.chosen) :], *plain[: len(pairs.chosen)]]
    for edit, measure in EDITED:
        edited = pairs.both(measure)
        yield EditEffect(
            edit=edit,
            shift=mean_shift(plain, edited, prompts),
            flips=flip_rate(_less(plain, others), _less(edited, others), prompts),
        )


def _less(a: Column, b: Column) -> Column:
    return [None if one is None or other is None else one - other for one, other in zip(a, b, strict=True)]
