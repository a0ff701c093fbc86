"""The two ways of laying out a batch: that of a CPU, which tests run on, and that of an accelerator."""

from __future__ import annotations

import pytest

from align_bench.models import layout


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded rows, as an accelerator reads them."""
    monkeypatch.setattr(layout, "_can_pack", lambda inner, sequences: False)


@pytest.fixture(params=["one unpadded row", "padded rows"])
def packs(request: pytest.FixtureRequest) -> bool:
    """Either way; whether it is that of a CPU."""
    if request.param == "padded rows":
        request.getfixturevalue("padded")
    return bool(request.param == "one unpadded row")
