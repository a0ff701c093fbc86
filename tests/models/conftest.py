"""The two ways of laying out a batch: that of a CPU, which tests run on, and that of an accelerator."""

from __future__ import annotations

import pytest

from align_bench.models import generate, layout


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded rows, as an accelerator reads them."""
    for module in (layout, generate):
        monkeypatch.setattr(module, "can_pack", lambda inner, longest: False)


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences in one row share every first token that they have in common, however few these are."""
    monkeypatch.setattr(layout, "_WORTH_SHARING", 1)


@pytest.fixture(params=["one unpadded row", "padded rows"])
def packs(request: pytest.FixtureRequest) -> bool:
    """Either way; whether it is that of a CPU."""
    request.getfixturevalue("padded" if request.param == "padded rows" else "sharing")
    return bool(request.param == "one unpadded row")
