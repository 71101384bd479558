"""glibc's allocator on a training CPU.

By default glibc hands every large buffer back to the kernel when it is freed; the next step then pays for the same
pages again, one fault at a time. Keeping the pages makes steps faster and costs resident memory;
`benchmarks/training/allocator.py` measures by how much on a machine.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; True if it agreed, False on other systems."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    return all(mallopt(option, NEVER) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
