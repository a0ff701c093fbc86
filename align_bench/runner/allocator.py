"""The host's allocator: told to keep what is freed for the next pass, and to give it back between stages.

glibc maps every block of 32 MB and more anew and gives it back when it is freed, so that each pass over large tensors
faults all of their pages in again. `mallopt(3)` tells a running process otherwise, which needs no restart and no
environment variable.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1  # as a size, the largest there is
_PAD_BYTES = 64 * 2**20  # by which the heap grows at a time


def keep_freed() -> bool:
    """Let this process keep freed memory, from here on; addresses change by it, and no number does.

    Returns:
        Whether it does: not where an `obstacle` leaves the allocator as it is.
    """
    if obstacle() is not None:
        return False
    libc = ctypes.CDLL(None)
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD_BYTES}
    return all(libc.mallopt(name, value) == 1 for name, value in settings.items())


def give_back() -> None:
    """Give what is free back to the system, as far as glibc holds it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def obstacle() -> str | None:
    """Why the allocator stays as it is, in words; None where it is glibc's, and the environment says nothing of it."""
    said = [name for name in os.environ if name.startswith("MALLOC_")]
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        said.append("GLIBC_TUNABLES")
    if said:
        return f"{said[0]} is set"
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        return "the C library is not glibc"
    # Every allocator brings this function; the address of `malloc` lies in Python itself where that is linked so.
    if _file_of("malloc_usable_size") != _file_of("gnu_get_libc_version"):
        return "another one is preloaded"
    return None


class _Found(ctypes.Structure):
    """`Dl_info` of dlfcn.h."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file_of(function: str) -> bytes | None:
    """The library that a function of this process comes from."""
    process, found = ctypes.CDLL(None), _Found()
    address = ctypes.cast(getattr(process, function), ctypes.c_void_p)
    process.dladdr(address, ctypes.byref(found))
    name: bytes | None = found.file
    return name
