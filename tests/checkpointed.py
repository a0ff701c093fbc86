"""Whether layers were run so that they compute again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.checkpoint import checkpoint


def checkpointed_layers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Tells how many layers transformers has run in that way since this call."""
    ran = 0

    def noted(*given: Any, **more: Any) -> Any:
        nonlocal ran
        ran += 1
        return checkpoint(*given, **more)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", noted)
    return lambda: ran
