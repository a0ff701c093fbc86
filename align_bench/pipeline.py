"""Walk the plan: skip what the store holds, run the rest, record failures, hand everything to the report."""

from __future__ import annotations

import gc
import json
import platform
import subprocess
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from align_bench.data.chat import load_table, save_table, tokenize
from align_bench.data.preferences import DataSource, fingerprint, read
from align_bench.errors import AlignBenchError, MissingResultError
from align_bench.evaluate.generate import generate
from align_bench.evaluate.preference import Columns, mismatched_logps, rewards_of, table_logps, table_scores
from align_bench.judge.gold import gold_score
from align_bench.judge.reward_model import score_answers
from align_bench.ledger import Meter, total
from align_bench.metrics.length import count_words
from align_bench.models.load import (
    Base,
    Precision,
    add_adapter,
    find_base,
    footprint,
    load_adapter,
    load_policy,
    load_scorer,
    load_tokenizer,
    resolve_precision,
    save_adapter,
)
from align_bench.plan import Address, Cell, Inputs, Plan, code_digest, make_plan
from align_bench.records import Cost, Generation, Outcome, Preference, PreferenceSet, Status, Tick, TokenRow, TokenTable
from align_bench.registry import Registry
from align_bench.report.build import build_report
from align_bench.report.export import read_report, write_report
from align_bench.store import Artefact, Store, content_key, write_atomically
from align_bench.suite import JUDGE_CELL, DataFile, Suite
from align_bench.train.loop import train

_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


class Watch(Protocol):
    """Where a run shows what it does."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Tick]:
        """A stage of a cell begins; its tick reports progress until the context ends."""

    def say(self, text: str) -> None:
        """One line that stays."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run works and where its report goes."""

    runs: Path = Path("runs")
    reports: Path = Path("reports")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A suite with all that its plan depends on."""

    suite: Suite
    registry: Registry
    base: Base
    precision: Precision
    plan: Plan


def prepare(suite: Suite, registry: Registry) -> Prepared:
    """Locate the base, fingerprint the data, resolve the precision and lay out the plan; loads no model.

    Raises:
        AlignBenchError: for anything that the user has to mend first.
    """
    for method in suite.methods:  # the cheapest mistakes first
        registry[method.name]
    base = find_base(suite.base)
    precision = resolve_precision(suite.precision)
    inputs = Inputs(
        train=fingerprint(source(suite.data.train, "train")),
        val=fingerprint(source(suite.data.val, "val")),
        judge=fingerprint(source(suite.judge.data, "judge")) if suite.judge else None,
        base=base.digest,
        precision=str(precision),
        versions={library: version(library) for library in _LIBRARIES},
    )
    return Prepared(suite, registry, base, precision, make_plan(suite, registry, inputs))


def source(file: DataFile, split: str) -> DataSource:
    """The reader's view of a suite's data entry; the embedded set's split falls back to the entry's own role."""
    embedded = file.path.startswith("embedded/")
    return DataSource(
        path=file.path,
        split=file.split or (split if embedded else None),
        columns=file.columns,
        rows=file.rows,
        revision=file.revision,
        bias=file.bias,
    )


def run(
    prepared: Prepared,
    watch: Watch,
    folders: Folders,
    *,
    command: str,
    methods: Sequence[str] | None = None,
    compute: bool = True,
) -> dict[str, Any]:
    """Run a suite, or what is missing of it, and write its report.

    Args:
        prepared: from `prepare`.
        watch: where progress is shown.
        folders: where to work and to report.
        command: what the user typed, for the report.
        methods: compute the cells of these methods only; others are reported as far as they are stored.
        compute: False to report what is stored and load no model.

    Returns:
        The report, as written to `report.json`.
    """
    report_folder = folders.reports / prepared.suite.name
    store = Store(folders.runs / prepared.suite.name)
    state = content_key([prepared.plan.fingerprint, code_digest("report", "stats", "metrics", "judge")])
    if (finished := _finished(report_folder, state, store, prepared.plan)) is not None:
        return finished
    with store.lock():
        work = _Work(prepared, store, watch, compute, command, state)
        report, scores, generations = work.report(None if methods is None else frozenset(methods))
        write_report(report_folder, report, scores, generations)
    return report


def _finished(folder: Path, state: str, store: Store, plan: Plan) -> dict[str, Any] | None:
    """The report on disk, if it is this very plan's, every cell is done, and the store still holds what it rests on."""
    try:
        report = read_report(folder)
    except (AlignBenchError, OSError, ValueError):
        return None
    done = all(result["status"] == "done" for result in report["results"])
    stored = all((address.kind, address.key) in store for _, address in plan.addresses())
    return report if done and stored and report["suite"].get("state") == state else None


