"""A run's report: what it must rest on to be finished, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, cast

from align_bench.errors import AlignBenchError
from align_bench.planning.graph import Graph  # loaded, so that the report's source holds what names cells
from align_bench.report.export import TESTED, WRITTEN, read_report
from align_bench.report.rows import existing
from align_bench.runner.costs import total
from align_bench.runner.environment import REPORT_LIBRARIES, environment
from align_bench.runner.outcomes import FAILED_CHECKS
from align_bench.sources import module_digest
from align_bench.stages.stage import closure_of, library_versions
from align_bench.store.files import as_store_error
from align_bench.store.keys import content_key
from align_bench.suite.models import GoldJudge

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell, Panelist
    from align_bench.planning.inputs import Prepared
    from align_bench.records import CellId, Json, Outcome, TrainingText
    from align_bench.report.schema import DataFacts, Header, JudgeFacts, MethodCheck, Report
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage


def report_key(prepared: Prepared, graph: Graph) -> str:
    """What a finished report must rest on to be the report of this very graph, by the code that is here now."""
    return content_key(
        {
            "stages": graph.key,
            "suite": prepared.suite.model_dump(mode="json"),
            "panel": [judge.name for judge in graph.panel],
            "source": module_digest(__name__),
            "libraries": library_versions(REPORT_LIBRARIES),
        }
    )


def finished(folder: Path, prepared: Prepared, graph: Graph, results: Results) -> Report | None:
    """The report on disk, if it is this very graph's, all cells are done, and all that it rests on is stored."""
    try:
        report = read_report(folder)
    except (AlignBenchError, OSError, ValueError):
        return None
    if report.suite.state != report_key(prepared, graph):
        return None
    done = all(result.status == "done" for result in report.results)
    whole = _is_whole(folder, [*WRITTEN, *([TESTED] if report.tested else [])])
    stored = all(results.facts(stage) is not None for stage in closure_of(_ends(graph)))
    return report if done and whole and stored else None


def _is_whole(folder: Path, names: Sequence[str]) -> bool:
    """Whether all these files are there, as they were written."""
    try:
        return all(existing(folder / name) for name in names)
    except AlignBenchError:
        return False


def _ends(graph: Graph) -> Iterator[Stage[object]]:
    """What a whole report rests on; trials that failed are not among it."""
    yield from graph.tables.values()
    yield from (search.choice for search in graph.searches.values() if search.choice is not None)
    yield from (stage for cell in graph.shown for stage in cell.stages if not stage.optional)


def write(
    folder: Path, prepared: Prepared, graph: Graph, results: Results, ended: Mapping[CellId, Outcome], command: str
) -> Report:
    """Compute the report of what is stored, and write its folder.

    Args:
        folder: where it goes.
        prepared, graph, results: the suite, and what is stored of it.
        ended: cell → how it ended, in the order of the tables.
        command: what the user typed.

    Raises:
        StoreError: the system refuses to write there.
    """
    from align_bench.report.build import build_report
    from align_bench.report.export import ReportRows, write_report
    from align_bench.runner.rows import Rows

    made = Rows(prepared, graph, results)
    done = [cell for cell in graph.shown if ended[cell.id].status == "done"]
    able = [judge.name for judge in graph.panel if all(ended[cell.id].status == "done" for cell in judge.members)]
    rows = ReportRows(
        scores=[row for cell in done for row in made.scores(cell)],
        generations=[record for cell in done for record in made.generations(cell, able)],
        training=[row for cell in (*done, *graph.trials) for row in made.training(cell)],
        audits=made.audited({cell.id for cell in done}),
        pairs=made.pairs(),
        texts=made.texts(),
        tested=[row for cell in done for row in made.tested(cell)],
    )
    header = _header(prepared, graph, results, ended, command, rows.texts)
    outcomes = list(ended.values())
    report = build_report(header, outcomes, rows.scores, rows.generations, rows.audits, rows.pairs, tested=rows.tested)
    with as_store_error(folder):
        write_report(folder, report, rows)
    return report


