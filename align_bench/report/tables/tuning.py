"""The trials of every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align_bench.report.formatting import duration, one_line, with_spread
from align_bench.report.tables.section import UNADJUSTED, Column, Section, text
from align_bench.report.tables.values import Spread, count

if TYPE_CHECKING:
    from align_bench.report.schema import Report, Trial, Tuning


def trials(report: Report) -> Section:
    """Every trial of every method, where the suite has `tune`; what they cost stands among the costs."""
    rows = [
        (
            one_line(found.method),
            count(number),
            one_line(_differing(trial, found.trials)),
            Spread(trial.accuracy),
            "kept" if number == found.kept else "",
        )
        for found in (report.tuning.methods if report.tuning else [])
        for number, trial in enumerate(found.trials)
    ]
    columns = [text("method"), Column("trial"), text("setting"), Column("accuracy"), text("", wraps=False)]
    captions = list(_captions(report.tuning)) if report.tuning and rows else []
    return Section("Trials on pairs held out of train", columns, rows, captions, chapter="training")


def _differing(one: Trial, trials: Sequence[Trial]) -> str:
    """A trial's parameters, those in which the method's trials differ."""
    names = [name for name in one.parameters if len({repr(trial.parameters[name]) for trial in trials}) > 1]
    return ", ".join(f"{name}={one.parameters[name]}" for name in names)


def _captions(tuned: Tuning) -> Iterator[str]:
    settings, held = tuned.settings, tuned.held_out
    slice_ = f"{held.pairs:,} pairs of {held.prompts:,} prompts" if held else "the held-out prompts"
    yield (
        f"Every method: {settings.trials} trials ({settings.search} search, seed {settings.seed}), the first with its "
        f"own parameters; trained on train without {slice_}, and measured on these."
    )
    yield (
        "accuracy: of the scores (reward models) or of the mean log-probability per token (policies); a tie counts ½. "
        "The highest is kept, the earlier one of equals, and trained anew on all of train. As the best of several, it "
        "is biased upwards; the tables above are not."
    )
    if tuned.base is not None:
        yield f"The base, by the measure of policies: {with_spread(tuned.base)}."
    yield UNADJUSTED
    if bare := [str(found.method) for found in tuned.methods if not found.trials]:
        yield f"No range declared or nothing trained, so nothing tuned: {one_line(', '.join(bare))}."
    if tuned.cost is not None:
        yield (
            f"All trials that finished: {duration(tuned.cost.seconds)}, {tuned.cost.tokens:,} tokens, including the "
            "base's log-probabilities that they share."
        )
