"""What `--hardware` names, and what computes there."""

from __future__ import annotations

import pytest

from align_bench.errors import SuiteError
from align_bench.models.precision import Precision
from align_bench.planning.hardware import GPUS, parse_hardware


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("h100", "h100", 1), ("H100x8", "h100", 8), ("rtx4090", "rtx4090", 1), ("rtx4090x2", "rtx4090", 2)],
)
def test_a_name_may_have_a_count(text: str, name: str, count: int) -> None:
    found = parse_hardware(text)
    assert (found.device, found.count) == (GPUS[name], count)
    assert str(found) == (name if count == 1 else f"{name}x{count}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h300x8", "Did you mean h200 or h100? Known devices: a100-40, a100-80, cpu, h100, "),
        ("h100x0", "expected a whole number of 1 or more after h100x"),
        ("h100x", "expected a whole number of 1 or more after h100x"),
        ("h100x" + "9" * 5000, "expected a whole number of 1 or more after h100x"),
        ("x", "Known devices: "),
        ("cpux2", "takes no count"),
    ],
)
def test_others_are_refused(text: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        parse_hardware(text)
    assert said in str(caught.value)


def test_auto_is_what_the_named_device_would_choose() -> None:
    assert parse_hardware("h100").device.precision("auto") == Precision("nf4", "bfloat16", "cuda")
    assert parse_hardware("t4").device.precision("auto") == Precision("nf4", "float32", "cuda")
    assert parse_hardware("l40s").device.precision("fp32") == Precision("fp32", "float32", "cuda")
    assert parse_hardware("cpu").device.precision("fp32") == Precision("fp32", "float32", "cpu")


def test_the_peak_is_that_of_the_type_that_computes() -> None:
    device, t4 = GPUS["h100"], GPUS["t4"]
    assert device.peak(device.precision("auto")) == 989e12
    assert device.peak(device.precision("fp32")) == 67e12
    assert device.peak_words(device.precision("fp32")) == "fp32 peak"
    assert t4.peak(t4.precision("bf16")) == 8.1e12  # obeyed, but no faster there
    assert all(device.bf16 is None or device.bf16 > device.fp32 for device in GPUS.values())


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
    ],
)
def test_devices_are_known_by_the_names_that_torch_gives(name: str, device: str) -> None:
    assert [one.name for one in GPUS.values() if one.is_named(name)] == [device]
    assert not parse_hardware("cpu").device.is_named(name)
