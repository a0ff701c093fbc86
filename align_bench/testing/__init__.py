"""The conformance kit: does a plugin's loss keep the contract of `api`?

In a test of your own: `check_algorithm(plugin.algorithm, beta=0.5).raise_for_failures()`. On the command line:
`align-bench check my_method.py`.
"""

from align_bench.api.docstrings import SECTIONS
from align_bench.testing.checks import Check, CheckReport, check_algorithm
from align_bench.testing.subject import Status

__all__ = ["SECTIONS", "Check", "CheckReport", "Status", "check_algorithm"]
