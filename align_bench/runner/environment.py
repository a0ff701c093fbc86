"""The machine and the libraries that made a report."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from align_bench.report.schema import Environment
from align_bench.stages.stage import MODEL_LIBRARIES, TEXT_LIBRARIES, library_versions

# What computes a report's statistics and draws it: another version is another report. Of what makes the artefacts under
# it, see `stages.stage.MODEL_LIBRARIES`.
REPORT_LIBRARIES = ("scipy", "statsmodels", "scikit-learn", "pyphen", "rjieba", "numpy", "matplotlib")


def environment(threads: int | None = None) -> Environment:
    """The machine and the libraries; holds no path, host or user name.

    Args:
        threads: that the stages behind a report were computed with; this process's where they were not recorded.
    """
    import torch

    return Environment(
        align_bench=version("align-bench"),
        commit=_commit(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        threads=threads or torch.get_num_threads(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        libraries=library_versions((*MODEL_LIBRARIES, *TEXT_LIBRARIES, *REPORT_LIBRARIES, "datasets", "trl")),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of a clone that runs in place, marked when its files differ from it; None for an installed package."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
