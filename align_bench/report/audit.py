"""How far each judge and reward model can be trusted: all of it from the rows of `audit.parquet`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align_bench.metrics.accuracy import accuracy, longer_wins, tie_rate
from align_bench.metrics.calibration import brier, calibration_error, log_loss, oriented, reliability, temperature
from align_bench.metrics.counterfactual import EDITS, PROMPTS, flip_rate, mean_shift
from align_bench.metrics.format_effects import FEATURES, form_effects
from align_bench.metrics.length_bias import score_by_length
from align_bench.metrics.length_control import length_controlled, length_matched
from align_bench.records import Estimate

Row = Mapping[str, Any]
Values = list[float | None]


def audit(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A record for each scorer: `scorer`, `metrics` (name → estimate) and `reliability` (the bins of its curve).

    Args:
        rows: of `audit.parquet`, in any order.
    """
    by_scorer: dict[str, list[Row]] = {}
    for row in rows:
        by_scorer.setdefault(row["scorer"], []).append(row)
    return [_audited(scorer, _pairs(own)) for scorer, own in by_scorer.items()]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of one scorer: both answers' rows and the prompt of each pair, in the order of pairs."""

    chosen: Sequence[Row]
    rejected: Sequence[Row]
    prompts: Sequence[int]

    def columns(self, name: str) -> tuple[Values, Values]:
        return [row.get(name) for row in self.chosen], [row.get(name) for row in self.rejected]

    def both(self, name: str) -> Values:
        """Chosen answers', then rejected answers'."""
        return [*self.columns(name)[0], *self.columns(name)[1]]


def _pairs(rows: Sequence[Row]) -> _Pairs:
    sides: dict[str, dict[int, Row]] = {"chosen": {}, "rejected": {}}
    for row in rows:
        sides[row["side"]][row["pair"]] = row
    pairs = sorted(sides["chosen"].keys() & sides["rejected"].keys())
    chosen = [sides["chosen"][pair] for pair in pairs]
    return _Pairs(chosen, [sides["rejected"][pair] for pair in pairs], [row["prompt"] for row in chosen])


def _audited(scorer: str, pairs: _Pairs) -> dict[str, Any]:
    scores, words = pairs.columns("score"), pairs.columns("words")
    margins, labels = oriented(*scores)
    found = {
        "accuracy": accuracy(*scores),
        "tie_rate": tie_rate(*scores),
        "longer_wins": longer_wins(*words),
        "accuracy_chosen_longer": _where(pairs, operator.gt),
        "accuracy_chosen_shorter": _where(pairs, operator.lt),
        "accuracy_length_matched": length_matched(*scores, *words),
        **_controlled(pairs),
        **{f"accuracy_prompts_{how}": accuracy(*pairs.columns(f"score_{how}")) for how in PROMPTS},
        **{f"length_{name}": one for name, one in score_by_length(*scores, *words, pairs.prompts).items()},
        **_effects(pairs),
        **_edited(pairs),
        "brier": brier(*scores, pairs.prompts),
        "log_loss": log_loss(*scores, pairs.prompts),
        "calibration_error": calibration_error(margins, labels, pairs.prompts),
        "temperature": temperature(margins, labels, pairs.prompts),
    }
    return {
        "scorer": scorer,
        "metrics": {name: asdict(estimate) for name, estimate in found.items()},
        "reliability": [asdict(one) for one in reliability(margins, labels)],
    }


def _where(pairs: _Pairs, holds: Callable[[Any, Any], bool]) -> Estimate:
    left, right = pairs.columns("words")
    kept = [None not in both and holds(*both) for both in zip(left, right, strict=True)]
    scores = ([one for one, keep in zip(side, kept, strict=True) if keep] for side in pairs.columns("score"))
    return accuracy(*scores)


def _controlled(pairs: _Pairs) -> dict[str, Estimate]:
    found = length_controlled(*pairs.columns("score"), *pairs.columns("words"), pairs.prompts)
    return {
        "accuracy_length_controlled": found.accuracy,
        "log_odds_margin": found.margin,
        "log_odds_length": found.length,
    }


def _effects(pairs: _Pairs) -> dict[str, Estimate]:
    chosen = [True] * len(pairs.chosen) + [False] * len(pairs.rejected)
    columns = {name: pairs.both(name) for name in FEATURES}
    found = form_effects(pairs.both("score"), chosen, columns, [*pairs.prompts, *pairs.prompts])
    return {f"effect_{name}": estimate for name, estimate in found.items()}


def _edited(pairs: _Pairs) -> dict[str, Estimate]:
    """Shift and flip rate of every edit, each answer edited alone while the other stays as it is."""
    plain, prompts = pairs.both("score_plain"), [*pairs.prompts, *pairs.prompts]
    others = [*plain[len(pairs.chosen) :], *plain[: len(pairs.chosen)]]
    found = {}
    for edit in EDITS:
        edited = pairs.both(f"score_{edit}")
        found[f"shift_{edit}"] = mean_shift(plain, edited, prompts)
        found[f"flips_{edit}"] = flip_rate(_less(plain, others), _less(edited, others), prompts)
    return found


def _less(a: Values, b: Values) -> Values:
    return [None if one is None or other is None else one - other for one, other in zip(a, b, strict=True)]
