"""How many threads an engine may use."""

import os

from taxonet.data.loader import cpu_count


def thread_count() -> int:
    """The cores that this process may use, or what OMP_NUM_THREADS says where that is fewer."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cpu_count(), int(asked)) if asked.isdecimal() and int(asked) > 0 else cpu_count()
