"""Runs are tested for what they compute: only the figures of sweeps are drawn, which tests here look at."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext

import pytest


@pytest.fixture(scope="module", autouse=True)
def _few_figures(few_figures: None) -> None:
    """All figures are drawn in tests/report."""


@pytest.fixture(autouse=True)
def _workers_are_copies(copies: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are spawned only where a command of its own starts them, in test_jobs and test_helpers."""
    monkeypatch.setattr("align_bench.runner.processes.CONTEXT", copies)
