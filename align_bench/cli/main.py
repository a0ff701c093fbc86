"""Entry point of the console script."""

from __future__ import annotations

import os
import sys

from rich.markup import escape

from align_bench.cli import compare, data, export, methods, publish, run, verify  # noqa: F401 - each adds its commands to the application
from align_bench.cli.app import app, errors
from align_bench.errors import AlignBenchError
from align_bench.report.formatting import clipped, visible

__all__ = ["app", "main"]

MOST_LETTERS = 2500  # of an error's message, and of its fix


def main() -> None:
    """Run a command; the user's mistakes are shown without a traceback."""
    # OpenMP's threads wait by spinning. By default they do so for long: a step of the embedded model took 0.42 s alone
    # on two cores, but 1.75 s beside another busy process. With no spin it was 0.73 s and 0.94 s, with a short one
    # 0.47 s both times. torch reads this when it is first imported, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except AlignBenchError as error:
        said = clipped(visible(error.message), MOST_LETTERS)
        fix = f"\n  → {clipped(visible(error.fix), MOST_LETTERS)}" if error.fix else ""
        errors.print(f"[bold red]error:[/] {escape(said + fix)}", highlight=False, soft_wrap=True)
        sys.exit(2)
