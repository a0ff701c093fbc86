"""Run suites and read their reports from Python: what the commands `run` and `report` do, with pandas frames.

What is imported from `align_bench` itself: `run`, `load`, `Report` and `Figure`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from align_bench.errors import MissingResultError, SuiteError, nearest
from align_bench.records import Comparison, Estimate, Json
from align_bench.report import export
from align_bench.report.labels import called, names_of
from align_bench.report.schema import OverSeeds

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel

    from align_bench.report import schema


def run(
    suite: str | Path,
    *,
    set: Mapping[str, Json] | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    methods: Sequence[str] | None = None,
    runs: str | Path = "runs",
    reports: str | Path = "reports",
    quiet: bool = False,
    trust: bool = False,
    jobs: int | Literal["auto"] = 1,
    track: Sequence[str] = (),
) -> Report:
    """Run a suite, or what is missing of it, as `align-bench run` does, and return its report.

    What is stored in `runs` is used again: a second call returns at once, one that was interrupted goes on where it
    stopped. A cell that failed does not raise: its status is in `record.results`.

    Args:
        suite: a file, or the name of a packaged suite.
        set: settings that replace the suite's, by dotted key: `{"train.epochs": 2, "methods": ["dpo"]}`.
        plugins: a file with further methods, or several.
        methods: compute the cells of these methods only; others are reported as far as they are stored.
        runs: the folder of what has been computed.
        reports: the folder of reports; this one is `reports/<name of the suite>`.
        quiet: show no progress.
        trust: execute the plugin files that the suite itself names, without being asked.
        jobs: worker processes; `auto` for one per GPU, and without any for as many as memory and cores allow. A script
            that asks for several has to call this below `if __name__ == "__main__":`, as `multiprocessing` wants it.
        track: trackers that also take steps, tables and report, such as `["mlflow"]`.

    Raises:
        AlignBenchError: something is wrong with the suite, its data or a folder. The message says what to do.

    Example:
        >>> align_bench.run("assignment", set={"methods": ["dpo", "simpo"], "seeds": [0, 1, 2]})
    """
    from align_bench.cli.app import prepared_for
    from align_bench.cli.run import compute
    from align_bench.runner.execution import Execution

    execution = Execution(jobs, track=tuple(track))
    if set is not None and not isinstance(set, Mapping):
        raise SuiteError(f"set: got {set!r}; expected a mapping such as {{'train.epochs': 2}}")
    overrides = [f"{key}={json.dumps(value, default=_json)}" for key, value in (set or {}).items()]
    files = [str(file) for file in ([plugins] if isinstance(plugins, str | Path) else plugins)]
    prepared = prepared_for(str(suite), overrides, files, trust=trust)
    options = [
        part for name, values in (("--set", overrides), ("--plugin", files)) for one in values for part in (name, one)
    ]
    command = shlex.join(["align-bench", "run", str(suite), *options])
    named = None if methods is None else list(methods)
    record = compute(
        prepared, Path(runs), Path(reports), methods=named, typed=command, quiet=quiet, execution=execution
    )
    return Report(record, Path(reports) / record.suite.name, Path(runs))


def load(folder: str | Path, *, runs: str | Path = "runs") -> Report:
    """Read the report in a folder that a run wrote.

    Args:
        folder: `reports/<name of the suite>`.
        runs: the folder of what has been computed, which adapters are in.

    Raises:
        MissingResultError: no report is there.
        StoreError: it is damaged, or of another version.

    Example:
        >>> align_bench.load("reports/assignment").leaderboard()
    """
    place = Path(folder)
    place = place.parent if place.name == export.REPORT else place
    return Report(export.read_report(place), place, Path(runs))


@dataclass(frozen=True)
class Figure:
    """A drawing of a report; a notebook shows it.

    Attributes:
        name: its name, that of its file.
        svg: the drawing as an SVG document.
    """

    name: str
    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write the drawing as an SVG file."""
        Path(path).write_text(self.svg, encoding="utf-8")


