"""Whether memory ran out, whatever said so."""

from __future__ import annotations

import torch

# torch has no class of its own for the host's allocator, nor for the workspace of a library of the device.
_SAID = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the device or the host ran out of memory, said by the error or by what it came of."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID):
            return True
        error = error.__cause__
    return False
