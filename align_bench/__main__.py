"""`python -m align_bench` is `align-bench`."""

from align_bench.cli.main import main

main()
