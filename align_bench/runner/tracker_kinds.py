"""What each tracker wants: where it keeps its runs, how a run is opened, and how it takes tables and a report.

Steps go through accelerate's tracker classes. Unless the user's own environment says so, nothing leaves this machine:
all is kept below the runs folder, W&B is offline, and trackers' own usage statistics are off.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from align_bench.errors import SuiteError, nearest
from align_bench.records import Scalar
from align_bench.store.labels import safe_label

Options = dict[str, object]  # keyword arguments of accelerate's class, which passes most on to the tracker's own `init`


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report.

    Attributes:
        name: that of its file, such as `leaderboard`.
        headings: of its columns.
        rows: its cells as they are shown.
    """

    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class Kind(ABC):
    """One kind of tracker, for one suite.

    Attributes:
        name: what `--track` and accelerate call it; also the package that it needs, and our extra.
        destination: where the user's environment has it send its runs; empty when they stay in the folder.
        environment: variables that hold while it is used, unless the user has set them.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, suite: str) -> None:
        """Nothing is imported, made or sent.

        Args:
            folder: where it keeps what it is not told to send elsewhere; an absolute path.
            suite: name of the suite, which is the name of its project, or experiment.
        """
        self.folder = folder
        self.suite = suite
        self.destination = ""
        self.environment: Mapping[str, str] = {}

    @abstractmethod
    def options(self, name: str, key: str, known: str | None) -> Options:
        """What opens a run, or goes on with it.

        Args:
            name: of the run, for people.
            key: what identifies it: 20 hexadecimal digits.
            known: what `run_id` has given for it before, if anything.
        """

    def configure(self, tracker: Any, settings: Mapping[str, Scalar]) -> None:
        """Give a new run what it was asked for."""
        tracker.store_init_configuration(dict(settings))

    def run_id(self, tracker: Any) -> str | None:
        """What finds an open run again later, where its name or key does not."""
        return None

    @abstractmethod
    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        """Give it a report's tables, and the report's folder where it takes files."""


class TensorBoard(Kind):
    """Event files, a folder per cell. Tables are shown as text; files are not taken."""

    name = "tensorboard"

    def options(self, name: str, key: str, known: str | None) -> Options:
        return {"run_name": f"{safe_label(name)}-{key[:8]}", "logging_dir": str(self.folder / self.suite)}

    def configure(self, tracker: Any, settings: Mapping[str, Scalar]) -> None:
        rows = [[name, str(value)] for name, value in settings.items()]
        tracker.log({"settings": _markdown(Table("settings", ["setting", "value"], rows))}, step=0)

    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        tracker.log({f"tables/{table.name}": _markdown(table) for table in tables}, step=0)


class MLflow(Kind):
    """A database and a folder of artefacts, or the server of `MLFLOW_TRACKING_URI`."""

    name = "mlflow"

    def __init__(self, folder: Path, suite: str) -> None:
        super().__init__(folder, suite)
        self.destination = os.environ.get("MLFLOW_TRACKING_URI", "")
        self.environment = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            # A server that is away is given up after seconds; with MLflow's own settings, after minutes.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        }

    def options(self, name: str, key: str, known: str | None) -> Options:
        here = None if self.destination else (self.folder / "artifacts").as_uri()
        # MLflow would note the address of a clone's remote, which may hold a token.
        tags = {"mlflow.source.git.repoURL": "", "mlflow.source.name": "align-bench"}
        return {"experiment_name": self.suite, "logging_dir": here, "run_name": name, "run_id": known, "tags": tags}

    def run_id(self, tracker: Any) -> str | None:
        found: str = tracker.tracker.info.run_id
        return found

    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        import mlflow

        for table in tables:
            columns = zip(*table.rows, strict=True) if table.rows else ((),) * len(table.headings)
            data = dict(zip(table.headings, map(list, columns), strict=True))
            mlflow.log_table(data, f"tables/{table.name}.json")
        tracker.log_artifacts(str(folder), "report")


class WandB(Kind):
    """Offline runs in the folder, or online where `WANDB_MODE` says so. Its look at machine and console is off."""

    name = "wandb"

    def __init__(self, folder: Path, suite: str) -> None:
        super().__init__(folder, suite)
        mode = os.environ.get("WANDB_MODE", "offline")
        self.destination = "" if mode == "offline" else f"{mode} {os.environ.get('WANDB_BASE_URL', '')}"
        self.environment = {
            "WANDB_MODE": "offline",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DATA_DIR": str(folder / "data"),
            "WANDB_CACHE_DIR": str(folder / "cache"),
        }

    def options(self, name: str, key: str, known: str | None) -> Options:
        import wandb

        # What it would otherwise add by itself may hold what nobody wants to show: arguments, remotes, printed lines.
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True
        )
        resumed = {"resume": "allow"} if self.destination else {}  # offline, runs of one id are joined by `sync`
        return {
            "run_name": self.suite,
            "name": name,
            "id": key,
            "dir": os.environ.get("WANDB_DIR", str(self.folder.parent)),
            "settings": settings,
            **resumed,
        }

    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        for table in tables:
            tracker.log_table(f"tables/{table.name}", columns=list(table.headings), data=list(map(list, table.rows)))
        tracker.tracker.log_artifact(str(folder), name=f"report-{safe_label(self.suite)}", type="report")


class Trackio(Kind):
    """A database in the folder, or the Space or server that `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` names."""

    name = "trackio"

    def __init__(self, folder: Path, suite: str) -> None:
        super().__init__(folder, suite)
        self.destination = os.environ.get("TRACKIO_SPACE_ID", "") or os.environ.get("TRACKIO_SERVER_URL", "")
        self.environment = {"TRACKIO_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}

    def options(self, name: str, key: str, known: str | None) -> Options:
        watched = {"auto_log_cpu": False, "auto_log_gpu": False, "embed": False}
        return {"run_name": self.suite, "name": f"{name} {key[:8]}", "resume": "allow", **watched}

    def report(self, tracker: Any, folder: Path, tables: Sequence[Table]) -> None:
        import pandas as pd
        import trackio

        frames = {table.name: pd.DataFrame(list(table.rows), columns=list(table.headings)) for table in tables}
        tracker.log({f"tables/{name}": trackio.Table(dataframe=frame) for name, frame in frames.items()})
        tracker.tracker.log_artifact(str(folder), name=f"report-{safe_label(self.suite)}", type="report")


KINDS: Mapping[str, type[Kind]] = {kind.name: kind for kind in (TensorBoard, MLflow, WandB, Trackio)}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that do not exist, or are not installed.

    Raises:
        SuiteError: one of them is so; the fix is the line that installs it.
    """
    for name in names:
        if name not in KINDS:
            raise SuiteError(f"--track {name}: there is no such tracker. {nearest(name, KINDS, what='tracker')}")
        if find_spec(name) is None:
            raise SuiteError(f"--track {name}: {name} is not installed", fix=f"pip install 'align-bench[{name}]'")


def _markdown(table: Table) -> str:
    lines = [table.headings, ["---"] * len(table.headings), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
