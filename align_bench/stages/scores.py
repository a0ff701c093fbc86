"""Scores of answers, as stages keep them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_bench.stages.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from align_bench.store.store import Artefact

FILE = "scores.json"


class Scores(Stage["list[float]"]):
    """One score per answer, in their order; NaN where an answer could not be scored."""

    column = "judge"

    def load(self, artefact: Artefact) -> list[float]:
        scores = json.loads((artefact / FILE).read_text(encoding="utf-8"))
        return [math.nan if score is None else score for score in scores]


def save_scores(scores: Sequence[float], folder: Path) -> None:
    """Write scores as an artefact's file."""
    text = json.dumps([score if math.isfinite(score) else None for score in scores])
    (folder / FILE).write_text(text, encoding="utf-8")
