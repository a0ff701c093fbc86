"""Run a suite: make its graph, walk it until it asks for nothing new, and write its report.

The way of a run: `planning.inputs` finds base, rows and judges; `planning.graph` lays out what the suite asks for, of
the stages that `planning.layout` gives each cell; `runner.walk` has an executor (`runner.execution`) make those that
are not stored, each in its own file of `stages`; with results that the graph rests on it is made again;
`runner.report` writes what is stored of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.errors import MissingResultError, PluginError, SuiteError
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.limits import cut_answers, ignored_graphs
from align_bench.planning.sharing import shared_trainings
from align_bench.runner import report as reports
from align_bench.runner.conform import Kit
from align_bench.runner.execution import Execution, executor_of
from align_bench.runner.libraries import import_libraries
from align_bench.runner.make import record_failure
from align_bench.runner.outcomes import outcomes
from align_bench.runner.results import Results, only_tried_out
from align_bench.runner.tuning import describe
from align_bench.runner.walk import walk
from align_bench.runner.watch import Watch
from align_bench.stages.answers import first_prompts
from align_bench.stages.proxy import Proxy
from align_bench.stages.stage import Stage, closure_of
from align_bench.store.files import make_folder
from align_bench.store.notes import NotedBase, NotedJudge, NotedScorer, RunNote, Scorers
from align_bench.store.store import Store

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.inputs import Prepared
    from align_bench.plugins.registry import Plugin
    from align_bench.report.schema import Report
    from align_bench.runner.executor import Executor
    from align_bench.runner.progress import Progress
    from align_bench.runner.tracking import Trackers
    from align_bench.stages.models import Frozen


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run works and where its report goes."""

    runs: Path = Path("runs")
    reports: Path = Path("reports")


def run(
    prepared: Prepared,
    progress: Progress,
    folders: Folders,
    *,
    command: str,
    methods: Sequence[str] | None = None,
    compute: bool = True,
    execution: Execution = Execution(),
) -> Report:
    """Run a suite, or what is missing of it, and write its report.

    Args:
        prepared: from `planning.inputs.prepare`.
        progress: where progress is shown.
        folders: where to work and to report.
        command: what the user typed, for the report.
        methods: compute the cells of these methods only; others are reported as far as they are stored.
        compute: False to report what is stored and load no model.
        execution: where stages are made, and how many at a time.

    Returns:
        The report, as written to `report.json`.

    Raises:
        AlignBenchError: for a folder of another version, or rows that cannot be used.
        MissingResultError: when nothing is stored and nothing may be computed.
    """
    store = Store(folders.runs)
    store.check()
    results = Results(store, read_only=not compute)
    folder = folders.reports / prepared.suite.name
    while True:
        try:
            return _run(prepared, results, progress, folder, command=command, methods=methods, execution=execution)
        except MissingResultError as error:  # damaged since the run began; it has been moved aside
            if not results.repairs:
                raise
            results.repairs -= 1
            progress.log(f"{error.message}; it is made again")


def _run(
    prepared: Prepared,
    results: Results,
    progress: Progress,
    folder: Path,
    *,
    command: str,
    methods: Sequence[str] | None,
    execution: Execution,
) -> Report:
    """The suite's report in its folder, after what is missing has been computed, unless the results are read only."""
    suite, store, compute = prepared.suite, results.store, not results.read_only
    graph = make_graph(prepared, Results(store))
    trackers = _trackers(execution, suite.name, store, progress) if compute else None
    if (found := reports.finished(folder, prepared, graph, Results(store))) is not None:
        note = _finished(_note(prepared, graph))
        if compute and not store.notes.holds(suite.name, note):
            store.notes.save(suite.name, note)  # lost, or of other settings since: `clean` would free what this needs
        if trackers is not None:
            trackers.complete(graph, results, found, folder)
        return found
    if compute:
        make_folder(folder)  # an error here comes before any work
        with executor_of(execution, prepared, results, progress, trackers) as executor:
            graph = _computed(prepared, graph, results, executor, progress, methods)
    else:
        graph = make_graph(prepared, results)
        if not all(results.has(table) for table in graph.tables.values()):
            tried = "; or add --quick: its try-out was run" if only_tried_out(store, suite.name) else ""
            raise MissingResultError(
                f"nothing of the suite {suite.name} is stored in {store.folder} with these settings",
                fix=f"align-bench run, with the same --set, computes it{tried}",
            )
    for line in _remarks(graph, results):
        progress.log(line)
    make_folder(folder)
    ended = outcomes(graph, results)
    report = reports.write(folder, prepared, graph, results, ended, command)
    if compute:
        store.notes.save(suite.name, _finished(_note(prepared, graph)))
    if trackers is not None:
        trackers.complete(graph, results, report, folder)
    return report


