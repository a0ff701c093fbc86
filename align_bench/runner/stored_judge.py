"""A reward model or judge of an earlier run, loaded again from its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import MissingResultError, ModelError, nearest
from align_bench.judge.ensemble import combine
from align_bench.judge.find import find_judge
from align_bench.judge.loaded import load_judge
from align_bench.judge.reward_model import RewardModel
from align_bench.models.base import find_base, template_inputs
from align_bench.models.load import load_adapter, load_scorer, load_tokenizer
from align_bench.models.precision import resolve_precision
from align_bench.records import no_update
from align_bench.store.store import Store
from align_bench.suite.load import load_suite
from align_bench.suite.models import Ensemble, LoadedJudge

if TYPE_CHECKING:
    from align_bench.judge.reward_model import Scorer
    from align_bench.records import Conversation, Update
    from align_bench.store.notes import Scorers


@dataclass(frozen=True, slots=True)
class Run:
    """A suite that was run.

    Attributes:
        folder: of what has been computed, such as `runs`.
        suite: its name.
        scorers: what it noted of its base, reward models and judges.
    """

    folder: Path
    suite: str
    scorers: Scorers


@dataclass(frozen=True, slots=True)
class StoredScorer:
    """A judge of a run, or one of its reward models; members of an ensemble are loaded one after the other.

    Attributes:
        run: the run that it is of.
        name: the judge's name, or the cell.
        cells: the cells whose scores make its own.
        ensemble: how; None for a single one.
        precision: `auto`, `fp32`, `bf16` or `nf4`; None for the run's own.
    """

    run: Run
    name: str
    cells: Sequence[str]
    ensemble: Ensemble | None
    precision: str | None = None

    def __call__(
        self, conversations: Sequence[Conversation], *, max_tokens: int, update: Update = no_update
    ) -> tuple[list[float], int]:
        """See `reward_model.Scorer`."""
        members, truncated = [], 0
        for place, cell in enumerate(self.cells):

            def whole(done: int, total: int, note: str = "", place: int = place) -> None:
                update(place * total + done, len(self.cells) * total, note)

            scores, truncated_here = self._loaded(cell)(conversations, max_tokens=max_tokens, update=whole)
            members.append(scores)
            truncated = max(truncated, truncated_here)
        return combine(members, self.ensemble), truncated

    def _loaded(self, name: str) -> Scorer:
        scorers = self.run.scorers
        cell, precision = scorers.cells[name], resolve_precision(self.precision or scorers.storage)
        if cell.loaded is not None:
            judge = LoadedJudge.model_validate(cell.loaded)
            found = find_judge(judge)
            inputs = template_inputs(found, judge.chat_template_kwargs, judge.date)
            return load_judge(found, precision, judge.template, inputs)
        noted = cell.base or scorers.base
        base = find_base(noted.name)
        if base.digest != noted.digest:
            raise ModelError(
                f"the base {base.name} is not the one that {name} of {self.run.suite} was trained on",
                fix="bring back that base, or run the suite again",
            )
        artefact = Store(self.run.folder).get(cell.adapter) if cell.adapter else None
        if artefact is None:
            raise MissingResultError(f"{name} of {self.run.suite} is not stored", fix="align-bench run computes it")
        model = load_adapter(load_scorer(base, precision, seed=cell.seed), artefact.folder)
        inputs = template_inputs(base, noted.chat_template_kwargs, noted.date)
        return RewardModel(model, load_tokenizer(base, inputs), scorers.max_length)


def stored_scorer(run: Run, name: str | None = None, precision: str | None = None) -> StoredScorer:
    """A judge or reward model of a run.

    Args:
        run: the run.
        name: a cell, such as `rm` or `judge`, or a judge's name; None for the first judge that is a model.
        precision: None for the run's own.

    Raises:
        MissingResultError: the run has no such judge.
    """
    cells = run.scorers.cells
    models = {judge: found for judge, found in run.scorers.judges.items() if found.cells}  # gold is none
    found = str(name or next(iter([*models, *cells]), None))
    if found in cells and name is not None:  # a judge may be called by its method, as a cell of that method is
        return StoredScorer(run, name, [name], None, precision)
    if found in models:
        given = models[found].ensemble
        ensemble = None if given is None else Ensemble.model_validate(given)
        return StoredScorer(run, found, models[found].cells, ensemble, precision)
    if found in cells:
        return StoredScorer(run, found, [found], None, precision)
    known = {*models, *cells}
    raise MissingResultError(
        f"the run of {run.suite} has no judge or reward model {found!r}. {nearest(found, known, what='judge')}"
    )


def find_run(judge: str, runs: Path) -> tuple[Run, str | None] | None:
    """The run that `SUITE`, `SUITE:JUDGE` or a suite's file means, and the judge of it; None when it means none.

    Args:
        judge: what the user typed.
        runs: the folder of what has been computed.
    """
    first, _, name = judge.partition(":")
    if Path(first).suffix in (".yaml", ".yml") and Path(first).is_file():
        first = load_suite(first).name
    note = Store(runs).notes.get(first)
    return None if note is None or note.scorers is None else (Run(runs, first, note.scorers), name or None)
