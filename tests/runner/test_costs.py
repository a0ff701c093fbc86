"""Costs: what a meter reads, what a sum of costs is, and what artefacts stored before operations were counted say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_bench.models.peak import peak_flops
from align_bench.models.precision import Precision
from align_bench.records import Cost
from align_bench.runner import costs
from align_bench.runner.costs import Meter, total
from align_bench.store.keys import Address
from align_bench.store.store import MANIFEST, Store

FP32 = Precision("fp32", "float32", "cpu")


def test_utilisation_is_operations_a_second_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "peak_flops", lambda precision: {FP32: 1e9}[precision])
    cost = Meter().cost(7, 3.0, FP32)
    assert (cost.tokens, cost.flops) == (7, 3.0)
    assert cost.utilisation == pytest.approx(3.0 / cost.seconds / 1e9)


def test_more_than_the_peak_says_that_the_peak_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "peak_flops", lambda precision: 1.0)
    cost = Meter().cost(7, 3e6, FP32)
    assert (cost.flops, cost.utilisation) == (3e6, None)


def test_what_was_not_counted_is_none_and_work_without_a_model_zero() -> None:
    unknown, none = Meter().cost(7, None, FP32), Meter().cost(7, 0.0)
    assert (unknown.flops, unknown.utilisation) == (None, None)
    assert (none.flops, none.utilisation) == (0.0, 0.0)


def test_the_peak_is_measured_once_and_is_what_a_product_reaches() -> None:
    found = peak_flops(FP32)
    assert 1e8 < found < 1e14
    assert peak_flops(FP32) is found


def test_a_sum_weighs_utilisation_by_time() -> None:
    """1 s at a half and 3 s at a tenth of a peak of 100: 50 + 30 operations, a fifth over 4 s."""
    several = [Cost(1.0, 10, 5, 50.0, 0.5), Cost(3.0, 20, 9, 30.0, 0.1)]
    found = total(several)
    assert found is not None
    assert found.utilisation == pytest.approx(0.2)
    assert found == Cost(4.0, 30, 9, 80.0, found.utilisation)
    assert total([]) is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert total([Cost(1.0, 10, 5, 50.0, 0.5), Cost(3.0, 20, 9)]) == Cost(4.0, 30, 9, None, None)
    assert total([Cost(1.0, 10, 5, 50.0, 0.5), Cost(3.0, 20, 9, 30.0)]) == Cost(4.0, 30, 9, 80.0, None)


def test_an_artefact_stored_without_operations_is_still_read(tmp_path: Path) -> None:
    store, address = Store(tmp_path), Address("validation", "0" * 20)
    with store.scratch(address) as folder:
        manifest = store.put(address, "dpo", folder, Cost(1.5, 20, 300, 1e9, 0.5), {}) / MANIFEST
    content = json.loads(manifest.read_text())
    assert content["cost"].pop("flops") == 1e9
    assert content["cost"].pop("utilisation") == 0.5
    del content["seal"]  # of an earlier version, which sealed nothing
    manifest.write_text(json.dumps(content))
    found = store.get(address)
    assert found is not None
    assert found.cost == Cost(1.5, 20, 300, None, None)
