"""Rebuild the published reports of the embedded suites, rows left out for their size.

Everything that `--runs` holds is used again, so that after a change of the report alone it takes seconds; from nothing
it takes about an hour and a half of one core.

After a change of the report, `--rows` builds it again from the rows of a run by earlier code; nothing is trained.

Example:
    python benchmarks/published_reports.py
    python benchmarks/published_reports.py assignment debias
    python benchmarks/published_reports.py offline_losses --jobs 2
    python benchmarks/published_reports.py offline_losses --rows reports
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITES = ("assignment", "debias", "ppo", "overoptimisation", "sft_then", "offline_losses")
CODE = "from align_bench.cli.main import main; main()"
PUBLISHED = ("report.json", "report.md", "report.html")
ROOT = Path(__file__).resolve().parent.parent


def main(given: Sequence[str] | None = None) -> None:
    """Run each suite and put what is committed of its report in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=SUITES, metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of computed results (default: runs)")
    parser.add_argument("--jobs", metavar="N", help="cells at a time (default: one)")
    parser.add_argument("--rows", type=Path, help="folder of the suites' own reports, to build from their rows alone")
    arguments = parser.parse_args(given)
    if arguments.rows is not None:
        for suite in arguments.suites:
            rebuild(arguments.rows / suite)
            publish(arguments.rows / suite, ROOT / "reports" / "published" / suite)
        return
    arguments.runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # In a folder of its own, so that a report names the plain command, and no path of this machine.
        Path(folder, "runs").symlink_to(arguments.runs.resolve())
        for suite in arguments.suites:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-c", CODE, "run", suite]
            if arguments.jobs is not None:
                command += ["--jobs", arguments.jobs]
            subprocess.run(command, check=True, cwd=folder, env=environment)
        # Only when all have run: what is published changes this clone, and a report says of a changed one.
        for suite in arguments.suites:
            publish(Path(folder, "reports", suite), ROOT / "reports" / "published" / suite)


def rebuild(folder: Path) -> None:
    """Build a run's report again from its rows; what no row holds is taken over from the report that is there."""
    from align_bench.report import export
    from align_bench.report.build import build_report
    from align_bench.report.schema import Header

    report = export.read_report(folder)
    header = Header.model_validate({name: getattr(report, name) for name in Header.model_fields})
    rows = export.ReportRows(
        export.read_scores(folder),
        export.read_generations(folder),
        export.read_training(folder),
        export.read_audits(folder),
        export.read_pairs(folder),
        export.read_texts(folder),
        export.read_tested(folder),
    )
    outcomes = [export.outcome_of(result) for result in report.results]
    again = build_report(header, outcomes, rows.scores, rows.generations, rows.audits, rows.pairs, tested=rows.tested)
    export.write_report(folder, again, rows)


def publish(report: Path, target: Path) -> None:
    """Replace a published report, or publish a new one, without its page.

    Args:
        report: the folder that a run wrote.
        target: the committed folder; it keeps a page (`report.html`) only if it has one.
    """
    new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED:
        if (target / name).exists() or (new and name != "report.html"):
            shutil.copy(report / name, target / name)
    shutil.rmtree(target / "figures", ignore_errors=True)
    shutil.copytree(report / "figures", target / "figures")


if __name__ == "__main__":
    main()
