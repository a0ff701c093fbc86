"""Walk the plan: skip what the store holds, run the rest, record failures, hand everything to the report."""

from __future__ import annotations

import gc
import json
import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

from align_bench.api import Algorithm, Recipe, Selection
from align_bench.data.chat import save_table, tokenize
from align_bench.data.preferences import fingerprint
from align_bench.environment import environment, library_versions
from align_bench.errors import AlignBenchError, MissingResultError, PluginError
from align_bench.evaluate.drift import answer_drift
from align_bench.evaluate.preference import (
    Columns,
    mismatched_logps,
    table_attacked_scores,
    table_logps,
    table_scores,
)
from align_bench.gather import Results, data_file, source
from align_bench.judge.audit import SIDES, audit
from align_bench.judge.gold import gold_reward
from align_bench.judge.loaded import LoadedModel, find_judge, load_judge, weights_digest
from align_bench.judge.overlap import Overlap, in_words, overlap
from align_bench.judge.reward_model import RewardModel, Scorer, score_answers
from align_bench.judge.stored import SCORERS
from align_bench.ledger import Meter, total
from align_bench.metrics.counterfactual import VERSIONS
from align_bench.models.flops import counted
from align_bench.models.generate import generate
from align_bench.models.load import (
    Base,
    Footprint,
    Precision,
    add_adapter,
    draw_head,
    find_base,
    footprint,
    load_adapter,
    load_policy,
    load_scorer,
    load_tokenizer,
    resolve_precision,
    save_adapter,
    without_adapter,
)
from align_bench.plan import (
    Address,
    Cell,
    Inputs,
    Panelist,
    Plan,
    Tuning,
    code_digest,
    draw_seed,
    draw_settings,
    make_plan,
    plan_trials,
)
from align_bench.records import Conversation, Cost, Estimate, Outcome, Status, Tick, TokenRow, silent
from align_bench.registry import Registry
from align_bench.report.build import build_report
from align_bench.report.course import training_keywords
from align_bench.report.export import WRITTEN, read_report, write_report
from align_bench.report.naming import method_of
from align_bench.report.numerals import counts_in_words
from align_bench.store import Artefact, Store, content_key, make_folder, write_atomically
from align_bench.suite.models import (
    JUDGE_CELL,
    AnyJudge,
    Generate,
    GoldJudge,
    LoadedJudge,
    Suite,
    TrainedJudge,
    judge_cell,
)
from align_bench.train.loop import Reward, TrainLog, plugin_code, train
from align_bench.train.online import train_online
from align_bench.train.recipe import train_by_recipe
from align_bench.trials import Trial, Tried, block, found, measured_accuracy, store_cut, untuned
from align_bench.trials import in_words as trials_in_words

TRAIN = "train"  # the label of the stage that trains a cell
# Kind of an artefact → what is shown while it is made; trials are measured on other pairs.
LABELS = {
    "reference": "reference log-probs",
    "adapter": TRAIN,
    "val": "validation pairs",
    "generations": "generate",
    "judged": "judge",
    "drift": "drift",
    "audit": "audit",
}
HELD_OUT = "held-out pairs"


