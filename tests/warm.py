"""What every run does once in a process, done where copies are made: `copies` in conftest.py imports this there."""

from __future__ import annotations

import gc

from align_bench.sources import closure

closure("align_bench.runner.run")  # reads and parses the files whose digests are in keys
gc.freeze()  # so that no collection of a copy looks through the libraries
