"""The files of a report folder, read with json and pyarrow alone, and the facts that no row holds."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Row = Mapping[str, Any]
Prompt = Hashable


def finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


@dataclass(frozen=True)
class Cell:
    """A cell of the suite, as `report.json` names it, with its rows."""

    place: int
    identity: Mapping[str, Any]
    text: str
    method: str
    seed: int
    algorithm: str
    kind: str
    status: str
    seconds: float | None
    scores: Sequence[Row]
    generations: Sequence[Row]

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def prompts(self) -> list[int]:
        return [row["prompt_id"] for row in self.generations]

    @property
    def one_sample(self) -> bool:
        return len(set(self.prompts)) == len(self.prompts)

    def column(self, name: str) -> list[float | None]:
        return [row[name] for row in self.scores]

    def judged(self, judge: str, scores: str = "scores") -> list[float | None]:
        return [row[scores].get(judge) for row in self.generations]

    def by_prompt(self, judge: str, scores: str = "scores") -> dict[Prompt, float]:
        """Prompt → mean of its samples' scores."""
        own: dict[Prompt, list[float]] = {}
        for row in self.generations:
            score = row[scores].get(judge)
            if finite(score):
                own.setdefault(row["prompt_id"], []).append(score)
        return {prompt: sum(found) / len(found) for prompt, found in own.items()}

    def samples(self, judge: str) -> dict[Prompt, list[float]]:
        own: dict[Prompt, list[float]] = {}
        for row in self.generations:
            if finite(row["scores"].get(judge)):
                own.setdefault(row["prompt_id"], []).append(row["scores"][judge])
        return own


def prompt_of(row: Row) -> Prompt:
    """What pairs of one prompt share; a pair whose prompt is not known is its own."""
    return ("pair", row["pair"]) if row["prompt_id"] is None else ("prompt", row["prompt_id"])


def method_text(cell: Mapping[str, Any]) -> str:
    shown = ",".join(f"{name}={value}" for name, value in cell["parameters"].items())
    return f"{cell['name']}[{shown}]" if shown else str(cell["name"])


def _facts(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is taken from `report.json`."""
    settings = report["suite"]["settings"].get("report", {})
    known = ("cell", "name", "algorithm", "kind", "seed", "status", "cost", "trainable", "start", "chain")
    return {
        "results": [{name: result.get(name) for name in known} for result in report["results"]],
        "judges": [judge["name"] for judge in report["judges"]],
        "data": report["data"],
        "vocabulary": report["base"].get("vocabulary"),
        "failed_checks": report.get("failed_checks", []),
        "equivalence_dz": settings.get("equivalence_dz", 0.1),
        "seed_noise": settings.get("seed_noise"),
        "against": settings.get("against") or [],
    }


@dataclass(frozen=True)
class Folder:
    """A report's folder.

    Attributes:
        facts: what no row holds: of `report.json` the cells and how they ended, the judges' names, what is known of the
            data and the base, what methods failed, and the suite's margin of equivalence. None of its other numbers is
            here, so that what is found cannot rest on one.
        scores, pairs, audits, texts, generations: the rows.
        tested: rows of the test pairs, of suites that have some.
    """

    facts: Mapping[str, Any]
    scores: Sequence[Row]
    pairs: Sequence[Row]
    audits: Sequence[Row]
    texts: Sequence[Row]
    generations: Sequence[Row]
    tested: Sequence[Row] = ()

    @classmethod
    def read(cls, path: Path) -> Folder:
        lines = (path / "generations.jsonl").read_text(encoding="utf-8").split("\n")
        return cls(
            _facts(json.loads((path / "report.json").read_text(encoding="utf-8"))),
            pq.read_table(path / "scores.parquet").to_pylist(),
            pq.read_table(path / "pairs.parquet").to_pylist(),
            pq.read_table(path / "audit.parquet").to_pylist(),
            pq.read_table(path / "training_texts.parquet").to_pylist(),
            [json.loads(line) for line in lines if line],
            pq.read_table(tested).to_pylist() if (tested := path / "test_scores.parquet").exists() else [],
        )

    @cached_property
    def cells(self) -> list[Cell]:
        """In the order of `results`."""
        found = []
        for place, result in enumerate(self.facts["results"]):
            name, cell = result["name"], result["cell"]
            done = result["status"] == "done"
            scores = sorted((row for row in self.scores if done and row["cell"] == name), key=lambda row: row["pair"])
            answers = sorted(
                (row for row in self.generations if done and row["cell"] == name),
                key=lambda row: (row["prompt_id"], row["sample"]),
            )
            cost = result["cost"]
            found.append(
                Cell(
                    place,
                    cell,
                    cell["text"],
                    method_text(cell),
                    result["seed"],
                    result["algorithm"],
                    result["kind"],
                    result["status"],
                    None if cost is None else cost["seconds"],
                    scores,
                    answers,
                )
            )
        return found

    @cached_property
    def finished(self) -> list[Cell]:
        """Those that ended well, the base last."""
        done = [cell for cell in self.cells if cell.done]
        return [cell for cell in done if cell.kind != "base"] + [cell for cell in done if cell.kind == "base"]

    @cached_property
    def base(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.done and cell.kind == "base"), None)

    @cached_property
    def judges(self) -> list[str]:
        """The judges whose rewards are reported, the main one first; gold, with metrics of its own, only if main."""
        named = self._named("scores")
        panel = self.facts["judges"]
        seated = [name for place, name in enumerate(panel) if name != "gold" or place == 0]
        if any(name in named for name in seated):
            return seated
        return [name for name in named if name != "gold"]

    @cached_property
    def proxies(self) -> list[str]:
        return self._named("proxies")

    @cached_property
    def pair_prompts(self) -> dict[Hashable, Prompt]:
        return {row["pair"]: prompt_of(row) for cell in self.cells for row in cell.scores}

    @cached_property
    def equivalence_dz(self) -> float:
        return float(self.facts["equivalence_dz"])

    @property
    def seed_noise(self) -> float | None:
        """The declared one, in standard deviations of the differences on one prompt."""
        found: float | None = self.facts["seed_noise"]
        return found

    def _named(self, scores: str) -> list[str]:
        answers = [row for cell in self.cells for row in cell.generations]
        return list(dict.fromkeys(name for row in answers for name in row[scores]))