class Watch(Protocol):
    """Where a run shows what it does."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Tick]:
        """A stage of a cell begins; its tick reports progress until the context ends."""

    def say(self, text: str) -> None:
        """One line that stays."""


class Quiet:
    """A `Watch` that shows nothing."""

    def stage(self, cell: str, label: str) -> AbstractContextManager[Tick]:
        """Nothing is shown."""
        return nullcontext(silent)

    def say(self, text: str) -> None:
        """Nothing is said."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run works and where its report goes."""

    runs: Path = Path("runs")
    reports: Path = Path("reports")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A suite with all that its plan depends on, its trials where it has `tune`, and its loaded judges by cell."""

    suite: Suite
    registry: Registry
    base: Base
    precision: Precision
    inputs: Inputs
    plan: Plan
    tuning: Tuning | None
    loaded: Mapping[str, Base] = field(default_factory=dict)


def prepare(suite: Suite, registry: Registry) -> Prepared:
    """Locate the base, fingerprint the data, resolve the precision and lay out the plan; loads no model.

    Raises:
        AlignBenchError: for anything that the user has to mend first.
    """
    trained = [judge.method for judge in suite.judge if isinstance(judge, TrainedJudge)]
    selected = [*(method.name for method in suite.methods), *trained]
    algorithms = [registry[name].algorithm for name in selected]  # the cheapest mistakes first
    base = find_base(suite.base)
    loaded = {
        judge_cell(place): find_judge(judge)
        for place, judge in enumerate(suite.judge)
        if isinstance(judge, LoadedJudge)
    }
    precision = resolve_precision(suite.precision)
    inputs = Inputs(
        train=fingerprint(source(suite.data.train, "train")),
        val=fingerprint(source(suite.data.val, "val")),
        judge=tuple(_judge_digest(judge, loaded.get(judge_cell(place))) for place, judge in enumerate(suite.judge)),
        base=base.digest,
        precision=str(precision),
        versions=library_versions(),
        foreign=_foreign_versions(algorithms),
    )
    plan, tuning = make_plan(suite, registry, inputs), plan_trials(suite, registry, inputs)
    return Prepared(suite, registry, base, precision, inputs, plan, tuning, loaded)


def _judge_digest(judge: AnyJudge, loaded: Base | None) -> str | None:
    if isinstance(judge, TrainedJudge):
        return fingerprint(source(judge.data, JUDGE_CELL))
    return loaded.digest if loaded else None


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
    prepared, tried = tuned(prepared, store)
    settled = all(trial.settled for trials in tried.values() for trial in trials)
    if settled and (finished := _finished(report_folder, _state(prepared), store, prepared.plan)) is not None:
        return finished
    make_folder(report_folder)
    with store.lock():
        work = _Work(prepared, store, watch, compute)
        work.tokenise_all()
        if prepared.tuning is not None:
            prepared, tried = tuned(prepared, store, watch, methods=methods, compute=compute)
            work = _Work(prepared, store, watch, compute)
        plan, without = prepared.plan, untuned(tried)
        for warning in warnings(plan):
            watch.say(warning)
        for judge in plan.panel:
            work.check_overlap(judge, compute=compute)

        def wanted(cell: Cell) -> bool:
            return compute and (methods is None or cell.plugin is None or cell.algorithm in methods)

        outcomes = {judge.id: work.finish(judge, compute=compute) for judge in plan.judges}
        cells = (plan.base, *plan.cells)
        for cell in sorted(cells, key=_scores, reverse=True):  # those that stand on one loaded base, one after another
            if (reason := without.get(method_of(cell.id))) is not None:
                outcomes[cell.id] = replace(_outcome(cell), status="skipped", reason=reason)
                continue
            outcomes[cell.id] = work.finish(cell, compute=wanted(cell))
        outcomes = {cell.id: outcomes[cell.id] for cell in (*plan.judges, *cells)}
        work.judge(outcomes, wanted)
        done = [cell for cell in (*plan.judges, *cells) if outcomes[cell.id].status == "done"]
        audits = work.results.audited([cell for cell in done if _scores(cell)])
        able = [judge.name for judge in plan.panel if all(outcomes[cell.id].status == "done" for cell in judge.members)]
        scores = [row for cell in done for row in work.results.scores(cell)]
        generations = [record for cell in done for record in work.results.generations(cell, able)]
        header = _header(prepared, store, command, tried, outcomes)
        pairs = work.results.pairs()
        report = build_report(header, list(outcomes.values()), scores, generations, audits, pairs)
        training = [row for cell in done for row in work.results.training(cell)]
        write_report(report_folder, report, scores, generations, training, audits, pairs)
        _note_scorers(prepared, store)
    return report


def tuned(
    prepared: Prepared,
    store: Store,
    watch: Watch | None = None,
    *,
    methods: Sequence[str] | None = None,
    compute: bool = False,
) -> tuple[Prepared, Tried]:
    """Run the trials that are missing, or read what is stored of them; without `tune` there are none.

    Args:
        prepared: the suite as `prepare` left it, its training rows tokenised where `compute` is True.
        store: where the artefacts of its trials are.
        watch: where progress is shown.
        methods: run the trials of these methods only.
        compute: False to run none.

    Returns:
        The suite with the parameters that its trials found in place of the given ones, and its trials by method's
        cell. A method whose trials have not all ended keeps the given ones.
    """
    if prepared.tuning is None:
        return prepared, {}
    work = _Work(replace(prepared, plan=prepared.tuning.plan), store, watch or Quiet(), compute, HELD_OUT)
    if compute:
        store_cut(Results(prepared.suite, prepared.plan, store), prepared.tuning, store)
    tried = {}
    for name, cells in prepared.tuning.trials.items():
        tried[name] = [work.trial(cell, compute and (methods is None or cell.algorithm in methods)) for cell in cells]
        if watch is not None:
            watch.say(trials_in_words(name, tried[name]))
    plan = make_plan(prepared.suite, prepared.registry, prepared.inputs, found(tried))
    return replace(prepared, plan=plan), tried


def _state(prepared: Prepared) -> str:
    """What a finished report must rest on to be the report of this very plan."""
    trials = prepared.tuning and prepared.tuning.plan.fingerprint
    panel = [[judge.name, judge.ensemble and judge.ensemble.model_dump()] for judge in prepared.plan.panel]
    settings, code = prepared.suite.report.model_dump(), code_digest("report", "stats", "metrics", "judge")
    return content_key([prepared.plan.fingerprint, panel, trials, settings, code])


def warnings(plan: Plan) -> list[str]:
    """A line for each hyper-parameter outside its method's range, once for all seeds."""
    cells = [*plan.judges, *plan.cells]
    return list(dict.fromkeys(f"{method_of(cell.id)}: {warning}" for cell in cells for warning in cell.warnings))


