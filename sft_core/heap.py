"""The heap of the process that trains: memory that was freed is kept for the next step.

Each step asks for the same large blocks and frees them again. glibc gives every large block back
to the kernel at once, and the kernel hands it out again page by page, each one cleared: measured
on two cores with DistilGPT-2's shape in bf16, 313 tokens/s became 450 when freed memory was kept.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

# From malloc.h of glibc; see mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_MMAP_MAX: Final = 65536  # glibc's own default
_THRESHOLD: Final = 128 * 1024  # likewise
_NEVER: Final = 2**31 - 1


@contextmanager
def kept() -> Iterator[None]:
    """Inside, freed memory stays with the process; afterwards it goes back to the machine.

    Nothing happens where the C library is not glibc (macOS, Windows, Alpine).
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        library.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD)
        give_back()


def give_back() -> None:
    """Returns to the machine what lies free on the heap."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        _ = (library.gnu_get_libc_version, library.mallopt, library.malloc_trim)
    except (OSError, AttributeError, TypeError):
        return None
    return library
