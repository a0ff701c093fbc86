"""What a plugin's own code may raise."""

from __future__ import annotations

import sys

import pytest
import torch

from align_bench.errors import DataError, PluginError
from align_bench.train.plugin_code import plugin_code


def test_an_error_and_an_exit_of_a_plugin_are_its_own_failure() -> None:
    with pytest.raises(PluginError, match="the loss of mine raised ZeroDivisionError"), plugin_code("the loss of mine"):
        _ = 1 / 0
    with pytest.raises(PluginError, match="the loss of mine raised SystemExit: 3"), plugin_code("the loss of mine"):
        sys.exit(3)


@pytest.mark.parametrize("error", [DataError("x"), torch.OutOfMemoryError("x"), KeyboardInterrupt()])
def test_our_own_errors_the_memory_and_the_user_go_through(error: BaseException) -> None:
    with pytest.raises(type(error)), plugin_code("the loss of mine"):
        raise error