def _finished(folder: Path, state: str, store: Store, plan: Plan) -> dict[str, Any] | None:
    """The report on disk, if it is this very plan's, every cell is done, and the store still holds what it rests on."""
    try:
        report = read_report(folder)
    except (AlignBenchError, OSError, ValueError):
        return None
    done = all(result["status"] == "done" for result in report["results"])
    stored = all((address.kind, address.key) in store for _, address in plan.addresses())
    whole = all((folder / name).is_file() for name in WRITTEN)
    return report if done and stored and whole and report["suite"].get("state") == state else None


def stage_label(kind: str, cell: Cell, address: Address) -> str:
    """What is shown while an artefact of a cell is made; a selection draws from the base several times, then picks."""
    if address == cell.mismatched:
        return "mismatched log-probs"
    if address in cell.draws:
        return f"draw {cell.draws.index(address) + 1} of {len(cell.draws)}"
    if address in (cell.proxy, cell.base_proxy) and cell.reward is not None:
        return f"proxy {cell.reward.id}"
    judge = next((judge for judge, scores in cell.judged.items() if scores == address), JUDGE_CELL)
    if judge != JUDGE_CELL:
        return f"{LABELS['judged']} ({judge})"
    return "pick" if kind == "generations" and cell.draws else LABELS[kind]


