"""Devices that a suite can be planned for without having them: memory, peak rates and bandwidth, as published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from align_bench.errors import SuiteError, nearest
from align_bench.models.precision import Precision, precision_on, resolve_precision

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Attributes:
        name: as `--hardware` takes it.
        memory: bytes.
        fp32: floating-point operations per second, at the peak, of a matrix product in fp32, without TF32: torch leaves
            that off.
        bf16: the same in bf16 on tensor cores, dense, summed in fp32; None where the hardware has no bf16.
        bandwidth: bytes per second from and to its memory.
        called: what all stands in the name that torch gives it.
    """

    name: str
    memory: float
    fp32: float
    bf16: float | None
    bandwidth: float
    called: tuple[str, ...]

    def precision(self, requested: str) -> Precision:
        """What `precision:` means on it."""
        return precision_on(requested, "cuda", lambda: self.bf16 is not None)

    def peak(self, precision: Precision) -> float:
        """Operations per second at the peak, in the type that computes."""
        return self.bf16 if precision.compute == "bfloat16" and self.bf16 is not None else self.fp32

    def peak_words(self, precision: Precision) -> str:
        """What `peak` is, in words."""
        return "dense bf16 peak" if self.peak(precision) == self.bf16 else "fp32 peak"

    def is_named(self, name: str) -> bool:
        """Whether a device that torch gives this name is one of these."""
        return all(part in name for part in self.called)


@dataclass(frozen=True, slots=True)
class ThisCpu(Device):
    """The CPU of this machine; its rate is measured here."""

    def precision(self, requested: str) -> Precision:
        return resolve_precision(requested, CPU)

    def peak(self, precision: Precision) -> float:
        from align_bench.models.peak import rough_flops

        return rough_flops(precision)

    def peak_words(self, precision: Precision) -> str:
        return "rate of a large matrix product, measured here"

    def is_named(self, name: str) -> bool:
        return name == CPU


@dataclass(frozen=True, slots=True)
class Hardware:
    """So many devices of one kind, each with a worker of its own.

    Attributes:
        device: one of them.
        count: how many.
    """

    device: Device
    count: int = 1

    def __str__(self) -> str:
        return self.device.name if self.count == 1 else f"{self.device.name}x{self.count}"


_GB, _TERA = 1e9, 1e12
# Memory and bandwidth in decimal units, as data sheets give them. A data sheet's rate "with sparsity" is halved here.
_GPUS = (
    # NVIDIA H100 Tensor Core GPU data sheet, column SXM: 1,979 TFLOPS of bf16 with sparsity.
    Device("h100", 80 * _GB, 67 * _TERA, 989 * _TERA, 3350 * _GB, ("H100",)),
    # NVIDIA H200 Tensor Core GPU data sheet, column SXM: 1,979 TFLOPS of bf16 with sparsity.
    Device("h200", 141 * _GB, 67 * _TERA, 989 * _TERA, 4800 * _GB, ("H200",)),
    # NVIDIA A100 Tensor Core GPU data sheet, columns SXM: 312 TFLOPS of bf16 without sparsity.
    Device("a100-80", 80 * _GB, 19.5 * _TERA, 312 * _TERA, 2039 * _GB, ("A100", "80GB")),
    Device("a100-40", 40 * _GB, 19.5 * _TERA, 312 * _TERA, 1555 * _GB, ("A100", "40GB")),
    # NVIDIA L40S data sheet: 362.05 TFLOPS of bf16 without sparsity.
    Device("l40s", 48 * _GB, 91.6 * _TERA, 362.05 * _TERA, 864 * _GB, ("L40S",)),
    # NVIDIA Ada GPU Architecture white paper, appendix A: bf16 with FP32 accumulate, without sparsity.
    Device("rtx4090", 24 * _GB, 82.6 * _TERA, 165.2 * _TERA, 1008 * _GB, ("RTX 4090",)),
    # NVIDIA Ampere GA102 GPU Architecture white paper, appendix A: bf16 with FP32 accumulate, without sparsity.
    Device("rtx3090", 24 * _GB, 35.6 * _TERA, 71 * _TERA, 936 * _GB, ("RTX 3090",)),
    # NVIDIA T4 Tensor Core GPU data sheet: no bf16, so that fp32 computes here; its 65 TFLOPS are of fp16.
    Device("t4", 16 * _GB, 8.1 * _TERA, None, 320 * _GB, ("Tesla T4",)),
)
GPUS: Mapping[str, Device] = {device.name: device for device in _GPUS}


def parse_hardware(text: str) -> Hardware:
    """What `--hardware` names: `h100`, `h100x8`, or `cpu` for this machine.

    Raises:
        SuiteError: for an unknown name, or a count that is not 1 or more.
    """
    written = text.strip().lower()
    if written == CPU:
        return Hardware(_this_cpu())
    if written in GPUS:
        return Hardware(GPUS[written])
    name, _, count = written.rpartition("x")
    if name == CPU:
        raise SuiteError(f"--hardware: got {text!r}; cpu stands for this machine, and takes no count", fix="write cpu")
    if name in GPUS:
        if count.isascii() and count.isdecimal() and len(count) < 10 and int(count):
            return Hardware(GPUS[name], int(count))
        raise SuiteError(f"--hardware: got {text!r}; expected a whole number of 1 or more after {name}x")
    asked = re.sub(r"x\d+$", "", written) or written
    raise SuiteError(f"--hardware: got {text!r}. " + nearest(asked[:100], [*GPUS, CPU], what="device"))


def _this_cpu() -> ThisCpu:
    import psutil

    return ThisCpu(CPU, float(psutil.virtual_memory().total), 0.0, None, float("inf"), (CPU,))