def _header(
    prepared: Prepared,
    graph: Graph,
    results: Results,
    ended: Mapping[CellId, Outcome],
    command: str,
    texts: Sequence[TrainingText],
) -> Header:
    from align_bench.report.course import training_keywords
    from align_bench.report.schema import BaseFacts, Header, SuiteFacts
    from align_bench.runner.checked import examined_rows
    from align_bench.runner.tuning import tuning_of

    suite, frozen = prepared.suite, prepared.inputs.frozen
    costs = [found.cost for found in ended.values() if found.cost is not None]
    return Header(
        command=command,
        made=date.today().isoformat(),
        suite=SuiteFacts(
            name=suite.name,
            quick=suite.quick,
            state=report_key(prepared, graph),
            settings=suite.model_dump(mode="json"),
        ),
        base=BaseFacts(
            name=frozen.base.name,
            digest=frozen.base.digest,
            precision=str(frozen.precision),
            template_date=frozen.inputs.date,
            chat_template_kwargs=dict(suite.chat_template_kwargs),
            vocabulary=frozen.base.vocabulary,
        ),
        data={
            split: data_facts(split, prepared, graph, results).model_copy(
                update={"examined": examined_rows(split, prepared, results)}
            )
            for split in graph.tables
        },
        judges=[_judge_facts(graph, results, judge, ended) for judge in graph.panel],
        environment=environment(spent.threads if (spent := total(costs)) else None),
        training_keywords=training_keywords(texts),
        tuning=tuning_of(suite.tune, graph, results) if suite.tune else None,
        failed_checks=[failed for cell in (*graph.judges, *graph.cells) for failed in failed_checks(cell, results)],
    )


def data_facts(split: str, prepared: Prepared, graph: Graph, results: Results) -> DataFacts:
    """What the report says of a split, whose rows are stored."""
    from align_bench.report.schema import DataFacts
    from align_bench.runner.checked import checked_rows

    facts = results.artefact(graph.tables[split]).facts
    known = {key: facts[key] for key in DataFacts.model_fields if key in facts}
    return DataFacts.model_validate({**known, "checked": checked_rows(split, prepared, graph, results)})


def failed_checks(cell: Cell, results: Results) -> list[MethodCheck]:
    """What a cell's method failed before its first step, and was trained all the same."""
    from align_bench.report.schema import MethodCheck

    if cell.adapter is None or not results.has(cell.adapter):
        return []
    found = cast("Sequence[Mapping[str, Json]]", results.artefact(cell.adapter).facts.get(FAILED_CHECKS, ()))
    return [MethodCheck.model_validate({**failed, "cell": cell.id}) for failed in found]


def _judge_facts(graph: Graph, results: Results, judge: Panelist, ended: Mapping[CellId, Outcome]) -> JudgeFacts:
    """What the report says of a judge."""
    from align_bench.report.schema import JudgeFacts, LoadedModelFacts, SharedRows

    members = [cell.adapter for cell in judge.members if cell.adapter is not None]
    unfinished = [ended[cell.id].status for cell in judge.members if ended[cell.id].status != "done"]
    gold = isinstance(judge.entry, GoldJudge)
    online = [cell for cell in graph.cells if cell.plugin is not None and cell.plugin.algorithm.rewarded]
    overlap = judge.overlap
    loaded = None
    for cell in judge.members:
        if cell.loaded is not None and cell.validation is not None and not unfinished:
            loaded = LoadedModelFacts.model_validate(results.artefact(cell.validation).facts)
    return JudgeFacts(
        name=judge.name,
        cells=[cell.id for cell in judge.members],
        status=unfinished[0] if unfinished else "done",
        rewarded=[cell.id for cell in online if (gold if cell.reward is None else cell.reward.adapter in members)],
        overlap=SharedRows(**results.load(overlap)) if overlap is not None and results.has(overlap) else None,
        loaded=loaded,
    )
