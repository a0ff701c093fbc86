"""Every judge and reward model against the baseline that needs no model: preferring the longer answer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from align_bench.metrics.accuracy import accuracy, wins_of
from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.finite import finite
from align_bench.report.audit import pairs_by_scorer
from align_bench.report.cells import Cell, Column
from align_bench.report.decision import ALPHA
from align_bench.report.files import unicode
from align_bench.report.formatting import interval, number, p_value, signed
from align_bench.report.rows import AuditRow
from align_bench.report.schema import AgainstLonger
from align_bench.stats.paired import floored, holm, paired_shares

NAMED = 6  # scorers that the sentence names of each kind before it counts the rest; the table has all


@dataclass(frozen=True, slots=True)
class _Scored:
    """Both answers' rows of each pair of one scorer, by column."""

    prompts: Sequence[Hashable]
    chosen: Column
    rejected: Column
    chosen_words: Column
    rejected_words: Column


def against_longer(cells: Sequence[Cell], audits: Sequence[AuditRow]) -> list[AgainstLonger]:
    """Accuracy of every scorer less that of preferring the longer answer, paired and clustered over prompts.

    Args:
        cells: all cells; of those that no audit holds, reward models are taken by their score rows.
        audits: rows of `audit.parquet`, where an ensemble of judges is one scorer.
    """
    scorers = _audited(audits)  # rows that were read from files have their lone surrogates escaped
    for cell in cells:
        name, ensemble = unicode(cell.name), unicode(str(cell.id.method))
        if cell.outcome.kind == "reward" and name not in scorers and ensemble not in scorers:
            scorers[name] = _Scored(cell.pair_prompts, *cell.rewards, *cell.words)
    found = [one for scorer, scored in scorers.items() if (one := _tested(scorer, scored)).n]
    adjusted = holm([one.p for one in found])
    return [
        one.model_copy(update={"p_holm": p_holm, "decision": _decision(one.difference, p_holm)})
        for one, p_holm in zip(found, adjusted, strict=True)
    ]


def longer_wins_verdict(found: Sequence[AgainstLonger]) -> list[str]:
    """What the tests say, in a sentence; nothing without any. They are of checkpoints, however many seeds there are."""
    if not found:
        return []
    parts = [
        ("above it", [one for one in found if one.decision == "above"]),
        ("below it", [one for one in found if one.decision == "below"]),
        ("not shown to differ", [one for one in found if one.decision == "none"]),
        (
            "not tested, since there is no pair that they rank differently",
            [one for one in found if one.decision == "undefined"],
        ),
    ]
    said = [f"{what}: {_several(own)}" for what, own in parts if own]
    whose = "a claim about this checkpoint" if len(found) == 1 else "claims about these checkpoints"
    return [
        f"Preferring the longer answer is right on {_range(found)} of the pairs. Judges and reward models against it, "
        f"on the same pairs ({whose}): {'; '.join(said)}."
    ]


def _audited(audits: Sequence[AuditRow]) -> dict[str, _Scored]:
    return {
        unicode(scorer): _Scored(
            pairs.prompts, *pairs.columns(lambda row: row.score), *pairs.columns(lambda row: row.words)
        )
        for scorer, pairs in pairs_by_scorer(audits).items()
    }


def _tested(scorer: str, scored: _Scored) -> AgainstLonger:
    """By the test between two reward models."""
    codes = cluster_codes(scored.prompts, len(scored.prompts))
    chosen, rejected, chosen_words, rejected_words, prompts = finite(
        scored.chosen, scored.rejected, scored.chosen_words, scored.rejected_words, codes
    )
    own, longer = wins_of(chosen - rejected), wins_of(chosen_words - rejected_words)
    clusters = prompts.tolist()
    test, found = paired_shares(own, longer, clusters)
    return AgainstLonger(
        scorer=scorer,
        accuracy=accuracy(chosen, rejected, clusters),
        longer_wins=accuracy(chosen_words, rejected_words, clusters),
        difference=found.difference,
        low=found.low,
        high=found.high,
        test=test,
        p=floored(found.p),
        p_holm=None,
        n=found.n,
        prompts=len(set(clusters)),
        decision="undefined",
    )


def _decision(difference: float | None, p_holm: float | None) -> Literal["above", "below", "none", "undefined"]:
    if difference is None or p_holm is None:
        return "undefined"
    if p_holm >= ALPHA:
        return "none"
    return "above" if difference > 0 else "below"


def _claim(found: AgainstLonger) -> str:
    shown = "" if found.low is None else f" {interval(found.low, found.high)}"
    adjusted = "" if found.p_holm is None else f", Holm p {p_value(found.p_holm)}"
    return f"{found.scorer} by {signed(found.difference)}{shown}{adjusted}"


def _several(found: Sequence[AgainstLonger]) -> str:
    more = len(found) - NAMED
    return ", ".join(map(_claim, found[:NAMED])) + (f" and {more} more" if more > 0 else "")


def _range(found: Sequence[AgainstLonger]) -> str:
    shares = list(dict.fromkeys(number(one.longer_wins.value) for one in found))
    return shares[0] if len(shares) == 1 else f"{min(shares)} to {max(shares)}"
