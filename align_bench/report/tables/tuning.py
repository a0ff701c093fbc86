"""The trials of every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align_bench.report.formatting import duration, one_line, with_spread
from align_bench.report.tables.section import UNADJUSTED, Column, Section, text
from align_bench.report.tables.values import Spread, Value, count
from align_bench.report.tables.values import number as decimals

if TYPE_CHECKING:
    from align_bench.report.schema import Report, Trial, Tuning


def trials(report: Report) -> Section:
    """Every trial of every method, where the suite has `tune`; what they cost stands among the costs."""
    methods = report.tuning.methods if report.tuning else []
    losses = any(trial.loss.value is not None for found in methods for trial in found.trials)
    rows: list[tuple[Value, ...]] = [
        (
            one_line(found.method),
            count(number),
            one_line(_differing(trial, found.trials)),
            *((Spread(trial.loss), decimals(trial.training_loss)) if losses else ()),
            Spread(trial.accuracy),
            "kept" if number == found.kept else "",
        )
        for found in methods
        for number, trial in enumerate(found.trials)
    ]
    columns = [
        *(text("method"), Column("trial"), text("setting")),
        *([Column("held-out loss"), Column("training loss")] if losses else []),
        *(Column("accuracy"), text("", wraps=False)),
    ]
    captions = list(_captions(report.tuning)) if report.tuning and rows else []
    return Section("Trials on pairs held out of train", columns, rows, captions, chapter="training")


def _differing(one: Trial, trials: Sequence[Trial]) -> str:
    """A trial's parameters, those in which the method's trials differ."""
    names = [name for name in one.parameters if len({repr(trial.parameters[name]) for trial in trials}) > 1]
    return ", ".join(f"{name}={one.parameters[name]}" for name in names)


def _captions(tuned: Tuning) -> Iterator[str]:
    settings, held = tuned.settings, tuned.held_out
    slice_ = f"{held.pairs:,} pairs of {held.prompts:,} prompts" if held else "the held-out prompts"
    listed = [name for name, values in (settings.methods or {}).items() if values]
    if listed:
        yield f"{one_line(', '.join(listed))}: all combinations of the values that the suite lists."
    if len(listed) < len({found.method.name for found in tuned.methods}):
        yield (
            f"{'Every other' if listed else 'Every'} method: {settings.trials} trials ({settings.search} search, seed "
            f"{settings.seed}), the first with its own parameters."
        )
    yield f"Trained on train without {slice_}, and measured on these."
    yield (
        "accuracy: of the scores (reward models) or of the mean log-probability per token (policies); a tie "
        "counts as ½."
    )
    if any(trial.loss.value is not None for found in tuned.methods for trial in found.trials):
        yield (
            "held-out loss: mean of −log σ of the chosen answer's score less the rejected one's, nats (chance: ln 2); "
            "training loss: mean of the method's own loss over the last quarter of the steps; nothing is chosen by it."
        )
    yield (
        f"{'The lowest held-out loss' if settings.choose_by == 'loss' else 'The highest accuracy'} is kept, the "
        "earlier one of a tie, and trained again on all of train. As the best of several, it is biased; the tables "
        "above are not."
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
