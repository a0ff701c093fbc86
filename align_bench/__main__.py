"""The program `align-bench`, which is `python -m align_bench`, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command; Ctrl-C ends it without a traceback, even while its modules are loaded."""
    try:
        from align_bench.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