class _Work:
    """One run: the artefacts by address, and the few objects that many of them are made from."""

    def __init__(self, prepared: Prepared, store: Store, watch: Watch, compute: bool, command: str, state: str) -> None:
        self.suite = prepared.suite
        self.plan = prepared.plan
        self.base = prepared.base
        self.precision = prepared.precision
        self.store = store
        self.watch = watch
        self.compute = compute
        self.command = command
        self.state = state
        self._read: dict[str, PreferenceSet] = {}
        self._tables: dict[str, TokenTable] = {}

    # -- the walk ----------------------------------------------------------------------------------------------------

    def report(self, methods: frozenset[str] | None) -> tuple[dict[str, Any], list[dict[str, Any]], list[Generation]]:
        """Compute what is missing, then gather the report and its two tables."""
        for split in self.plan.tokens:
            self.table(split)
        judge = self._finish(self.plan.judge, self.compute) if self.plan.judge else None
        outcomes = [judge] if judge else []
        scores = self._scores(self.plan.judge) if self.plan.judge and judge and judge.status == "done" else []
        generations: list[Generation] = []
        for cell in (self.plan.base, *self.plan.cells):
            wanted = methods is None or cell.algorithm in methods or cell.plugin is None
            outcome = self._finish(cell, self.compute and wanted, judge)
            outcomes.append(outcome)
            if outcome.status == "done":
                scores += self._scores(cell)
                generations += self._generations(cell, judge)
        header = self._header(judge)
        return build_report(header, outcomes, scores, generations), scores, generations

    def _finish(self, cell: Cell, compute: bool, judge: Outcome | None = None) -> Outcome:
        """Bring one cell to its end. A failure is a row with its reason; the others go on."""
        failure = self.store.folder / f"failed-{cell.val.key}.json"
        outcome = Outcome(cell.id, cell.algorithm, cell.kind, cell.all_parameters, cell.seed, "done", reward=_reward(cell))
        self.compute, before = compute, self.compute
        try:
            costs = self._compute_cell(cell, judged=judge is not None and judge.status == "done")
        except MissingResultError as error:
            stored = json.loads(failure.read_text(encoding="utf-8")) if failure.is_file() else None
            status: Status = "failed" if stored else "skipped"
            return replace(outcome, status=status, reason=stored["reason"] if stored else str(error))
        except Exception as error:  # one failed cell does not stop the others
            reason = _reason(error)
            write_atomically(failure, json.dumps({"cell": cell.id, "reason": reason, "traceback": traceback.format_exc()}))
            self.watch.say(f"{cell.id} failed: {reason}")
            return replace(outcome, status="failed", reason=reason)
        finally:
            self.compute = before
            gc.collect()
        failure.unlink(missing_ok=True)
        return replace(outcome, cost=total(costs))

    def _compute_cell(self, cell: Cell, *, judged: bool) -> list[Cost]:
        """All artefacts of a cell, in order; its own costs."""
        costs = []
        if cell.adapter is not None:
            costs.append(self._artefact(cell, cell.adapter, "train", self._train).cost)
        costs.append(self._artefact(cell, cell.val, "validation pairs", self._evaluate).cost)
        if cell.generations is not None:
            costs.append(self._artefact(cell, cell.generations, "generate", self._generate).cost)
        if cell.judged is not None and judged:
            costs.append(self._artefact(cell, cell.judged, "judge", self._judge).cost)
        return costs

    def _artefact(
        self, cell: Cell, address: Address, label: str, make: Callable[[Cell, Path, Tick], tuple[int, Mapping[str, Any]]]
    ) -> Artefact:
        """The stored artefact, or a fresh one.

        Args:
            cell: whose artefact it is.
            address: where it lies.
            label: what is shown while it is made.
            make: writes its files into a folder; returns the tokens it brought through the model, and facts to keep.
        """
        if (stored := self.store.get(address.kind, address.key)) is not None:
            return stored
        if not self.compute:
            raise MissingResultError(f"{cell.id}: {label} is not stored", fix="align-bench run computes what is missing")
        with self.watch.stage(cell.id, label) as tick, self.store.scratch(address.kind, address.key) as folder:
            meter = Meter()
            tokens, facts = make(cell, folder, tick)
            return self.store.put(address.kind, address.key, folder, meter.cost(tokens), facts)

    # -- the stages: each writes one artefact ------------------------------------------------------------------------

    def _train(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        assert cell.plugin is not None
        assert cell.adapter is not None
        assert cell.learning_rate is not None
        algorithm = cell.plugin.algorithm
        rows = self.table("judge" if cell.id == JUDGE_CELL else "train").rows
        reference = self._columns(cell, cell.reference) if cell.reference else None
        frozen = (
            load_scorer(self.base, self.precision, seed=cell.seed)
            if cell.kind == "reward"
            else load_policy(self.base, self.precision)
        )
        model = add_adapter(frozen, self.suite.lora, seed=cell.seed)
        size = footprint(model)
        self._say_loaded(size.parameters, size.trainable, size.bytes)
        partial = self.store.partial(cell.adapter.kind, cell.adapter.key)
        log = train(
            model,
            rows,
            algorithm,
            cell.parameters,
            learning_rate=cell.learning_rate,
            settings=self.suite.train,
            seed=cell.seed,
            reference=reference,
            checkpoint=partial / "checkpoint.pt",
            tick=tick,
        )
        save_adapter(model, folder)
        (folder / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in log.steps), encoding="utf-8")
        self._discard(partial)
        return log.tokens, {"steps": len(log.steps), "trainable": size.trainable}

    def _evaluate(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        rows = self.table("val").rows
        model = self._model(cell)
        measure = table_scores if cell.kind == "reward" else table_logps
        _save_columns(measure(model, rows, max_tokens=self.suite.train.micro_batch_tokens, tick=tick), folder)
        return _tokens_in(rows), {}

    def _generate(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        rows = self._prompts
        prompts = [row.prompt for row in rows]
        answers = generate(
            self._model(cell), self.tokenizer, prompts, self.suite.generate, seed=cell.seed, tick=tick
        )
        with (folder / "answers.jsonl").open("w", encoding="utf-8") as stream:
            for row, samples in zip(rows, answers, strict=True):
                for sample, answer in enumerate(samples):
                    text = self.tokenizer.decode(answer.ids, skip_special_tokens=True)
                    line = {"pair": row.pair, "sample": sample, "ids": answer.ids, "text": text, "finished": answer.finished}
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        return sum(len(answer.ids) for samples in answers for answer in samples), {}

    def _judge(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        prompts = {row.pair: row.prompt for row in self._prompts}
        answers = [(prompts[line["pair"]], line["ids"]) for line in self._answers(cell)]
        found = score_answers(self._judge_model, answers, max_tokens=self.suite.train.micro_batch_tokens, tick=tick)
        (folder / "scores.json").write_text(json.dumps(found), encoding="utf-8")
        return sum(len(prompt) + len(answer) for prompt, answer in answers), {}

    def _refer(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        """The base's log-probabilities of the training rows, for every method that reads a reference."""
        assert cell.plugin is not None
        rows = self.table("train").rows
        model = load_policy(self.base, self.precision)
        limit = self.suite.train.micro_batch_tokens
        columns = table_logps(model, rows, max_tokens=limit, tick=tick)
        if cell.plugin.algorithm.data == "unpaired":
            columns |= mismatched_logps(model, rows, max_tokens=limit, tick=tick)
        _save_columns(columns, folder)
        return _tokens_in(rows), {}

    # -- what stages share -------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.base)

    @cached_property
    def _judge_model(self) -> Any:
        assert self.plan.judge is not None
        return self._model(self.plan.judge)

    @cached_property
    def _prompts(self) -> list[TokenRow]:
        """The first validation rows with distinct prompts: the same prompt answered twice is no second observation."""
        distinct: dict[tuple[int, ...], TokenRow] = {}
        for row in self.table("val").rows:
            distinct.setdefault(row.prompt, row)
        return list(distinct.values())[: self.suite.generate.prompts]

    def preferences(self, split: str) -> PreferenceSet:
        """The rows of a split, as read."""
        if split not in self._read:
            self._read[split] = read(source(self._file(split), split))
        return self._read[split]

    def table(self, split: str) -> TokenTable:
        """The tokenised table of a split, stored once for all methods; counts are printed when it is made."""
        if split in self._tables:
            return self._tables[split]
        address = self.plan.tokens[split]
        stored = self.store.get(address.kind, address.key)
        if stored is None:
            if not self.compute:
                raise MissingResultError(f"the tokens of {split} are not stored", fix="align-bench run computes what is missing")
            stored = self._tokenise(split, address)
        self._tables[split] = load_table(stored / "tokens.parquet")
        return self._tables[split]

    def _tokenise(self, split: str, address: Address) -> Artefact:
        file = self._file(split)
        with self.watch.stage(split, "tokens") as tick, self.store.scratch(address.kind, address.key) as folder:
            meter = Meter()
            read_rows = self.preferences(split)
            table = tokenize(
                self.tokenizer, read_rows, max_length=self.suite.train.max_length, too_long=file.too_long, progress=tick
            )
            save_table(folder / "tokens.parquet", table)
            facts = {"read": dict(read_rows.counts), "tokens": dict(table.counts), "shape": read_rows.shape}
            artefact = self.store.put(address.kind, address.key, folder, meter.cost(_tokens_in(table.rows)), facts)
        self.watch.say(f"{split}: {_counts_in_words(facts)}")
        return artefact

    def _file(self, split: str) -> DataFile:
        if split == "judge":
            assert self.suite.judge is not None
            return self.suite.judge.data
        file: DataFile = getattr(self.suite.data, split)
        return file

    def _model(self, cell: Cell) -> Any:
        """The trained model of a cell, or the base."""
        if cell.kind == "reward":
            model = load_scorer(self.base, self.precision, seed=cell.seed)
        else:
            model = load_policy(self.base, self.precision)
        if cell.adapter is None:
            size = footprint(model)
            self._say_loaded(size.parameters, size.trainable, size.bytes)
            return model
        stored = self.store.get(cell.adapter.kind, cell.adapter.key)
        if stored is None:
            raise MissingResultError(f"{cell.id}: its adapter is not stored")
        return load_adapter(model, stored.folder)

    @cache  # noqa: B019 - lives as long as the run; says each footprint once
    def _say_loaded(self, parameters: int, trainable: int, size: int) -> None:
        trained = f", of them {trainable:,} trained" if trainable else ""
        self.watch.say(f"loaded {self.base.name}: {parameters:,} parameters{trained}, {self.precision}, {size / 1e6:,.1f} MB")

    def _columns(self, cell: Cell, address: Address) -> Columns:
        from safetensors.torch import load_file

        artefact = self._artefact(cell, address, "reference log-probs", self._refer)
        columns: Columns = load_file(artefact / "columns.safetensors")
        return columns

    def _answers(self, cell: Cell) -> list[dict[str, Any]]:
        assert cell.generations is not None
        artefact = self.store.get(cell.generations.kind, cell.generations.key)
        assert artefact is not None, "generations come before what reads them"
        text = (artefact / "answers.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def _discard(self, partial: Path) -> None:
        (partial / "checkpoint.pt").unlink(missing_ok=True)
        if partial.is_dir():
            partial.rmdir()

    # -- from artefacts to the report's records ----------------------------------------------------------------------

    def _scores(self, cell: Cell) -> list[dict[str, Any]]:
        """A row per validation pair that has both answers, as `scores.parquet` shows it."""
        from safetensors.torch import load_file

        def columns(address: Address) -> Columns:
            artefact = self.store.get(address.kind, address.key)
            assert artefact is not None, "the cell is done"
            loaded: Columns = load_file(artefact / "columns.safetensors")
            return loaded

        every = self.table("val").rows
        places = [place for place, row in enumerate(every) if row.chosen is not None and row.rejected is not None]
        rows = [every[place] for place in places]
        measured = {side: values[places] for side, values in columns(cell.val).items()}
        logps = reference = None
        if cell.kind == "reward":
            rewards = measured
        else:
            logps = measured
            reference = {side: values[places] for side, values in columns(self.plan.base.val).items()}
            rewards = _policy_rewards(cell, rows, logps, reference)
        texts = {preference.pair: preference for preference in self.preferences("val").rows}
        return [
            {
                "cell": cell.id,
                "algorithm": cell.algorithm,
                "seed": cell.seed,
                "pair": row.pair,
                "chosen_reward": float(rewards["chosen"][place]),
                "rejected_reward": float(rewards["rejected"][place]),
                "chosen_tokens": len(row.chosen or ()),
                "rejected_tokens": len(row.rejected or ()),
                "chosen_logp": None if logps is None else float(logps["chosen"][place]),
                "rejected_logp": None if logps is None else float(logps["rejected"][place]),
                "ref_chosen_logp": None if reference is None else float(reference["chosen"][place]),
                "ref_rejected_logp": None if reference is None else float(reference["rejected"][place]),
                "chosen_words": count_words(texts[row.pair].chosen or ""),
                "rejected_words": count_words(texts[row.pair].rejected or ""),
                "gold_choice": row.gold_choice,
            }
            for place, row in enumerate(rows)
        ]

    def _generations(self, cell: Cell, judge: Outcome | None) -> list[Generation]:
        if cell.generations is None:
            return []
        answers = self._answers(cell)
        scores = self._judged(cell) if judge is not None and judge.status == "done" else None
        texts = {preference.pair: preference for preference in self.preferences("val").rows}
        return [
            Generation(
                cell=cell.id,
                algorithm=cell.algorithm,
                seed=cell.seed,
                prompt_id=line["pair"],
                sample=line["sample"],
                prompt=texts[line["pair"]].prompt[-1].content,
                text=line["text"],
                tokens=len(line["ids"]),
                finished=line["finished"],
                scores=_all_scores(self.judge_name, None if scores is None else scores[place], texts[line["pair"]], line["text"]),
            )
            for place, line in enumerate(answers)
        ]

    @property
    def judge_name(self) -> str:
        """How reports call the judge: by its method."""
        return self.suite.judge.method if self.suite.judge else "none"

    def _judged(self, cell: Cell) -> list[float] | None:
        if cell.judged is None:
            return None
        artefact = self.store.get(cell.judged.kind, cell.judged.key)
        assert artefact is not None, "the cell is done"
        scores: list[float] = json.loads((artefact / "scores.json").read_text(encoding="utf-8"))
        return scores

    def _header(self, judge: Outcome | None) -> dict[str, Any]:
        suite = self.suite
        return {
            "command": self.command,
            "suite": {"name": suite.name, "state": self.state, "settings": suite.model_dump(mode="json")},
            "base": {"name": self.base.name, "digest": self.base.digest, "precision": str(self.precision)},
            "data": {split: self._facts(address) for split, address in self.plan.tokens.items()},
            "judge": None if judge is None else {"name": self.judge_name, "cell": judge.cell, "status": judge.status},
            "environment": _environment(),
        }

    def _facts(self, address: Address) -> dict[str, Any]:
        artefact = self.store.get(address.kind, address.key)
        assert artefact is not None, "tokens come first"
        return dict(artefact.facts)


def _policy_rewards(cell: Cell, rows: Sequence[TokenRow], logps: Columns, reference: Columns) -> Columns:
    if cell.plugin is None:
        tokens = {side: torch.tensor([len(getattr(row, side)) for row in rows]) for side in logps}
        return {side: logps[side] / tokens[side] for side in logps}
    return rewards_of(cell.plugin.algorithm, cell.parameters, rows, logps, reference)


def _reward(cell: Cell) -> str:
    return cell.plugin.algorithm.reward if cell.plugin else "s̄"


def _all_scores(judge: str, score: float | None, preference: Preference, text: str) -> dict[str, float]:
    gold = gold_score(preference, text)
    return ({} if score is None else {judge: score}) | ({} if gold is None else {"gold": gold})


def _save_columns(columns: Columns, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(columns, folder / "columns.safetensors")


def _tokens_in(rows: Sequence[TokenRow]) -> int:
    return sum(
        len(row.prompt) + len(answer) for row in rows for answer in (row.chosen, row.rejected) if answer is not None
    )


def _counts_in_words(facts: Mapping[str, Any]) -> str:
    parts = [f"{facts['read']['read']:,} rows read ({facts['shape']})"]
    parts += [f"{count:,} {reason}" for reason, count in facts["read"].items() if reason.startswith("dropped") and count]
    parts += [f"{count:,} {reason}" for reason, count in facts["tokens"].items() if count]
    return ", ".join(parts)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, AlignBenchError) else f"{type(error).__name__}: {error}"


def _environment() -> dict[str, Any]:
    return {
        "align_bench": version("align-bench"),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "libraries": {library: version(library) for library in (*_LIBRARIES, "accelerate", "scipy", "statsmodels", "numpy")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of a clone that runs in place; None for an installed package."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
