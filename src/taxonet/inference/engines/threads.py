"""How many threads an engine may use."""

import os
from pathlib import Path

from taxonet.data.loader import cpu_count

CGROUPS = Path("/sys/fs/cgroup")


def thread_count() -> int:
    """The cores that this process may use, or fewer where OMP_NUM_THREADS or a container's limit says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    limits = [cpu_count(), container_limit() or cpu_count()]
    if asked.isdecimal() and int(asked) > 0:
        limits.append(int(asked))
    return max(1, min(limits))


def container_limit(root: Path = CGROUPS) -> int | None:
    """The whole cores that the control group grants (`docker run --cpus`), None where it sets no limit."""
    try:
        quota, period = (root / "cpu.max").read_text("ascii").split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text("ascii").strip()  # version 1
            period = (root / "cpu" / "cpu.cfs_period_us").read_text("ascii").strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:  # "max" or -1: no limit
        return None
    return max(1, int(quota) // int(period))
