"""What `align-bench verify` does: hold what a run left to its checksums, and to what its own rows and stages give."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_bench.errors import AlignBenchError, MissingResultError
from align_bench.report.export import (
    REPORT,
    outcome_of,
    read_audits,
    read_generations,
    read_pairs,
    read_report,
    read_scores,
    read_tested,
    read_texts,
    read_training,
)
from align_bench.runner.desk import LocalDesk
from align_bench.runner.report import report_key
from align_bench.store.keys import file_digest
from align_bench.store.store import MANIFEST

if TYPE_CHECKING:
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.report.schema import Report
    from align_bench.runner.progress import Progress
    from align_bench.runner.results import Results
    from align_bench.stages.stage import Stage

CLOCK = "seconds"  # what no second making has alike


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was held to another.

    Attributes:
        what: the thing.
        held: whether it holds.
        said: what was found.
    """

    what: str
    held: bool
    said: str


class _Desk(LocalDesk):
    """A desk whose trainings find no checkpoint, and leave none in the store."""

    def __init__(self, results: Results, progress: Progress, aside: Path) -> None:
        super().__init__(results, progress)
        self._aside = aside

    def partial(self, stage: Stage[object]) -> Path:
        return self._aside / "partial" / str(stage.address)


def verify(
    prepared: Prepared, graph: Graph, results: Results, folder: Path, progress: Progress, *, sample: int, seed: int
) -> Iterator[Check]:
    """Check what is stored of a suite and its report, and make a sample of it once more.

    Args:
        prepared, graph, results: the suite, and what is stored of it.
        folder: of its report.
        progress: where progress is shown.
        sample: how many stored results are made again; those of trainings among them take as long as they did.
        seed: of the choice.

    Yields:
        A check each of: the stored results' checksums, the report's files, the report from its rows, and each result
        that was made again.
    """
    stored = [stage for stage in graph.stages if stage.address in results.store]
    damaged = [stage for stage in stored if not results.has(stage)]
    yield Check(
        f"{len(stored):,} stored results by their checksums",
        not damaged,
        f"damaged, moved to damaged/, made again by the next run: {', '.join(map(_called, damaged))}"
        if damaged
        else "as they were written",
    )
    yield _report(folder, report_key(prepared, graph))
    whole = [stage for stage in stored if stage not in damaged and all(map(results.has, stage.needs()))]
    chosen = random.Random(seed).sample(whole, min(sample, len(whole)))
    with tempfile.TemporaryDirectory() as aside:
        desk = _Desk(results, progress, Path(aside))
        for number, stage in enumerate(sorted(chosen, key=whole.index)):
            yield _again(stage, results, desk, progress, Path(aside, str(number)))
        desk.release()


def _called(stage: Stage[object]) -> str:
    return f"{stage.owner}: {stage.label}"


def _report(folder: Path, key: str) -> Check:
    """The report from the rows beside it, number by number."""
    from align_bench.report.build import build_report
    from align_bench.report.schema import Header

    what = f"{folder / REPORT} from the rows beside it"
    try:
        report = read_report(folder)
        read_training(folder), read_texts(folder)  # nothing of the report is computed from them again
        header = Header.model_validate({name: getattr(report, name) for name in Header.model_fields})
        outcomes = [outcome_of(result) for result in report.results]
        again = build_report(
            header,
            outcomes,
            read_scores(folder),
            read_generations(folder),
            read_audits(folder),
            read_pairs(folder),
            tested=read_tested(folder),
        )
    except AlignBenchError as error:
        return Check(what, False, error.message)
    other = list(_differences(_plain(report), _plain(again)))
    if other:
        return Check(what, False, f"{len(other):,} numbers or words differ, such as {', '.join(other[:3])}")
    if report.suite.state != key:
        return Check(what, False, "the same, but the report is of other settings, rows or code than these")
    return Check(what, True, "the same to the last digit")


def _plain(report: Report) -> Any:
    return json.loads(report.model_dump_json())


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Places in which two nested values differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() | other.keys():
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(left, right, f"{path}[{place}]")
    elif one != other:
        yield path


def _again(stage: Stage[object], results: Results, desk: LocalDesk, progress: Progress, folder: Path) -> Check:
    """A stage's result, made a second time."""
    artefact = results.artefact(stage)
    folder.mkdir()
    what = f"{_called(stage)}, made again"
    try:
        with progress.stage(stage.owner, f"{stage.label}, again") as update:
            desk.update = update
            with desk.assisted(stage):
                stage.run(desk, folder)
    except Exception as error:
        return Check(what, False, f"failed: {error.message if isinstance(error, AlignBenchError) else error}")
    other = sorted(_other_files(artefact.folder, folder))
    shutil.rmtree(folder, ignore_errors=True)
    if other:
        return Check(
            what, False, f"other bytes in {', '.join(other)}; on another machine or with other threads they may"
        )
    return Check(what, True, "the same bytes")


def _other_files(stored: Path, made: Path) -> Iterator[str]:
    names = {path.relative_to(root).as_posix() for root in (stored, made) for path in root.rglob("*") if path.is_file()}
    for name in names - {MANIFEST}:
        one, other = stored / name, made / name
        if not (one.is_file() and other.is_file()) or not _alike(one, other):
            yield name


def _alike(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes; logs of steps, but for the seconds that these took."""
    return file_digest(one) == file_digest(other) or (one.suffix == ".jsonl" and _untimed(one) == _untimed(other))


def _untimed(path: Path) -> Sequence[object]:
    """Lines of a log without the seconds that they took."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, object_hook=lambda found: {**found, CLOCK: None}) for line in lines]


def stored_graph(prepared: Prepared, results: Results) -> Graph:
    """The graph of what is stored.

    Raises:
        MissingResultError: when nothing of it is.
    """
    from align_bench.planning.graph import make_graph

    graph = make_graph(prepared, results)
    if not any(stage.address in results.store for stage in graph.stages):
        raise MissingResultError(
            f"nothing of the suite {prepared.suite.name} is stored in {results.store.folder} with these settings",
            fix="align-bench run, with the same --set, computes it",
        )
    return graph