class _Work:
    """One run: walks the cells and makes each artefact that is missing, one stage a method."""

    def __init__(
        self, prepared: Prepared, store: Store, watch: Watch, compute: bool, measured: str = LABELS["val"]
    ) -> None:
        self.suite = prepared.suite
        self.plan = prepared.plan
        self.base = prepared.base
        self.loaded = prepared.loaded
        self.precision = prepared.precision
        self.store = store
        self.watch = watch
        self.compute = compute
        self.measured = measured
        self.results = Results(prepared.suite, prepared.plan, store)
        self._held: tuple[str, Any] | None = None  # a cell's model
        self._base: tuple[bool, Any] | None = None  # the base that it stands on: whether it has a scalar head
        self._loading = 0.0  # seconds of the stage that went into loading bases, which serve several cells
        self._said: set[str] = set()

    def tokenise_all(self) -> None:
        """The tables that every cell rests on; without them there is no run, so an error here ends it."""
        for split, address in self.plan.tokens.items():
            if (address.kind, address.key) not in self.store:
                if not self.compute:
                    raise MissingResultError(
                        f"nothing of the suite {self.suite.name} is stored in {self.store.folder}",
                        fix="align-bench run computes it",
                    )
                self._tokenise(split, address)

    def finish(self, cell: Cell, *, compute: bool) -> Outcome:
        """Bring one cell to its end. A failure is a row with its reason; the others go on."""
        failure = self._failure(cell)
        outcome = _outcome(cell)
        self.compute = compute
        try:
            costs = self._compute_cell(cell)
        except MissingResultError as error:
            stored = json.loads(failure.read_text(encoding="utf-8")) if failure.is_file() else None
            status: Status = "failed" if stored else "skipped"
            return replace(outcome, status=status, reason=stored["reason"] if stored else error.message)
        except Exception as error:  # one failed cell does not stop the others
            return replace(outcome, status="failed", reason=self._told(error, cell.id, failure))
        finally:
            gc.collect()
        failure.unlink(missing_ok=True)
        self._try_audit(cell)
        return replace(outcome, cost=total(costs), trainable=self._trainable(cell))

    def _try_audit(self, cell: Cell) -> None:
        """Audit a reward model or judge while its model is held; without one that cannot be, the run goes on."""
        if cell.audit is None:
            return
        try:
            self._artefact(cell, cell.audit, LABELS["audit"], self._audit)
        except MissingResultError:
            pass
        except Exception as error:  # an audit that fails takes nothing from the run
            self._told(error, f"audit of {cell.id}", self.store.folder / f"failed-{cell.audit.key}.json")

    def _told(self, error: Exception, what: str, failure: Path) -> str:
        """The reason of a failure, which is said and kept with its traceback."""
        reason = error.message if isinstance(error, AlignBenchError) else f"{type(error).__name__}: {error}"
        stays = isinstance(error, AlignBenchError)
        told = {"cell": what, "reason": reason, "stays": stays, "traceback": traceback.format_exc()}
        write_atomically(failure, json.dumps(told, indent=1))
        self.watch.say(f"{what} failed: {reason} (traceback in {failure})")
        return reason

    def judge(self, outcomes: dict[str, Outcome], wanted: Callable[[Cell], bool]) -> None:
        """Let every judge score every cell's generations, judge by judge, so that one is in memory at a time.

        Args:
            outcomes: cell → how it ended. What judging cost is added to it; that of a judge that fails here is
                replaced by its failure.
            wanted: whether to compute what is missing of a cell.
        """
        for judge in self.plan.judges:
            for cell in (self.plan.base, *self.plan.cells):
                if {outcomes[judge.id].status, outcomes[cell.id].status} != {"done"} or not cell.judged:
                    continue
                self.compute = wanted(cell)
                outcome, address = outcomes[cell.id], cell.judged[judge.id]
                try:
                    make = partial(self._judge, judge)
                    found = self._artefact(cell, address, stage_label("judged", cell, address), make)
                except MissingResultError as error:
                    outcomes[cell.id] = replace(outcome, status="skipped", reason=error.message, cost=None)
                except Exception as error:  # the other judges, and what it has scored already, go on
                    reason = self._told(error, judge.id, self._failure(judge))
                    outcomes[judge.id] = replace(outcomes[judge.id], status="failed", reason=reason, cost=None)
                else:
                    costs = [cost for cost in (outcome.cost, found.cost) if cost is not None]
                    outcomes[cell.id] = replace(outcome, cost=total(costs))

    def check_overlap(self, judge: Panelist, *, compute: bool) -> None:
        """Say how many of a judge's training rows are also the policies'."""
        if judge.overlap is None:
            return
        self.compute = compute
        with suppress(MissingResultError):
            found = self._artefact(judge.members[0], judge.overlap, "rows shared with train", self._overlap)
            if (warning := in_words(judge.name, Overlap(**found.facts))) is not None:
                self.watch.say(warning)

    def trial(self, cell: Cell, compute: bool) -> Trial:
        """Bring a trial to its end. One that failed for a reason that stays is not tried again."""
        failure = self._failure(cell)
        stays = failure.is_file() and json.loads(failure.read_text(encoding="utf-8")).get("stays", False)
        outcome = self.finish(cell, compute=compute and not stays)
        if outcome.status != "done":
            return Trial(cell, outcome, Estimate(None), settled=stays)
        try:
            return Trial(cell, outcome, measured_accuracy(self.results, cell), settled=True)
        except MissingResultError as error:  # the held-out rows were damaged
            return Trial(cell, replace(outcome, status="skipped", reason=error.message), Estimate(None), settled=False)

    def _trainable(self, cell: Cell) -> int | None:
        return 0 if cell.adapter is None else self.results.artefact(cell.adapter).facts.get("trainable")

    def _failure(self, cell: Cell) -> Path:
        last = cell.val or cell.generations
        assert last is not None, "every cell yields something"
        return self.store.folder / f"failed-{last.key}.json"

    def _compute_cell(self, cell: Cell) -> list[Cost]:
        """All artefacts of a cell, in order; its own costs. What it shares with other cells is not charged to it."""
        costs = []
        if cell.reward is not None and cell.reward.adapter is not None:
            self._artefact(cell.reward, cell.reward.adapter, TRAIN, self._train)
        if cell.kind == "policy" and cell.val is not None:  # its rewards are read against the base's log-probabilities
            assert self.plan.base.val is not None
            self._artefact(self.plan.base, self.plan.base.val, self.measured, self._evaluate)
        if cell.adapter is not None:
            if self.store.get(cell.adapter.kind, cell.adapter.key) is None:
                # Before the training's meter runs, since methods share them; and before another model is in memory.
                for address, measure in ((cell.reference, table_logps), (cell.mismatched, mismatched_logps)):
                    if address is not None:
                        label = stage_label("reference", cell, address)
                        self._artefact(cell, address, label, partial(self._refer, measure))
            costs.append(self._artefact(cell, cell.adapter, TRAIN, self._train).cost)
        if cell.val is not None:
            costs.append(self._artefact(cell, cell.val, self.measured, self._evaluate).cost)
        for number, draw in enumerate(cell.draws):  # charged in full, whoever else picks from them
            label = stage_label("generations", cell, draw)
            costs.append(self._artefact(cell, draw, label, partial(self._draw, number)).cost)
        if cell.generations is not None:
            make = self._select if cell.draws else self._generate
            label = stage_label("generations", cell, cell.generations)
            costs.append(self._artefact(cell, cell.generations, label, make).cost)
        if cell.drift is not None:
            costs.append(self._artefact(cell, cell.drift, LABELS["drift"], self._drift).cost)
        if cell.proxy is not None:
            costs.append(self._proxy_scores(cell, cell.proxy))
        return costs

    def _proxy_scores(self, cell: Cell, address: Address) -> Cost:
        """What scoring a policy's answers by its own reward model cost; the base's are scored by that too."""
        base = self.plan.base
        assert cell.reward is not None and base.generations is not None and cell.base_proxy is not None  # noqa: PT018
        make = partial(self._proxy, cell.reward)
        self._artefact(base, base.generations, LABELS["generations"], self._generate)
        label = stage_label("judged", cell, address)
        self._artefact(base, cell.base_proxy, label, make)
        return self._artefact(cell, address, label, make).cost

    def _artefact(
        self,
        cell: Cell,
        address: Address,
        label: str,
        make: Callable[[Cell, Path, Tick], tuple[int, Mapping[str, Any]]],
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
            raise MissingResultError(f"{label}: not stored", fix="align-bench run computes what is missing")
        with (
            self.watch.stage(cell.id, label) as tick,
            self.store.scratch(address.kind, address.key) as folder,
            counted() as work,
        ):
            meter, self._loading = Meter(), 0.0
            tokens, facts = make(cell, folder, tick)
            cost = meter.cost(tokens, work.flops, self.precision)
            cost = replace(cost, seconds=cost.seconds - self._loading)
            return self.store.put(address.kind, address.key, folder, cost, facts)

    # Stages: each writes one artefact.

    def _tokenise(self, split: str, address: Address) -> None:
        with self.watch.stage(split, "tokens") as tick, self.store.scratch(address.kind, address.key) as folder:
            meter = Meter()
            rows = self.results.preferences(split)
            too_long = data_file(self.suite, split).too_long
            table = tokenize(
                self.tokenizer, rows, max_length=self.suite.train.max_length, too_long=too_long, progress=tick
            )
            save_table(folder / "tokens.parquet", table)
            facts = {"shape": rows.shape, "read": dict(rows.counts), "tokens": dict(table.counts)}
            self.store.put(address.kind, address.key, folder, meter.cost(_tokens_in(table.rows), 0.0), facts)
        self.watch.say(f"{split}: {counts_in_words(facts)}")

    def _train(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        assert cell.plugin is not None
        assert cell.adapter is not None
        assert cell.learning_rate is not None
        reference = self.results.columns(cell.reference) if cell.reference else None
        if reference is not None and cell.mismatched is not None:
            reference |= self.results.columns(cell.mismatched)
        self._release()
        base, self._base = self._frozen(cell), None  # until it comes back unharmed
        model = add_adapter(base, self.suite.lora, seed=cell.seed)
        size = footprint(model)
        self._say_loaded(size)
        rows = self.results.table(cell.rows).rows
        unfinished = self.store.partial(cell.adapter.kind, cell.adapter.key)
        shared: dict[str, Any] = {
            "learning_rate": cell.learning_rate,
            "settings": self.suite.train.model_copy(update=dict(cell.settings)),
            "seed": cell.seed,
            "track": self.store.folder / "trackers" / cell.id,
            "tick": tick,
        }
        method, checkpoint = cell.plugin.algorithm, unfinished / "checkpoint.pt"
        log: TrainLog
        if isinstance(method, Recipe):
            with tempfile.TemporaryDirectory() as scratch:
                log = train_by_recipe(
                    model,
                    load_tokenizer(self.base),
                    rows,
                    method,
                    cell.parameters,
                    precision=self.precision,
                    scratch=Path(scratch),
                    reward=self._reward(cell, rows, "train") if method.online else None,
                    **shared,
                )
        elif method.online:
            judge = self._reward(cell, rows, "train")
            log = train_online(
                model, self.tokenizer, rows, method, cell.parameters, judge, checkpoint=checkpoint, **shared
            )
        else:
            log = train(model, rows, method, cell.parameters, reference=reference, checkpoint=checkpoint, **shared)
        save_adapter(model, folder)
        if not isinstance(method, Recipe):  # a foreign trainer may have left anything on it
            self._keep(cell, without_adapter(model))
        (folder / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in log.steps), encoding="utf-8")
        shutil.rmtree(unfinished, ignore_errors=True)
        return log.tokens, {"steps": len(log.steps), "trainable": size.trainable}

    def _reward(self, cell: Cell, rows: Sequence[TokenRow], split: str) -> Reward:
        """What judges answers to rows of a split for an online method or a selection: a reward model, or gold."""
        if cell.reward is None:
            preferences = {preference.pair: preference for preference in self.results.preferences(split).rows}
            return gold_reward(self.tokenizer, [preferences[row.pair] for row in rows])
        assert cell.reward.adapter is not None
        adapter = self.results.artefact(cell.reward.adapter).folder
        scorer = load_adapter(load_scorer(self.base, self.precision, seed=cell.reward.seed), adapter)

        def reward(rows: Sequence[TokenRow], answers: Sequence[Sequence[int]]) -> list[float]:
            pairs = [(row.prompt, answer) for row, answer in zip(rows, answers, strict=True)]
            return score_answers(scorer, pairs, max_tokens=self.suite.train.micro_batch_tokens)

        return reward

    def _refer(
        self, measure: Callable[..., Columns], cell: Cell, folder: Path, tick: Tick
    ) -> tuple[int, Mapping[str, Any]]:
        """The base's log-probabilities of the training rows, for every method that reads them."""
        rows = self.results.table("train").rows
        limit = self.suite.train.micro_batch_tokens
        _save_columns(measure(self._model(self.plan.base), rows, max_tokens=limit, tick=tick), folder)
        return _distinct_tokens_in(rows), {}

    def _evaluate(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        rows = self.results.table("val").rows
        if cell.loaded is not None:
            return self._evaluate_loaded(cell, rows, folder, tick)
        measure = table_scores if cell.kind == "reward" else table_logps
        limit = self.suite.train.micro_batch_tokens
        columns = measure(self._model(cell), rows, max_tokens=limit, tick=tick)
        epsilons = self.suite.evaluate.epsilons if cell.kind == "reward" else []
        for epsilon in epsilons:
            columns |= table_attacked_scores(self._model(cell), rows, epsilon, max_tokens=limit, tick=tick)
        _save_columns(columns, folder)
        return _distinct_tokens_in(rows) * (1 + 2 * len(epsilons)), {}

    def _evaluate_loaded(
        self, cell: Cell, rows: Sequence[TokenRow], folder: Path, tick: Tick
    ) -> tuple[int, Mapping[str, Any]]:
        """A loaded judge reads the texts of the same rows; its own facts are kept for the report."""
        model, base = self._loaded(cell), self.loaded[cell.id]
        columns, cut = {}, 0
        for side in SIDES:
            places = [place for place, row in enumerate(rows) if getattr(row, side) is not None]
            pairs = [self.results.validation[rows[place].pair] for place in places]
            texts = [Conversation(pair.prompt, getattr(pair, side)) for pair in pairs]
            found, short = model(texts, max_tokens=self.suite.train.micro_batch_tokens, tick=tick)
            columns[side] = torch.full((len(rows),), torch.nan)
            columns[side][places] = torch.tensor(found)
            cut += short
        _save_columns(columns, folder)
        facts = {
            "model": base.name,
            "digest": base.digest,
            "weights_sha256": weights_digest(base),
            "template": model.template,
            "labels": model.labels,
            "truncated": cut,
        }
        return _distinct_tokens_in(rows), facts

    def _generate(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        return self._answer(self._model(cell), self.suite.generate, cell.seed, folder, tick)

    def _draw(self, number: int, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        """One answer of the base to each prompt, for selections."""
        settings = draw_settings(self.suite.generate, cell.parameters)
        return self._answer(self._model(self.plan.base), settings, draw_seed(cell.seed, number), folder, tick)

    def _answer(
        self, model: Any, settings: Generate, seed: int, folder: Path, tick: Tick
    ) -> tuple[int, Mapping[str, Any]]:
        rows = self.results.prompts
        prompts = [row.prompt for row in rows]
        answers = generate(model, self.tokenizer, prompts, settings, seed=seed, tick=tick)
        lines = [
            {
                "pair": row.pair,
                "sample": sample,
                "text": self.tokenizer.decode(answer.ids, skip_special_tokens=True),
                **asdict(answer),
            }
            for row, samples in zip(rows, answers, strict=True)
            for sample, answer in enumerate(samples)
        ]
        _save_answers(lines, folder)
        return sum(len(answer.ids) for samples in answers for answer in samples), {}

    def _select(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        """Of each prompt's draws, those that the selection picks; with more samples, one of each set of n draws."""
        assert cell.plugin is not None
        algorithm, n = cell.plugin.algorithm, cell.parameters["n"]
        assert isinstance(algorithm, Selection)
        self._release(base=True)
        rows, reward = self.results.prompts, self._reward(cell, self.results.prompts, "val")
        drawn, scored = [self.results.answers_at(draw) for draw in cell.draws], []
        for number, answers in enumerate(drawn):
            scored.append(reward(rows, [line["ids"] for line in answers]))
            tick(number + 1, len(drawn))
        lines = []
        for sample in range(len(drawn) // n):
            rewards = torch.tensor(scored[sample * n : (sample + 1) * n]).T
            with plugin_code(f"the choice of {algorithm.name}"):
                places = algorithm.pick(rewards, cell.parameters)
            for row, place in enumerate(places):
                draw = sample * n + place
                picked = {"draw": draw, "rewards": rewards[row].tolist()}
                lines.append({**drawn[draw][row], "sample": sample, **picked})
        _save_answers(lines, folder)
        return sum(len(row.prompt) * len(drawn) for row in rows) + sum(len(a["ids"]) for d in drawn for a in d), {}

    def _drift(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        """The policy's answers under itself and under the base, which is the policy with its adapter off."""
        answers = self._answers(cell)
        limit = self.suite.train.micro_batch_tokens
        drift = answer_drift(self._model(cell), answers, max_tokens=limit, tick=tick)
        (folder / "drift.json").write_text(json.dumps([asdict(one) for one in drift]), encoding="utf-8")
        return 2 * sum(len(prompt) + len(answer) for prompt, answer in answers), {}

    def _judge(self, judge: Cell, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        limit, answers = self.suite.train.micro_batch_tokens, self._answers(cell)
        cut = 0
        if judge.loaded is not None:
            scores, cut = self._loaded(judge)(self.results.conversations(cell), max_tokens=limit, tick=tick)
        else:
            scores = score_answers(self._model(judge), answers, max_tokens=limit, tick=tick)
        text = json.dumps([score if math.isfinite(score) else None for score in scores])
        (folder / "scores.json").write_text(text, encoding="utf-8")
        return sum(len(prompt) + len(answer) for prompt, answer in answers), {"truncated": cut}

    def _audit(self, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        rows = [row for row in self.results.table("val").rows if row.chosen is not None and row.rejected is not None]
        rows = rows[: self.suite.audit.pairs]
        pairs = [self.results.validation[row.pair] for row in rows]
        limit = self.suite.train.micro_batch_tokens
        found = audit(self._scorer(cell), pairs, seed=self.suite.audit.seed, max_tokens=limit, tick=tick)
        lines = [json.dumps(asdict(answer)) + "\n" for answer in found]
        (folder / "audit.jsonl").write_text("".join(lines), encoding="utf-8")
        return _distinct_tokens_in(rows) * len(VERSIONS), {"pairs": len(rows)}

    def _overlap(self, judge: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        return 0, asdict(overlap(self.results.table(judge.rows).rows, self.results.table("train").rows))

    def _proxy(self, reward: Cell, cell: Cell, folder: Path, tick: Tick) -> tuple[int, Mapping[str, Any]]:
        """The scores of a cell's answers by a reward model of the suite."""
        answers = self._answers(cell)
        limit = self.suite.train.micro_batch_tokens
        scores = score_answers(self._model(reward), answers, max_tokens=limit, tick=tick)
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
        return sum(len(prompt) + len(answer) for prompt, answer in answers), {}

    # What stages share.

    def _answers(self, cell: Cell) -> list[tuple[Sequence[int], Sequence[int]]]:
        """A policy's answers as (prompt ids, answer ids) pairs."""
        prompts = {row.pair: row.prompt for row in self.results.prompts}
        return [(prompts[line["pair"]], line["ids"]) for line in self.results.answers(cell)]

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.base)

    def _scorer(self, cell: Cell) -> Scorer:
        """A reward model or a loaded judge, for texts."""
        if cell.loaded is not None:
            return self._loaded(cell)
        return RewardModel(self._model(cell), self.tokenizer, self.suite.train.max_length)

    def _loaded(self, cell: Cell) -> LoadedModel:
        """A loaded judge, held as `_model` holds the others."""
        if self._held is None or self._held[0] != cell.id:
            self._release(base=True)
            assert cell.loaded is not None
            self._held = (cell.id, load_judge(self.loaded[cell.id], self.precision, cell.loaded.template))
        model: LoadedModel = self._held[1]
        return model

    def _frozen(self, cell: Cell) -> Any:
        """The base as this cell needs it, for a reward model under a fresh scalar head; held for the next like it."""
        if self._base is not None and self._base[0] == _scores(cell):
            model = self._base[1]
        else:
            self._base, started = None, time.perf_counter()
            model = (load_scorer if _scores(cell) else load_policy)(self.base, self.precision)
            self._loading += time.perf_counter() - started
            self._keep(cell, model)
        return draw_head(model, seed=cell.seed) if _scores(cell) else model

    def _keep(self, cell: Cell, base: Any) -> None:
        """Hold a base for the next cell, but for one that remembers what it read: numbers would depend on the order."""
        if not any("dynamic" in str(getattr(module, "rope_type", "")) for module in base.modules()):
            self._base = _scores(cell), base

    def _model(self, cell: Cell) -> Any:
        """The trained model of a cell, or the base; the last one is held, since a cell's stages follow each other."""
        if self._held is None or self._held[0] != cell.id:
            self._release()
            model = self._frozen(cell)
            if cell.adapter is not None:
                held, self._base = self._base, None  # what fails to load may leave half an adapter on it
                model = load_adapter(model, self.results.artefact(cell.adapter).folder)
                self._base = held
            self._say_loaded(footprint(model))
            self._held = (cell.id, model)
        return self._held[1]

    def _release(self, *, base: bool = False) -> None:
        """Let go of the held model, but for the base that it stands on; with `base`, of that as well."""
        held, self._held = self._held, None
        if held is not None and hasattr(held[1], "unload"):
            without_adapter(held[1])
        if base:
            self._base = None

    def _say_loaded(self, size: Footprint) -> None:
        trained = f", of them {size.trainable:,} trained" if size.trainable else ""
        held = f"{self.precision}, {size.bytes / 1e6:,.1f} MB"
        text = f"loaded {self.base.name}: {size.parameters:,} parameters{trained}, {held}"
        if text not in self._said:
            self._said.add(text)
            self.watch.say(text)


def _scores(cell: Cell) -> bool:
    """Whether a cell's model scores answers, as a reward model or judge; one trained here is a base under a head."""
    return cell.kind == "reward"


def _foreign_versions(algorithms: Sequence[Algorithm]) -> dict[str, str]:
    """Library → version, of those that the recipes among the methods train with."""
    versions = {}
    for recipe in algorithms:
        for library in recipe.libraries if isinstance(recipe, Recipe) else ():
            try:
                versions[library] = version(library)
            except PackageNotFoundError:
                raise PluginError(
                    f"{recipe.name} trains with {library}, which is not installed", fix=f"pip install {library}"
                ) from None
    return versions


def _header(
    prepared: Prepared, store: Store, command: str, tried: Tried, outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    suite, base, plan, state = prepared.suite, prepared.base, prepared.plan, _state(prepared)
    results, trials = Results(suite, plan, store), prepared.tuning
    tuning = block(Results(suite, trials.plan, store), trials, tried) if trials else None
    return {
        "command": command,
        "suite": {"name": suite.name, "state": state, "settings": suite.model_dump(mode="json")},
        "base": {"name": base.name, "digest": base.digest, "precision": str(prepared.precision)},
        "data": {split: dict(results.artefact(address).facts) for split, address in plan.tokens.items()},
        "judge": _judge_facts(results, outcomes),
        "environment": environment(),
        "training_keywords": training_keywords(
            row.chosen for row in results.preferences("train").rows if row.chosen is not None
        ),
        **({"tuning": tuning} if tuning else {}),
    }


def _judge_facts(results: Results, outcomes: Mapping[str, Outcome]) -> dict[str, Any] | None:
    """What the report says of the judges: of the main one, and of each in `panel`."""
    panel = [_panelist_facts(results, judge, outcomes) for judge in results.plan.panel]
    return {key: panel[0][key] for key in ("name", "cell", "status", "trained")} | {"panel": panel} if panel else None


def _panelist_facts(results: Results, judge: Panelist, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    plan, members = results.plan, {cell.adapter for cell in judge.members}
    unfinished = [outcomes[cell.id].status for cell in judge.members if outcomes[cell.id].status != "done"]
    gold = isinstance(judge.entry, GoldJudge)
    online = [cell for cell in plan.cells if cell.plugin is not None and cell.plugin.algorithm.rewarded]
    graded = [cell.id for cell in online if (gold if cell.reward is None else cell.reward.adapter in members)]
    facts: dict[str, Any] = {
        "name": judge.name,
        "cell": ", ".join(cell.id for cell in judge.members),
        "status": [*unfinished, "done"][0],
        "trained": graded,
    }
    if judge.overlap is not None and (judge.overlap.kind, judge.overlap.key) in results.store:
        facts["overlap"] = dict(results.artefact(judge.overlap).facts)
    for cell in judge.members:
        if cell.loaded is not None and cell.val is not None and not unfinished:
            facts |= results.artefact(cell.val).facts
    return facts


def _note_scorers(prepared: Prepared, store: Store) -> None:
    """Write `scorers.json`: what `align-bench score` needs to load a reward model of this run again."""
    plan, base = prepared.plan, prepared.base
    cells = [cell for cell in (*plan.judges, *plan.cells) if cell.kind == "reward"]
    folder = str(base.folder.resolve()) if Path(base.name).exists() else base.name
    note = {
        "base": {"name": str(base.folder.resolve() / base.gguf) if base.gguf else folder, "digest": base.digest},
        "storage": prepared.suite.precision,
        "max_length": prepared.suite.train.max_length,
        "cells": {
            cell.id: {"adapter": cell.adapter and asdict(cell.adapter), "seed": cell.seed, "loaded": _told_loaded(cell)}
            for cell in cells
        },
        "judges": {
            judge.name: {
                "cells": [cell.id for cell in judge.members],
                "ensemble": judge.ensemble and judge.ensemble.model_dump(),
            }
            for judge in plan.panel
        },
    }
    write_atomically(store.folder / SCORERS, json.dumps(note, indent=1))


def _told_loaded(cell: Cell) -> dict[str, Any] | None:
    return cell.loaded.model_dump() if cell.loaded else None


def _outcome(cell: Cell) -> Outcome:
    """The outcome of a cell that ends well, its cost left to be filled in."""
    reward = cell.plugin.algorithm.reward if cell.plugin else "" if cell.loaded else "s̄"
    return Outcome(
        cell.id,
        cell.algorithm,
        cell.kind,
        cell.all_parameters,
        cell.seed,
        "done",
        reward=reward,
        warnings=cell.warnings,
        remarks=cell.remarks,
    )


def _save_columns(columns: Columns, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(columns, folder / "columns.safetensors")


def _save_answers(lines: Sequence[Mapping[str, Any]], folder: Path) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "answers.jsonl").write_text(text, encoding="utf-8")


def _sequences_in(rows: Sequence[TokenRow]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(row.prompt, answer) for row in rows for answer in (row.chosen, row.rejected) if answer is not None]


def _tokens_in(rows: Sequence[TokenRow]) -> int:
    return sum(len(prompt) + len(answer) for prompt, answer in _sequences_in(rows))


def _distinct_tokens_in(rows: Sequence[TokenRow]) -> int:
    """Tokens that go through the model when each answer of a table is measured once."""
    return sum(len(prompt) + len(answer) for prompt, answer in set(_sequences_in(rows)))
