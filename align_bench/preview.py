"""What `align-bench plan` shows: the cells, what is stored of each, and a rough cost of the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from align_bench.data.preferences import read
from align_bench.gather import source
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.models.load import base_parameters
from align_bench.pipeline import HELD_OUT, Folders, Prepared, stage_label, tuned, warnings
from align_bench.plan import Address, Cell
from align_bench.store import MANIFEST, Store
from align_bench.suite.models import BASE_CELL, JUDGE_CELL, DataFile, TrainedJudge, judge_cell
from align_bench.trials import in_words

# A frozen base needs no weight gradients: forward 2N, backward through the activations 2N.
_FLOPS_PER_TOKEN = {
    "adapter": 4,
    "reference": 2,
    "val": 2,
    "generations": 2,
    "judged": 2,
    "drift": 2,
    "audit": 2,
}
_CHARACTERS_PER_TOKEN = 4
# Share of the matrix-product rate that whole passes were seen to reach.
_UTILISATION = 0.3
_STAGES = {
    "adapter": "train",
    "val": "validation",
    "generations": "generate",
    "judged": "judge",
    "drift": "drift",
    "audit": "audit",
}


def plan_tables(prepared: Prepared, folders: Folders) -> Iterator[RenderableType]:
    """A table of cells with their stages (stored, or estimated seconds), and how the estimate came about."""
    store = Store(folders.runs / prepared.suite.name)
    prepared, tried = tuned(prepared, store)
    plan = prepared.plan
    estimate = _Estimate.of(prepared, store)
    table = Table(
        title=Text(f"{prepared.suite.name}: {len(plan.cells)} cells on {prepared.base.name}, {prepared.precision}")
    )
    for heading in ("cell", "seed", *_STAGES.values()):
        table.add_column(heading)
    parts = _parts(prepared, estimate)
    for cell, rough in parts:
        table.add_row(escape(cell.id), str(cell.seed), *(_stage(cell, kind, store, rough) for kind in _STAGES))
    yield table
    missing = list(_missing(parts, store))
    steps = _steps(prepared, estimate)
    absent = {address for address in plan_addresses(prepared) if (address.kind, address.key) not in store}
    yield Text(
        f"artefacts: {len(plan_addresses(prepared))} in all, {len(absent)} not stored; "
        f"{steps} optimizer steps per policy cell trained on pairs; "
        f"missing work: {sum(rough.flops(kind, cell) for kind, cell, rough, _ in missing) / 1e12:,.1f} TFLOP, "
        f"about {_roughly(sum(rough.seconds(kind, cell) for kind, cell, rough, _ in missing))}"
    )
    yield Text(estimate.basis, style="dim")
    for name, trials in tried.items():
        yield Text(in_words(name, trials))
    for warning in warnings(plan):
        yield Text(warning, style="yellow")


def expected_seconds(
    prepared: Prepared, folders: Folders, methods: Sequence[str] | None = None
) -> dict[tuple[str, str], float]:
    """What the missing stages are expected to take: (cell, label of the stage) → seconds; none when all is stored.

    Args:
        prepared, folders: as a run takes them.
        methods: count the cells of these methods only, with the base and the judges.
    """
    store = Store(folders.runs / prepared.suite.name)
    if all((address.kind, address.key) in store for address in plan_addresses(prepared)):
        return {}
    trials = {cell.id for cell in prepared.tuning.plan.cells} if prepared.tuning else set()
    expected = {}
    for kind, cell, estimate, address in _missing(_parts(prepared, _Estimate.of(prepared, store)), store):
        if methods is None or cell.plugin is None or cell.is_judge or cell.algorithm in methods:
            label = stage_label(kind, cell, address)
            shown = BASE_CELL if address == cell.base_proxy else cell.id
            expected[shown, HELD_OUT if kind == "val" and cell.id in trials else label] = estimate.seconds(kind, cell)
    return expected


def _parts(prepared: Prepared, estimate: _Estimate) -> list[tuple[Cell, _Estimate]]:
    """Every cell with what its stages are estimated by: trials first, as they run."""
    plan = prepared.plan
    parts = [(cell, estimate) for cell in (plan.base, *plan.judges, *plan.cells)]
    if prepared.tuning and prepared.suite.tune:
        held = estimate.of_trials(prepared.suite.tune.holdout)
        parts = [*((cell, held) for cell in prepared.tuning.plan.cells), *parts]
    return parts


def plan_addresses(prepared: Prepared) -> list[Address]:
    """Every artefact of the plan, shared ones once."""
    plans = [prepared.plan, *([prepared.tuning.plan] if prepared.tuning else [])]
    return list(dict.fromkeys(address for plan in plans for _, address in plan.addresses()))


def _stage(cell: Cell, kind: str, store: Store, estimate: _Estimate) -> str:
    addresses = _addresses(cell)[kind]
    absent = [address for address in addresses if (address.kind, address.key) not in store]
    if absent:
        return f"~{_roughly(len(absent) * estimate.seconds(kind, cell))}"
    return "[green]stored[/]" if addresses else "–"


def _addresses(cell: Cell) -> Mapping[str, Sequence[Address]]:
    """Stage → what it makes; each of a selection's draws costs what a policy's generations do."""
    made: dict[str, list[Address | None]] = {
        "reference": [cell.reference, cell.mismatched],
        "adapter": [cell.adapter],
        "val": [cell.val],
        "generations": [*cell.draws, cell.generations],
        "drift": [cell.drift],
        "judged": [*cell.judged.values(), cell.base_proxy, cell.proxy],
        "audit": [cell.audit],
    }
    return {kind: [address for address in several if address is not None] for kind, several in made.items()}


def _missing(parts: list[tuple[Cell, _Estimate]], store: Store) -> Iterator[tuple[str, Cell, _Estimate, Address]]:
    """Each artefact that is not stored, once, with a cell that needs it and what it is estimated by."""
    seen: set[Address] = set()
    for cell, estimate in parts:
        for kind, address in ((kind, address) for kind, several in _addresses(cell).items() for address in several):
            if address not in seen and (address.kind, address.key) not in store:
                seen.add(address)
                yield kind, cell, estimate, address


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Tokens by stage, and how fast they go through the model."""

    tokens: Mapping[str, int]
    rows: int
    parameters: int
    epochs: int
    rates: Mapping[str, float]
    flops_per_second: float
    basis: str

    @classmethod
    def of(cls, prepared: Prepared, store: Store) -> _Estimate:
        suite = prepared.suite
        sizes = {"train": _size(suite.data.train, "train"), "val": _size(suite.data.val, "val")}
        judges = {
            judge_cell(place): _size(judge.data, JUDGE_CELL)
            for place, judge in enumerate(suite.judge)
            if isinstance(judge, TrainedJudge)
        }
        answered = min(suite.generate.prompts, sizes["val"][0]) * suite.generate.samples
        prompt_share = sizes["val"][2] // max(1, sizes["val"][0])
        tokens = {
            "train": sizes["train"][1],
            **{name: tokens for name, (_, tokens, _) in judges.items()},
            "val": sizes["val"][1],
            "generations": answered * (prompt_share + suite.generate.max_new_tokens // 2),
            "audit": len(VERSIONS)
            * sizes["val"][1]
            * min(suite.audit.pairs, sizes["val"][0])
            // max(1, sizes["val"][0]),
        }
        rates = _stored_rates(store.folder)
        known = ", ".join(sorted(rates)) or "none yet"
        basis = (
            f"rough: tokens from characters / {_CHARACTERS_PER_TOKEN}; seconds from this suite's own rates ({known}), "
            f"else from a measured matrix product at {_UTILISATION:.0%} utilisation"
        )
        parameters = base_parameters(prepared.base)
        return cls(
            tokens,
            sizes["train"][0],
            parameters,
            suite.train.epochs,
            rates,
            _matmul_rate(prepared.precision),
            basis,
        )

    def of_trials(self, holdout: float) -> _Estimate:
        """The same for trials, which train on a part of train and are measured on the rest."""
        train = self.tokens["train"]
        return replace(self, tokens={**self.tokens, "train": int((1 - holdout) * train), "val": int(holdout * train)})

    def work(self, kind: str, cell: Cell) -> int:
        if kind == "adapter":
            assert cell.plugin is not None
            # Mismatched answers pass forward only: half of a training pass; chosen answers are half of all.
            # Online: prompts with answers are sampled, judged, and measured under policy and reference before updates.
            share = {"unpaired": 1.5, "chosen": 0.5, "rollouts": 4}.get(cell.plugin.algorithm.data, 1)
            return int(self.tokens[cell.rows] * cell.settings.get("epochs", self.epochs) * share)
        if kind == "judged":
            return self.tokens["generations"]
        if kind == "drift":  # once under the policy, once under the base
            return 2 * self.tokens["generations"]
        return self.tokens["train" if kind == "reference" else kind]

    def flops(self, kind: str, cell: Cell) -> float:
        return self.work(kind, cell) * _FLOPS_PER_TOKEN[kind] * self.parameters

    def seconds(self, kind: str, cell: Cell) -> float:
        if kind in self.rates:
            return self.work(kind, cell) / self.rates[kind]
        return self.flops(kind, cell) / (self.flops_per_second * _UTILISATION)


def _size(file: DataFile, split: str) -> tuple[int, int, int]:
    """Rows, tokens of prompts with answers, and tokens of prompts alone."""
    rows = read(source(file, split)).rows
    prompts = answers = 0
    for row in rows:
        prompt = sum(len(message.content) for message in row.prompt)
        given = [answer for answer in (row.chosen, row.rejected) if answer is not None]
        prompts += prompt
        answers += len(given) * prompt + sum(map(len, given))
    return len(rows), answers // _CHARACTERS_PER_TOKEN, prompts // _CHARACTERS_PER_TOKEN


def _stored_rates(folder: Path) -> dict[str, float]:
    """Tokens per second by artefact kind, from the costs that finished artefacts recorded."""
    sums: dict[str, list[float]] = {}
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        if path.parent.name.startswith("damaged-"):
            continue
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kind, tokens, seconds = manifest["kind"], manifest["cost"]["tokens"], manifest["cost"]["seconds"]
        except (ValueError, LookupError, TypeError):
            continue  # damaged; moved aside when it is next read
        both = sums.setdefault(kind, [0.0, 0.0])
        both[0] += tokens
        both[1] += seconds
    return {
        kind: tokens / seconds for kind, (tokens, seconds) in sums.items() if tokens and seconds and kind != "tokens"
    }


def _matmul_rate(precision: Any) -> float:
    """Floating-point operations per second of a 1,024-wide product in the compute type."""
    left = torch.randn(1024, 1024, device=precision.device, dtype=precision.compute)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.2:
        (left @ left)[0, 0].item()
        count += 1
    return 2 * 1024**3 * count / (time.perf_counter() - started)


def _steps(prepared: Prepared, estimate: _Estimate) -> str:
    """The optimizer steps of the policies that are trained on pairs: one number, or the least and the most."""
    suite = prepared.suite.train
    own = [
        suite.model_copy(update=dict(cell.settings))
        for cell in prepared.plan.cells
        if cell.kind == "policy" and cell.plugin is not None and cell.plugin.algorithm.data == "pairs"
    ]
    counts = sorted({-(-estimate.rows // train.batch_size) * train.epochs for train in own or [suite]})
    return "–".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def _roughly(seconds: float) -> str:
    """An estimate in two digits or so."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
