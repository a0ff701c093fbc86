"""Nothing is fetched and executed because a library is imported, and nothing is reported to anyone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FAKE = """
from pathlib import Path

def get_kernel(*args, **kwargs):
    Path(__file__).with_name("asked").touch()
    raise RuntimeError("no network")
"""
PROGRAM = """
import align_bench.models
import bitsandbytes
from huggingface_hub import constants

assert constants.HF_HUB_DISABLE_TELEMETRY
"""


def test_bitsandbytes_asks_for_no_kernels_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(FAKE, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    above = os.pathsep.join([str(tmp_path), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env={**kept, "PYTHONPATH": above}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "asked").exists()
    assert done.stderr + done.stdout == ""
