"""All that a plan depends on beside the suite's text: the base, the rows, the loaded judges; loads no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from align_bench.data.fingerprint import fingerprint
from align_bench.data.preferences import DataSource
from align_bench.errors import PluginError
from align_bench.judge.find import find_judge
from align_bench.models.base import find_base, template_inputs
from align_bench.models.precision import resolve_precision
from align_bench.planning.given_starts import given_starts
from align_bench.planning.limits import within_positions
from align_bench.stages.classifier import Classifier
from align_bench.stages.models import Frozen
from align_bench.stages.rows import Rows
from align_bench.stages.stage import library_versions
from align_bench.suite.models import JUDGE_CELL, LoadedJudge, TrainedJudge, judge_cell

if TYPE_CHECKING:
    from align_bench.models.precision import Precision
    from align_bench.plugins.registry import Registry
    from align_bench.stages.models import Policy
    from align_bench.suite.models import DataFile, Suite


@dataclass(frozen=True, slots=True)
class Inputs:
    """What lies outside the suite.

    Attributes:
        frozen: the base, and how it is stored and computed with.
        rows: split (`train`, `val`, `test` where there is one, `judge`, `judge2`, …) → its rows.
        classifiers: judge's cell → the model of a loaded judge.
        starts: value of `start_from` → the adapter or the model that it names; without those that are cells.
    """

    frozen: Frozen
    rows: Mapping[str, Rows]
    classifiers: Mapping[str, Classifier] = field(default_factory=dict)
    starts: Mapping[str, Policy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A suite with its methods and with all that lies outside it."""

    suite: Suite
    registry: Registry
    inputs: Inputs


def prepare(
    suite: Suite,
    registry: Registry,
    resolve: Callable[[str], Precision] = resolve_precision,
    *,
    weights: bool = True,
) -> Prepared:
    """Locate the base and the judges, fingerprint the data, resolve the precision.

    Args:
        suite, registry: the suite, and the methods that it may name.
        resolve: what `precision:` means where the suite will run; on this machine by default.
        weights: whether those of the base have to be at hand; a plan needs none.

    Raises:
        AlignBenchError: for anything that the user has to mend first.
    """
    registry = registry.with_sums(suite.methods)  # the cheapest mistakes first
    _check_methods(suite, registry)
    base = find_base(suite.base, weights=weights)
    suite = within_positions(suite, base)
    entries = {judge_cell(place): judge for place, judge in enumerate(suite.judge)}
    loaded = {cell: find_judge(judge) for cell, judge in entries.items() if isinstance(judge, LoadedJudge)}
    precision = resolve(suite.precision)
    rows = {split: rows_of(file, role) for split, (file, role) in _files(suite).items()}
    classifiers = {
        cell: Classifier(
            found,
            precision,
            judge.template,
            judge,
            template_inputs(found, judge.chat_template_kwargs, judge.date),
        )
        for cell, found in loaded.items()
        if isinstance(judge := entries[cell], LoadedJudge)
    }
    frozen = Frozen(base, precision, template_inputs(base, suite.chat_template_kwargs, suite.date))
    starts = given_starts(suite, registry, frozen)
    return Prepared(suite, registry, Inputs(frozen, rows, classifiers, starts))


def _check_methods(suite: Suite, registry: Registry) -> None:
    trained = [judge.method for judge in suite.judge if isinstance(judge, TrainedJudge)]
    for name in [*(method.name for method in suite.methods), *trained]:
        algorithm = registry[name].algorithm
        for library in algorithm.libraries:
            try:
                library_versions([library])
            except PluginError as error:
                raise PluginError(f"{name} trains with {library}, which is not installed", fix=error.fix) from None


def sources_of(suite: Suite) -> dict[str, DataSource]:
    """The reader's view of all data entries: `train`, `val`, `test` where there is one, `judge`, `judge2`, …."""
    return {split: source_of(file, role) for split, (file, role) in _files(suite).items()}


def _files(suite: Suite) -> dict[str, tuple[DataFile, str]]:
    """Split → its data entry, and the role that the embedded set's split falls back to."""
    data = suite.data
    test = {} if data.test is None else {"test": (data.test, "test")}
    judges = {
        judge_cell(place): (judge.data, JUDGE_CELL)
        for place, judge in enumerate(suite.judge)
        if isinstance(judge, TrainedJudge)
    }
    return {"train": (data.train, "train"), "val": (data.val, "val"), **test, **judges}


def rows_of(file: DataFile, role: str) -> Rows:
    """A data entry's rows.

    Args:
        file: the entry.
        role: `train`, `val`, `test` or `judge`: the split of the embedded set that it falls back to.

    Raises:
        DataError: the source is missing.
    """
    source = source_of(file, role)
    return Rows(source, fingerprint(source), file.too_long)


def source_of(file: DataFile, role: str) -> DataSource:
    """The reader's view of a data entry; the embedded set's split falls back to the entry's own role."""
    return DataSource(
        path=", ".join(file.paths),
        split=file.split or (role if file.embedded else None),
        columns=file.columns,
        choice=file.choice,
        rows=file.rows,
        skip=file.skip,
        prompts=file.prompts,
        revision=file.revision,
        bias=file.bias,
        files=file.paths if len(file.paths) > 1 else (),
    )
