"""What `precision:` means on this machine; torch is asked only where an accelerator may be."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Literal

Compute = Literal["float32", "bfloat16"]

# Packages that bring torch a device of their own.
_PLUGINS = ("habana_frameworks", "torch_mlu", "torch_musa", "torch_neuronx", "torch_npu", "torch_sdaa", "torch_xla")
# What drivers leave in a Linux machine: NVIDIA, NVIDIA on a board, AMD, WSL, and any GPU that can compute.
_TRACES = (
    "/dev/nvidia*",
    "/dev/nvhost*",
    "/dev/nvmap",
    "/dev/kfd",
    "/dev/dxg",
    "/dev/dri/renderD*",
    "/dev/accel*",
    "/proc/driver/nvidia",
)
_PCI_VENDORS = ("0x10de", "0x1002")  # NVIDIA, whose driver may be loaded at the first call only, and AMD


@dataclass(frozen=True, slots=True)
class Precision:
    """How the frozen base is stored, and the type that computes.

    Attributes:
        storage: `nf4`, `bf16` or `fp32`.
        compute: name of the type of activations, as torch calls it.
        device: `cuda`, `mps`, `xpu` or `cpu`.
    """

    storage: str
    compute: Compute
    device: str

    def __str__(self) -> str:
        return f"{self.storage}/{self.compute}/{self.device}"


def resolve_precision(requested: str, device: str | None = None) -> Precision:
    """What `precision:` means on this machine.

    bf16 computes wherever the hardware multiplies it fast (CUDA from Ampere on; a CPU with AMX), else fp32 does: in
    bf16, a CPU with AVX-512 bf16 alone was seen to be half as fast, one without it a hundred times slower. A `bf16`
    that was asked for is obeyed.
    """
    device = device or find_device()
    return precision_on(requested, device, lambda: _multiplies_bf16(device))


def precision_on(requested: str, device: str, multiplies_bf16: Callable[[], bool]) -> Precision:
    """What `precision:` means on a device, which need not be here.

    Args:
        requested: `auto`, `nf4`, `bf16` or `fp32`.
        device: its type, such as `cuda`.
        multiplies_bf16: whether it multiplies bf16 fast; asked only where that decides.
    """
    if requested == "fp32":
        return Precision("fp32", "float32", device)
    if requested == "bf16":
        return Precision("bf16", "bfloat16", device)
    fast: Compute = "bfloat16" if multiplies_bf16() else "float32"
    if requested == "auto":
        requested = "nf4" if device == "cuda" else "bf16" if fast == "bfloat16" else "fp32"
    return Precision(requested, fast, device)


@cache
def find_device() -> str:
    """The type of the device that computes: accelerate's choice."""
    if "accelerate" not in sys.modules and has_no_accelerator():
        return "cpu"
    from accelerate import PartialState

    return str(PartialState().device.type)


def has_no_accelerator(root: Path = Path("/")) -> bool:
    """Whether accelerate would certainly choose the CPU, found without importing it or torch.

    False means that it is not known: an environment variable or an installed package may decide, this is no Linux,
    or there is a trace of an accelerator and torch was built for one.

    Args:
        root: where /dev, /proc and /sys are.
    """
    if os.environ.get("ACCELERATE_TORCH_DEVICE") is not None or os.environ.get("LOCAL_RANK", "-1") != "-1":
        return False
    if os.environ.get("ACCELERATE_USE_SAGEMAKER", "false").lower() == "true":
        return False
    if sys.platform != "linux" or any(find_spec(name) is not None for name in _PLUGINS):
        return False
    try:
        if version("torch").endswith("+cpu"):
            return True
    except PackageNotFoundError:
        return False
    if any(next(root.glob(trace.removeprefix("/")), None) for trace in _TRACES):
        return False
    try:
        vendors = {path.read_text().strip() for path in root.glob("sys/bus/pci/devices/*/vendor")}
    except OSError:
        return False
    return vendors.isdisjoint(_PCI_VENDORS)


@cache
def _multiplies_bf16(device: str) -> bool:
    if device not in ("cuda", "cpu"):
        return False
    if device == "cpu" and (known := has_amx()) is not None:
        return known
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> bool | None:
    """Whether the CPU has AMX tiles, as torch would say; None where only torch can say it.

    torch asks the processor itself, Linux shows what its kernel knows: an old kernel hides AMX. A processor that has
    AMX has AVX-512 bf16 as well, which Linux has shown for longer.
    """
    machine = machine or platform.machine()
    if machine in ("aarch64", "arm64"):
        return False
    if sys.platform != "linux" or machine != "x86_64":
        return None
    first = _first_processor(cpuinfo)
    if "flags" not in first:
        return None
    flags = set(first["flags"].split())
    if "amx_tile" in flags:
        return True if "avx512f" in flags else None
    settled = first.get("vendor_id") == "AuthenticAMD" or "avx512_bf16" not in flags
    return False if settled else None


def has_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the CPU has AVX-512, without which torch computes bf16 products itself; None where that is not said."""
    flags = _first_processor(cpuinfo).get("flags")
    return None if flags is None else "avx512bw" in flags.split()


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    """What Linux says of the first processor; empty where it says nothing."""
    try:
        with cpuinfo.open(encoding="utf-8") as lines:
            pairs = (line.partition(":") for line in takewhile(str.strip, lines))
            return {name.strip(): value.strip() for name, _, value in pairs}
    except (OSError, UnicodeDecodeError):
        return {}
