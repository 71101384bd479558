"""What this machine grants the process: cores, by affinity, control group and OMP_NUM_THREADS, and which processor."""

import os
import platform
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """The cores that this process may use: those of its affinity, or fewer where a container's limit says so."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, container_limit() or bound)


def thread_count() -> int:
    """How many threads may compute: one a core, or fewer where OMP_NUM_THREADS says so."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cpu_count(), int(asked)) if asked.isdecimal() and int(asked) > 0 else cpu_count()


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


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
