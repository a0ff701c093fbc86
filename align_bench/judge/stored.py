"""A reward model or judge of an earlier run, loaded again from its store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_bench.errors import MissingResultError, ModelError, StoreError, nearest
from align_bench.judge.ensemble import combine
from align_bench.judge.loaded import find_judge, load_judge
from align_bench.judge.reward_model import RewardModel, Scorer
from align_bench.models.load import find_base, load_adapter, load_scorer, load_tokenizer, resolve_precision
from align_bench.records import Conversation, Tick, silent
from align_bench.store import Store
from align_bench.suite.models import Ensemble, LoadedJudge

SCORERS = "scorers.json"  # what a run notes of its reward models and judges


@dataclass(frozen=True, slots=True)
class StoredScorer:
    """A judge of a run, or one of its reward models; members of an ensemble are loaded one after the other.

    Attributes:
        run: the run's folder.
        name: the judge's name, or the cell.
        cells: the cells whose scores make its own.
        ensemble: how; None for a single one.
        note: the run's `scorers.json`.
        precision: `auto`, `fp32`, `bf16` or `nf4`; None for the run's own.
    """

    run: Path
    name: str
    cells: Sequence[str]
    ensemble: Ensemble | None
    note: Mapping[str, Any]
    precision: str | None = None

    def __call__(
        self, conversations: Sequence[Conversation], *, max_tokens: int, tick: Tick = silent
    ) -> tuple[list[float], int]:
        """See `reward_model.Scorer`."""
        members, cut = [], 0
        for place, cell in enumerate(self.cells):

            def whole(done: int, total: int, note: str = "", place: int = place) -> None:
                tick(place * total + done, len(self.cells) * total, note)

            scores, short = self._loaded(cell)(conversations, max_tokens=max_tokens, tick=whole)
            members.append(scores)
            cut = max(cut, short)
        return combine(members, self.ensemble), cut

    def _loaded(self, name: str) -> Scorer:
        cell, precision = self.note["cells"][name], resolve_precision(self.precision or self.note["storage"])
        if cell["loaded"] is not None:
            judge = LoadedJudge(**cell["loaded"])
            return load_judge(find_judge(judge), precision, judge.template)
        base = find_base(self.note["base"]["name"])
        if base.digest != self.note["base"]["digest"]:
            raise ModelError(
                f"the base {base.name} is not the one that {name} of {self.run} was trained on",
                fix="bring back that base, or run the suite again",
            )
        artefact = Store(self.run).get(cell["adapter"]["kind"], cell["adapter"]["key"])
        if artefact is None:
            raise MissingResultError(f"{name} of {self.run} is not stored", fix="align-bench run computes it")
        model = load_adapter(load_scorer(base, precision, seed=cell["seed"]), artefact.folder)
        return RewardModel(model, load_tokenizer(base), self.note["max_length"])


def stored_scorer(run: Path, name: str | None = None, precision: str | None = None) -> StoredScorer:
    """A judge or reward model of a run.

    Args:
        run: the run's folder, such as `runs/assignment`.
        name: a judge's name or a cell; None for the first judge that is a model.
        precision: None for the run's own.

    Raises:
        MissingResultError: the run has no such judge.
        StoreError: its note is damaged.
    """
    path = run / SCORERS
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        judges, cells = note["judges"], note["cells"]
    except FileNotFoundError:
        raise MissingResultError(f"{run} holds no finished run", fix="align-bench run SUITE") from None
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}", fix="align-bench run writes it anew") from error
    models = [judge for judge, found in judges.items() if found["cells"]]  # gold is none
    name = str(name or next(iter([*models, *cells]), None))
    if name in models:
        ensemble = judges[name]["ensemble"]
        return StoredScorer(
            run, name, judges[name]["cells"], Ensemble(**ensemble) if ensemble else None, note, precision
        )
    if name in cells:
        return StoredScorer(run, name, [name], None, note, precision)
    known = {*models, *cells}
    raise MissingResultError(f"{run} has no judge or reward model {name!r}. {nearest(name, known, what='judge')}")
