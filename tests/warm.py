"""What every run does once in a process, done where copies are made: `copies` in conftest.py imports this there."""

from __future__ import annotations

import gc

from align_bench.sources import closure

closure("align_bench.cli.main")  # reads and parses all of the package's files, whose digests are in keys
gc.freeze()  # so that no collection of a copy looks through the libraries