def _trackers(execution: Execution, suite: str, store: Store, progress: Progress) -> Trackers | None:
    if not execution.track:
        return None
    from align_bench.runner.tracking import Trackers, Tracking

    return Trackers(Tracking(execution.track, suite, store.folder), progress.log)


def _computed(
    prepared: Prepared,
    graph: Graph,
    results: Results,
    executor: Executor,
    progress: Progress,
    methods: Sequence[str] | None,
) -> Graph:
    """The graph, walked and made again until it asks for nothing new."""
    kit = Kit(results, progress)
    ignored = ignored_graphs(prepared.suite, prepared.inputs.frozen.precision.device)
    for line in (*shared_trainings(graph), *ignored, *warnings(graph)):
        progress.log(line)
    store, name = results.store, prepared.suite.name
    before = store.notes.get(name) or RunNote()
    Watch(prepared, graph, results, progress).stored_rows()
    if results.has(graph.tables["val"]):
        _room_for_answers(prepared, graph, results, progress)
    while True:
        wanted = stages_to_run(graph, methods)
        store.notes.save(name, _begun(_note(prepared, graph), before))
        watch = Watch(prepared, graph, results, progress)

        def made(stage: Stage[object], graph: Graph = graph, watch: Watch = watch) -> None:
            if stage == graph.tables["val"]:  # tables are made before all else
                _room_for_answers(prepared, graph, results, progress)
            watch.made(stage)

        walk(_executable(wanted, graph, results, progress, kit), results, executor, progress, made)
        grown = make_graph(prepared, results)
        if grown.key == graph.key and _waiting(grown) == _waiting(graph):
            return grown
        for line in warnings(grown):
            if line not in warnings(graph):
                progress.log(line)
        graph = grown


def _room_for_answers(prepared: Prepared, graph: Graph, results: Results, progress: Progress) -> None:
    """Hold the prompts that are answered to the base's positions.

    Raises:
        SuiteError: too many of them leave no room for an answer of `generate.max_new_tokens`.
    """
    suite, base = prepared.suite, prepared.inputs.frozen.base
    if graph.base.answers is None or base.positions is None:
        return
    prompts = first_prompts(results.load(graph.tables["val"]), suite.generate.prompts)
    found = cut_answers(suite, base, [len(row.prompt) for row in prompts])
    if found is not None and found.too_many:
        raise SuiteError(found.message, fix=found.fix)
    if found is not None:
        progress.log(f"{found.message}; {found.fix}")


def _waiting(graph: Graph) -> list[str | None]:
    return [cell.waiting for cell in graph.cells]


def stages_to_run(graph: Graph, methods: Sequence[str] | None = None) -> list[Stage[object]]:
    """The stages that a run makes now, in the order of the graph.

    Args:
        graph: what the suite asks for.
        methods: those of these methods only, with the judges and the base; all when None.
    """

    def asked(cell: Cell) -> bool:
        return methods is None or cell.plugin is None or cell.is_judge or cell.algorithm in methods

    searches = [search for search in graph.searches.values() if search.cells and asked(search.cells[0])]
    trials = [cell for search in searches for cell in search.open]
    cells = [cell for cell in graph.shown if asked(cell) and cell.waiting is None]
    rewards = {cell.reward.id for cell in cells if cell.reward is not None}
    found = {*graph.tables.values(), *(stage for cell in (*trials, *cells) for stage in cell.stages)}
    found -= {proxy for proxy in graph.base.all(Proxy) if proxy.reward_cell not in rewards}
    found |= {judge.overlap for judge in graph.panel if judge.overlap is not None}
    found |= {search.choice for search in searches if search.choice is not None}
    return [stage for stage in graph.stages if stage in found]


