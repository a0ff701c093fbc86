"""Freed memory is kept for the next pass, in a process whose allocator is glibc's and not set by its user."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypedDict

import pytest

from align_bench.runner import allocator

# Five blocks of 64 MB, one after the other, before and after; then how much the process holds.
BLOCKS = """
import json, resource
from align_bench.runner.allocator import give_back, keep_freed, obstacle

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        bytearray(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    status = open("/proc/self/status", encoding="ascii").read()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])

before, kept, after, held = faults(), keep_freed(), faults(), resident()
give_back()
print(json.dumps({"before": before, "kept": kept, "after": after, "given_back": held - resident(), "why": obstacle()}))
"""
# A stage that frees 256 MB, and one after it that takes 8.
PEAKS = """
from align_bench.runner.allocator import keep_freed
from align_bench.runner.costs import Meter

def peak(mebibytes):
    meter = Meter()
    bytearray(mebibytes * 2**20)
    return meter.cost(0).peak_bytes

assert keep_freed()
print(peak(256) - peak(8))
"""
# The weights that a training on the embedded model leaves, as text in `file`.
TRAINING = """
import os, torch
for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
    del os.environ[name]
os.environ.update(variables)
torch.set_num_threads(1)
from align_bench.models.base import find_base
from align_bench.models.load import add_adapter, load_policy
from align_bench.models.precision import resolve_precision
from align_bench.plugins.registry import load_registry
from align_bench.records import TokenRow
from align_bench.runner.allocator import keep_freed
from align_bench.suite.models import Lora, Train
from align_bench.train.job import TrainingJob
from align_bench.train.loop import train

assert keep_freed() is (not variables)
rows = [TokenRow(n, tuple(range(5, 30 + n)), tuple(range(40, 90 + n)), tuple(range(90, 120))) for n in range(8)]
algorithm = load_registry()["simpo"].algorithm
model = add_adapter(load_policy(find_base("embedded/tiny"), resolve_precision("fp32", "cpu")), Lora(), seed=0)
settings = Train(batch_size=4, max_length=128)
train(TrainingJob(model=model, rows=rows, algorithm=algorithm, parameters=algorithm.resolve({}), learning_rate=1e-3,
                  settings=settings, seed=0))
trained = [p.detach() for p in model.parameters() if p.requires_grad]
file.write_text(str([p.view(torch.int32).sum(dtype=torch.int64).item() for p in trained]), encoding="ascii")
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)


class Found(TypedDict):
    before: int
    kept: bool
    after: int
    given_back: int
    why: str | None


def printed(script: str, **variables: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=plain | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def blocks(**variables: str) -> Found:
    found: Found = json.loads(printed(BLOCKS, **variables))
    return found


def test_a_block_that_was_freed_is_not_faulted_in_again_until_it_is_given_back() -> None:
    found = blocks()
    assert (found["kept"], found["why"]) == (True, None)
    assert found["after"] < found["before"] / 3
    assert found["given_back"] > 50e6


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_MMAP_MAX_", "65536"), ("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")],
)
def test_what_the_user_says_of_the_allocator_stays(name: str, value: str) -> None:
    found = blocks(**{name: value})
    assert (found["kept"], found["why"]) == (False, f"{name} is set")
    assert found["after"] > 0.9 * found["before"]


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [*os.environ]:
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)
    return monkeypatch


def test_other_tunables_say_nothing_of_the_allocator(unset: pytest.MonkeyPatch) -> None:
    unset.setattr(allocator, "_file_of", lambda function: b"libc.so.6")
    unset.setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=512")
    assert allocator.obstacle() is None


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_without_glibc_nothing_happens(unset: pytest.MonkeyPatch, platform: str) -> None:
    """Neither on another system nor beside another C library, such as musl, which has no `mallopt` at all."""
    unset.setattr(sys, "platform", platform)
    unset.setattr(ctypes, "CDLL", lambda name: object())
    assert allocator.obstacle() == "the C library is not glibc"
    assert not allocator.keep_freed()
    allocator.give_back()


def test_an_allocator_that_is_preloaded_is_left_alone(unset: pytest.MonkeyPatch) -> None:
    files = {"malloc_usable_size": b"libjemalloc.so.2", "gnu_get_libc_version": b"libc.so.6"}
    unset.setattr(allocator, "_file_of", files.__getitem__)
    assert allocator.obstacle() == "another one is preloaded"
    assert not allocator.keep_freed()


def test_a_stages_peak_is_not_what_the_one_before_has_freed() -> None:
    assert int(printed(PEAKS)) > 150e6


def test_a_training_ends_in_the_same_bits(copies: ForkServerContext, tmp_path: Path) -> None:
    def weights(**variables: str) -> str:
        file = tmp_path / "weights"
        process = copies.Process(target=exec, args=(TRAINING, {"file": file, "variables": variables}))
        process.start()
        process.join()
        assert process.exitcode == 0
        return file.read_text(encoding="ascii")

    kept = weights()
    assert kept.startswith("[")
    assert kept == weights(MALLOC_MMAP_MAX_="65536")