@dataclass(frozen=True, repr=False)
class Report:
    """A suite's report, as pandas frames and figures. A notebook shows its verdict and its leaderboard.

    Attributes:
        record: all that `report.json` holds, typed.
        folder: where the report's files are.
        runs: the folder of what has been computed.
    """

    record: schema.Report
    folder: Path
    runs: Path

    @property
    def verdict(self) -> list[str]:
        """What stands first wherever a report is shown, sentence by sentence: alarms, then the plain verdict.

        The numbers behind it are `record.verdict`, claim by claim.
        """
        from align_bench.report.verdict import headline

        return headline(self.record)

    @property
    def alarms(self) -> list[schema.Alarm]:
        """What makes other numbers hard to believe."""
        return list(self.record.alarms)

    def leaderboard(self) -> pd.DataFrame:
        """A row per method and the base, the best first: judge, gold, win rate, words, KL, seconds and more.

        Of a method of several seeds a value is the mean over seeds, and `… sd` its standard deviation over them; of one
        seed `… low` and `… high` are its 95% interval. A suite of reward models alone has these in its rows.
        """
        rows: Sequence[BaseModel] = self.record.leaderboard or self.record.reward_leaderboard
        return _frame([_flat(dict(row)) for row in rows])

    def reward_models(self) -> pd.DataFrame:
        """The same of the reward models: a row each, the most accurate first."""
        return _frame([_flat(dict(row)) for row in self.record.reward_leaderboard])

    def metrics(self) -> pd.DataFrame:
        """Every metric of every cell: `cell`, `algorithm`, `kind`, `seed`, `metric`, `value`, `low`, `high`, `n`."""
        from align_bench.report.render.csv import METRIC_COLUMNS, metric_rows

        return _frame(metric_rows(self.record), METRIC_COLUMNS)

    def comparisons(self) -> pd.DataFrame:
        """Every tested difference `a − b`: interval, p-values, verdict; columns as in `records.Comparison`."""
        from align_bench.report.verdict import verdict

        columns = [field.name for field in fields(Comparison)]
        rows = [[*(_plain(getattr(one, name)) for name in columns), verdict(one)] for one in self.record.comparisons]
        return _frame(rows, [*columns, "verdict"])

    def generations(self) -> pd.DataFrame:
        """Every answer: `cell`, `prompt_id`, `sample`, `prompt`, `text`, and a column `scores.<judge>` per judge.

        Raises:
            MissingResultError: the folder has no answers; published reports come without them.
        """
        return _frame([_flat(asdict(answer)) for answer in export.read_generations(self.folder)])

    def scores(self) -> pd.DataFrame:
        """A row per cell and validation pair: rewards, log-probabilities, words and grades of both answers.

        Raises:
            MissingResultError: the folder has none.
        """
        return _frame([asdict(row) for row in export.read_scores(self.folder)])

    def training(self) -> pd.DataFrame:
        """A row per cell and optimizer step: the loss, the learning rate, and what the method itself measures.

        Raises:
            MissingResultError: the folder has none.
        """
        return _frame([_flat(asdict(row)) for row in export.read_training(self.folder)])

    @property
    def figures(self) -> list[str]:
        """The names of the report's figures."""
        return sorted(path.stem for path in (self.folder / export.FIGURES).glob("*.svg"))

    def figure(self, name: str) -> Figure:
        """One of the report's figures, such as `losses`.

        Raises:
            MissingResultError: there is none of this name.
        """
        if name not in self.figures:
            raise MissingResultError(
                f"the report in {self.folder} has no figure {name!r}. {nearest(name, self.figures, what='figure')}"
            )
        return Figure(name, (self.folder / export.FIGURES / f"{name}.svg").read_text(encoding="utf-8"))

    def adapter(self, cell: str) -> Path:
        """The folder of a cell's trained adapter, for `peft.PeftModel.from_pretrained`.

        Args:
            cell: its name as tables print it, such as `dpo`, `dpo beta 0.1`, or `dpo#1` where there are several seeds.

        Raises:
            MissingResultError: no cell has this name, it has no adapter, or the adapter is not in `runs`.
        """
        known = {one.cell: one.adapter for one in self.record.results}
        found = called(cell, known)
        if len(found) != 1:
            several = f"{cell} stands for {', '.join(map(str, found))}; name one of them"
            missing = f"the report has no cell {cell!r}. {nearest(str(cell), names_of(known), what='cell')}"
            raise MissingResultError(several if found else missing)
        adapter = known[found[0]]
        if adapter is None:
            raise MissingResultError(f"{cell} has no adapter: it was not trained, or did not finish")
        folder = self.runs / adapter
        if not folder.is_dir():
            raise MissingResultError(
                f"the adapter of {cell} is not in {folder}",
                fix="name the folder of results of that run with `runs=`, or run the suite again",
            )
        return folder

    def __repr__(self) -> str:
        """The verdict, and the leaderboard's most important columns."""
        return "\n".join(
            [f"Report of {self.record.suite.name}", *self.verdict, "", self._short().to_string(index=False)]
        )

    def _repr_html_(self) -> str:
        from html import escape

        said = "".join(f"<p>{escape(line)}</p>" for line in self.verdict)
        return f"<h3>{escape(self.record.suite.name)}</h3>{said}{self._short().to_html(index=False, escape=True)}"

    def _short(self) -> pd.DataFrame:
        frame = self.leaderboard()
        return frame[[name for name in SHORT if name in frame.columns]].round(3)


SHORT = (
    "rank",
    "label",
    "judge",
    "gold",
    "win_rate",
    "accuracy",
    "accuracy_gold",
    "words",
    "unfinished",
    "kl",
    "seconds",
)


def _json(value: object) -> object:
    """A path as its text, a number of numpy's as Python's."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise SuiteError(f"set: got {value!r}; expected what YAML can hold: numbers, texts, lists and mappings")


def _frame(rows: Sequence[object], columns: Sequence[str] | None = None) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=None if columns is None else list(columns))


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    """A row of plain values: an estimate becomes `x`, `x low`, …; a mapping becomes a column per key."""
    found: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": own for key, own in value.items()}
        elif isinstance(value, Estimate | OverSeeds):
            parts = asdict(value) if isinstance(value, Estimate) else value.model_dump()
            found |= {name if part in ("value", "mean") else f"{name} {part}": own for part, own in parts.items()}
        else:
            found[name] = _plain(value)
    return found


def _plain(value: object) -> object:
    """An id or a metric as its text, a list as its items' texts; numbers and texts as they are."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