def _executable(
    wanted: Sequence[Stage[object]], graph: Graph, results: Results, progress: Progress, kit: Kit
) -> list[Stage[object]]:
    """These stages without those of cells whose method cannot be executed here, which count as failed.

    Methods are executed and held to their contract before any work, so that nothing is made for one that cannot be.
    """
    missing = closure_of(wanted, done=results.has)
    if any(stage.models() for stage in missing):
        import_libraries()
    lost: set[Stage[object]] = set()
    for stage in missing:
        plugin: Plugin | None = getattr(stage, "plugin", None)
        if plugin is not None and stage.address not in results.failed:
            loaded = False
            try:
                plugin.load()
                loaded = True
                kit.hold(stage)
            except PluginError as error:
                # A library, or the file as it was, may return; a loss that breaks the contract stays what it is.
                record_failure(stage, error, results, progress, permanent=loaded)
        if stage.address in results.failed or any(needed in lost for needed in stage.needs()):
            lost.add(stage)

    def goes_on(cell: Cell) -> bool:
        return not any(stage in lost and not stage.optional and stage.blamed_cell is None for stage in cell.stages)

    cells = [cell for cell in (*graph.trials, *graph.shown) if set(cell.stages) & set(wanted)]
    kept = {stage for cell in cells if goes_on(cell) for stage in cell.stages}
    dropped = {stage for cell in cells for stage in cell.stages} - kept
    return [stage for stage in wanted if stage not in dropped]


def warnings(graph: Graph) -> list[str]:
    """A line for each hyper-parameter of a method that is outside its range, once for all seeds and grid points."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for cell in (*graph.judges, *graph.cells):
        who = str(cell.id.method) if cell.is_judge or cell.plugin is None else cell.plugin.algorithm.name
        for name, (value, where) in cell.outside.items():
            found.setdefault((who, name, where), []).append(value)
    return [f"{method}: {name}={_values(values)} is {where}" for (method, name, where), values in found.items()]


def _values(values: Iterable[float]) -> str:
    """Few values each, many as the least, the greatest and their number."""
    each = sorted(set(values))
    if len(each) > 4:
        return f"{each[0]:g} … {each[-1]:g} ({len(each)} values)"
    return ", ".join(f"{value:g}" for value in each)


def _remarks(graph: Graph, results: Results) -> list[str]:
    """What is logged of trials, whether they were run now or before."""
    return [describe(search, results) for search in graph.searches.values()]


def _begun(note: RunNote, before: RunNote) -> RunNote:
    """The note of a run that has begun: what the report on disk rests on is needed until another takes its place."""
    needs = tuple(sorted({*note.needs, *before.reported}))
    return RunNote(needs, before.reported, before.scorers if before.reported else note.scorers)


def _finished(note: RunNote) -> RunNote:
    """The note of a run whose report is written."""
    return replace(note, reported=note.needs)


def _note(prepared: Prepared, graph: Graph) -> RunNote:
    """What `align-bench clean` and `align-bench score` need to know of a run."""
    return RunNote(tuple(stage.address for stage in graph.stages), scorers=_scorers(prepared, graph))


def _noted(frozen: Frozen) -> NotedBase:
    base, inputs = frozen.base, frozen.inputs
    folder = str(base.folder.resolve()) if Path(base.name).exists() else base.name
    return NotedBase(
        str(base.folder.resolve() / base.gguf) if base.gguf else folder, base.digest, inputs.kwargs, inputs.date
    )


def _scorers(prepared: Prepared, graph: Graph) -> Scorers:
    own = _noted(prepared.inputs.frozen)
    return Scorers(
        base=own,
        storage=prepared.suite.precision,
        max_length=prepared.suite.train.max_length,
        cells={
            str(cell.id): NotedScorer(
                adapter=cell.adapter.address if cell.adapter else None,
                seed=cell.seed,
                loaded=cell.loaded.entry.model_dump() if cell.loaded else None,
                base=started if cell.adapter and (started := _noted(cell.adapter.frozen)) != own else None,
            )
            for cell in (*graph.judges, *graph.cells)
            if cell.kind == "reward"
        },
        judges={
            judge.name: NotedJudge(
                cells=tuple(str(cell.id) for cell in judge.members),
                ensemble=judge.ensemble.model_dump() if judge.ensemble else None,
            )
            for judge in graph.panel
        },
    )
