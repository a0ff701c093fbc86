"""The precision of this machine: told without torch only where torch would say the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from align_bench.models import precision
from align_bench.models.compute import compute_dtype
from align_bench.models.precision import (
    Compute,
    Precision,
    find_device,
    has_amx,
    has_avx512,
    has_no_accelerator,
    resolve_precision,
)

INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu {flags}\n\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No answer is remembered from another test, and accelerate counts as not imported."""
    find_device.cache_clear()
    precision._multiplies_bf16.cache_clear()
    monkeypatch.delitem(sys.modules, "accelerate", raising=False)
    return monkeypatch


def test_precision_is_written_in_keys_as_it_always_was() -> None:
    assert str(Precision("fp32", "float32", "cpu")) == "fp32/float32/cpu"
    assert str(Precision("nf4", "bfloat16", "cuda")) == "nf4/bfloat16/cuda"


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_name_of_the_compute_type_is_torchs(name: Compute, dtype: torch.dtype) -> None:
    assert compute_dtype(Precision("fp32", name, "cpu")) is dtype
    assert str(dtype) == f"torch.{name}"


def test_auto_takes_what_the_hardware_is_fast_in() -> None:
    assert resolve_precision("auto", "cuda").storage == "nf4"
    on_cpu = resolve_precision("auto", "cpu")
    assert (on_cpu.storage, on_cpu.compute) in (("fp32", "float32"), ("bf16", "bfloat16"))
    assert resolve_precision("nf4", "cpu").compute == on_cpu.compute
    assert resolve_precision("bf16", "cpu").compute == "bfloat16"
    assert str(resolve_precision("fp32", "cpu")) == "fp32/float32/cpu"
    assert resolve_precision("auto", "mps") == Precision("fp32", "float32", "mps")


def test_the_device_is_the_one_that_accelerate_chooses(asked: pytest.MonkeyPatch) -> None:
    found = find_device()
    find_device.cache_clear()
    asked.setattr(precision, "has_no_accelerator", lambda: False)
    assert find_device() == found


def test_the_fast_type_is_the_one_that_torch_names(asked: pytest.MonkeyPatch) -> None:
    known = has_amx()
    assert known in (None, torch.cpu._is_amx_tile_supported())
    found = resolve_precision("auto", "cpu")
    precision._multiplies_bf16.cache_clear()
    asked.setattr(precision, "has_amx", lambda: None)
    assert resolve_precision("auto", "cpu") == found


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        (INTEL.format(flags="avx512f avx512_bf16 amx_tile amx_bf16"), "x86_64", True),
        (INTEL.format(flags="avx2"), "x86_64", False),
        (INTEL.format(flags="avx512f"), "x86_64", False),
        (INTEL.format(flags="avx512f avx512_bf16"), "x86_64", None),  # an old kernel may hide AMX
        (INTEL.format(flags="amx_tile"), "x86_64", None),  # which AVX-512 goes with
        (AMD.format(flags="avx512f avx512_bf16"), "x86_64", False),
        ("processor : 0\n", "x86_64", None),
        ("", "x86_64", None),
        ("", "aarch64", False),
        (INTEL.format(flags="avx512f amx_tile"), "ppc64le", None),
    ],
)
def test_amx_by_the_flags_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, machine: str, expected: bool | None
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "cpuinfo").write_text(text)
    assert has_amx(tmp_path / "cpuinfo", machine) is expected
    if machine == "x86_64":
        assert has_amx(tmp_path / "missing", machine) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (INTEL.format(flags="avx2 avx512f avx512bw"), True),
        (AMD.format(flags="avx2"), False),
        ("processor : 0\nFeatures : asimd\n", None),
        ("", None),
    ],
)
def test_avx512_by_the_flags_of_linux(tmp_path: Path, text: str, expected: bool | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert has_avx512(tmp_path / "cpuinfo") is expected
    assert has_avx512(tmp_path / "missing") is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine without an accelerator, and a torch that was built for one."""
    for name in ("ACCELERATE_TORCH_DEVICE", "LOCAL_RANK", "ACCELERATE_USE_SAGEMAKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    monkeypatch.setattr(precision, "version", lambda name: "2.13.0")
    for place, vendor in (("0", "0x8086"), ("1", "0x1af4")):
        (tmp_path / "sys/bus/pci/devices" / place).mkdir(parents=True)
        (tmp_path / "sys/bus/pci/devices" / place / "vendor").write_text(f"{vendor}\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "null").touch()
    return tmp_path


def test_a_linux_machine_without_any_trace_has_no_accelerator(machine: Path) -> None:
    assert has_no_accelerator(machine)


@pytest.mark.parametrize(
    "trace", ["dev/nvidia0", "dev/nvidiactl", "dev/kfd", "dev/dxg", "dev/dri/renderD128", "proc/driver/nvidia/version"]
)
def test_a_trace_of_an_accelerator_leaves_it_open_but_for_a_torch_that_cannot_use_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    (machine / trace).parent.mkdir(parents=True, exist_ok=True)
    (machine / trace).touch()
    assert not has_no_accelerator(machine)
    monkeypatch.setattr(precision, "version", lambda name: "2.13.0+cpu")
    assert has_no_accelerator(machine)


@pytest.mark.parametrize("vendor", ["0x10de", "0x1002"])
def test_a_card_whose_driver_is_not_loaded_yet_leaves_it_open(machine: Path, vendor: str) -> None:
    (machine / "sys/bus/pci/devices/1/vendor").write_text(f"{vendor}\n")
    assert not has_no_accelerator(machine)


@pytest.mark.parametrize(
    ("name", "value"), [("ACCELERATE_TORCH_DEVICE", "cpu"), ("LOCAL_RANK", "0"), ("ACCELERATE_USE_SAGEMAKER", "true")]
)
def test_what_decides_for_accelerate_leaves_it_open(
    machine: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not has_no_accelerator(machine)


def test_another_system_or_a_package_with_a_device_of_its_own_leaves_it_open(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda name: object() if name == "torch_npu" else None)
    assert not has_no_accelerator(machine)
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not has_no_accelerator(machine)
