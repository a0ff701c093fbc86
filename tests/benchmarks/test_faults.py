"""A short campaign of `benchmarks/faults.py`: one or two faults of each kind; and its comparison can fail."""

from __future__ import annotations

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path

import faults
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


CAMPAIGN = """
import sys
import faults

faults.work_in(folder, folder / "said")
sys.argv = ["faults.py", *options]
faults.main()
"""


@pytest.fixture(scope="module")
def short(copies: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short campaign; it ends with 1 where a promise does not hold."""
    folder = tmp_path_factory.mktemp("faults")
    options = ["--few", "--kills", "2", "--others", "1", "--minutes", "0", "--work", "work", "--out", "found"]
    campaign = copies.Process(target=exec, args=(CAMPAIGN, {"folder": folder, "options": options}))
    campaign.start()
    campaign.join()
    assert campaign.exitcode == 0, (folder / "said").read_text(encoding="utf-8")[-10000:]
    return folder


def test_nothing_is_lost_and_nothing_is_wrong_after_a_fault_of_each_kind(short: Path) -> None:
    found = json.loads((short / "found.json").read_text(encoding="utf-8"))
    assert set(found) == set(faults.SCENARIOS)
    assert not any(counts["wrong"] for counts in found.values())
    assert all(counts["same"] + counts["told"] + counts["verified"] == counts["faults"] for counts in found.values())
    for name in ("damage", "kills at random moments", "kills at random writes", "signals", "clock set back", "rivals"):
        assert found[name]["faults"] >= 1
    assert "| kills at random writes |" in (short / "found.md").read_text(encoding="utf-8")


def test_a_changed_result_is_noticed(short: Path) -> None:
    undisturbed = short / "work" / "undisturbed"
    before = faults.results_of(undisturbed)
    assert before == faults.results_of(undisturbed)
    tensors = next((undisturbed / "runs" / "adapter").glob("*/*.safetensors"))
    kept = tensors.read_bytes()
    tensors.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert faults.results_of(undisturbed) != before
    tensors.write_bytes(kept)
    assert faults.results_of(undisturbed) == before
    report = undisturbed / "reports" / "faulty" / "report.json"
    numbers = json.loads(report.read_text(encoding="utf-8"))
    numbers["results"][-1]["metrics"]["gold_accuracy"]["n"] += 1
    report.write_text(json.dumps(numbers), encoding="utf-8")
    assert faults.results_of(undisturbed) != before


def test_the_published_counts_are_those_of_the_page() -> None:
    found = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))
    page = (RESULTS / "faults.md").read_text(encoding="utf-8")
    for name in faults.SCENARIOS:
        assert faults.row(name, faults.Counts(**found[name])) in page
