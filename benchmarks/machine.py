"""The machine: processor time and memory of a tree of processes, and the processors that it may use."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from pathlib import Path

import psutil

__all__ = ["cpu_seconds", "descendants_of", "describe_machine", "memory_bytes", "pin_tree", "processors"]

_IS_LINUX = sys.platform == "linux"


def processors() -> list[int]:
    """Return the numbers of the processors that this process may use."""
    return sorted(os.sched_getaffinity(0)) if _IS_LINUX else list(range(os.cpu_count() or 1))


def descendants_of(pid: int) -> list[int]:
    """Return the ids of all processes below ``pid``."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used in all its threads; zero once it is gone."""
    try:
        if _IS_LINUX:
            # The number of the clock of another process, as clock_getcpuclockid(3) makes it: nanoseconds, where
            # /proc counts hundredths of a second.
            return time.clock_gettime((~pid << 3) | 2)
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except (OSError, psutil.Error):
        return 0.0


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of a process: pages that it shares count in parts. Elsewhere its own pages."""
    try:
        full = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(full, "pss", full.uss))


def pin_tree(allowed: list[int]) -> None:
    """Bind this process and all below it to some processors, with all their threads. Linux only."""
    if not _IS_LINUX:
        return
    for pid in (os.getpid(), *descendants_of(os.getpid())):
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), allowed)


def describe_machine() -> dict[str, str | int]:
    """Return what a reader of the figures has to know of the machine."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": len(processors()),
        "memory in GiB": round(psutil.virtual_memory().total / 2**30),
        "tasks that wanted a processor before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
    }
