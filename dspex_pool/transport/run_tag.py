"""The tag by which the workers of a run are found again when the run itself is gone."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import psutil

__all__ = ["RUN_TAG_VARIABLE", "own_run_tag", "run_has_ended", "shares_numbers"]

#: Environment variable of every worker that carries the tag of the process that started it.
RUN_TAG_VARIABLE = "DSPEX_POOL_RUN"


def own_run_tag() -> str:
    """Return the tag of this process: its id and its start time, in Unix seconds, as ``PID-SECONDS``.

    The time is zero where the system does not tell it, as without ``/proc``.
    """
    return _tag_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _tag_of(pid: int) -> str:
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        started = 0.0
    return f"{pid}-{started:.2f}"


def run_has_ended(tag: str) -> bool:
    """Tell whether the process that ``tag`` names is gone. A worker that still runs is then an orphan.

    Args:
        tag: A value of the variable ``DSPEX_POOL_RUN``.

    Raises:
        ValueError: ``tag`` is not of the form that ``own_run_tag`` gives.
    """
    pid_text, _, started_text = tag.partition("-")
    pid, started = int(pid_text), float(started_text)
    try:
        process = psutil.Process(pid)
        # The id may belong to a later process by now. A second of tolerance, because the start time is
        # derived from the time of boot, which moves when the system's clock is set.
        is_another = started > 0 and abs(process.create_time() - started) > 1.0
        return process.status() == psutil.STATUS_ZOMBIE or is_another
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def shares_numbers(pid: int) -> bool:
    """Tell whether a process numbers processes as this one does: not in a container, whose tags say little outside.

    Raises:
        OSError: The process is gone, or is somebody else's.
    """
    if sys.platform != "linux":
        return True
    return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
